"""Whole runs against the sandbox, and what its bill says about when they sent."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import polars as pl

from batchrun.client.server import Server
from batchrun.job.file import make_job
from batchrun.runs.run import run_job
from batchrun.sandbox import Sandbox

Step = tuple[float, str, dict[str, Any]]


@contextmanager
def meanwhile(sandbox: Sandbox, *steps: Step) -> Iterator[list[float]]:
    """Posts to the sandbox's control paths while the block runs: (seconds to wait before, path, JSON).

    Yields the instants at which the steps were taken, in seconds since 1970, as they come to pass.
    """
    taken: list[float] = []

    def control() -> None:
        for seconds, path, values in steps:
            time.sleep(seconds)
            httpx.post(f"{sandbox.base_url}/sandbox/{path}", json=values).raise_for_status()
            taken.append(time.time())

    thread = threading.Thread(target=control)
    thread.start()
    yield taken
    thread.join()


def run(
    folder: Path, sandbox: Sandbox | str, rows: int, max_tokens: int = 16, **tables: dict[str, Any]
) -> dict[str, Any]:
    """A run over `rows` rows, with further tables of the job; its summary. `sandbox` may be an address."""
    pl.DataFrame({"text": [f"review {number}" for number in range(rows)]}).write_parquet(
        folder / "in.parquet"
    )
    job = make_job(
        {
            "input": {"path": "in.parquet"},
            "prompt": {"template": "{{ text }}"},
            "request": {"model": "abliterated-model", "max_tokens": max_tokens},
            "output": {"path": "out.parquet", "accept": ["truncated"]},
            **tables,
        },
        folder,
        sandbox=True,
    )
    base_url = sandbox if isinstance(sandbox, str) else sandbox.base_url
    return dict(run_job(job, Server(base_url, "key", sandbox=True)))


def statuses(folder: Path) -> dict[str, int]:
    counts = pl.read_parquet(folder / "out.parquet")["status"].value_counts()
    return dict(zip(counts["status"], counts["count"], strict=True))


@dataclass(frozen=True)
class Arrival:
    """One request at the sandbox. `at`: seconds since 1970; `tokens`: what was charged."""

    at: float
    status: int
    tokens: int


class Arrivals(list[Arrival]):
    """All requests of a run, in order."""

    @property
    def refused(self) -> int:
        return sum(each.status == 429 for each in self)

    def between(self, begin: float, end: float) -> "Arrivals":
        return Arrivals(each for each in self if begin < each.at <= end)

    def after(self, seconds: float) -> "Arrivals":
        """Returns the requests that came so many seconds after the first one, or later."""
        return Arrivals(each for each in self if each.at >= self[0].at + seconds)

    def share_used(self, per_minute: int, *, tokens: bool = False) -> float:
        """How much of a limit was used, from the first of these requests to the last."""
        used = sum(each.tokens if tokens else 1 for each in self[1:] if each.status == 200)
        return used / ((self[-1].at - self[0].at) * per_minute / 60)


def arrivals(sandbox: Sandbox) -> Arrivals:
    return Arrivals(
        Arrival(
            datetime.fromisoformat(each["received_at"]).timestamp(),
            each["status"],
            each["input_tokens"] + each["output_tokens"],
        )
        for each in sandbox.bill()["requests"]
    )
