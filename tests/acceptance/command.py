"""The real command as a process, in a folder of its own and with a key of its own at the sandbox."""

import csv
import hashlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq

from tests.forked import BatchrunProcess

COMMAND = [sys.executable, "-m", "batchrun"]

JOB = """\
[input]
path = "in.csv"

[prompt]
template = "Sentiment, one word: {{ text }}"

[request]
model = "abliterated-model"
max_tokens = 16

[endpoint]
base_url = "BASE_URL"

[pricing]
input_usd_per_million = 5.0
output_usd_per_million = 5.0

[limits]
concurrency = 8

[output]
path = "out.parquet"
accept = ["truncated"]
"""


class SandboxProcess:
    """`batchrun sandbox` as a process. Bills are kept by key; faults and credits hold for all keys."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self._client = httpx.Client(base_url=base_url, timeout=20)

    def set(self, what: str, value: Mapping[str, Any]) -> None:
        """POST /sandbox/`what`: limits, faults or credits."""
        self._client.post(f"/sandbox/{what}", json=value).raise_for_status()

    def bill(self, key: str) -> dict[str, Any]:
        """The sums of one key; the label is documented: key_ and 12 hex digits of its SHA-256."""
        label = "key_" + hashlib.sha256(key.encode()).hexdigest()[:12]
        by_key = self._client.get("/sandbox/bill?requests=0").json()["by_key"]
        nothing = ("requests", "billed_requests", "input_tokens", "output_tokens", "credits", "nano_usd")
        sums: dict[str, Any] = by_key.get(label, dict.fromkeys(nothing, 0))
        return sums

    def close(self) -> None:
        self._client.close()


@contextmanager
def sandbox_process(*options: str) -> Iterator[SandboxProcess]:
    """A sandbox on a free port, which ends with the block."""
    command = ["sandbox", "--port", "0", *options]
    with BatchrunProcess(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            address = re.search(r"http://127\.0\.0\.1:\d+", process.stderr.readline())
            assert address is not None
            sandbox = SandboxProcess(address[0])
            yield sandbox
            sandbox.close()
        finally:
            process.kill()


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def last_line(self) -> str:
        return self.err.splitlines()[-1]

    @property
    def summary(self) -> dict[str, Any]:
        """What --json printed."""
        parsed: dict[str, Any] = json.loads(self.out)
        return parsed


@dataclass(frozen=True)
class Place:
    """A folder with `job.toml`, and what can be done and seen there."""

    folder: Path
    sandbox: SandboxProcess
    key: str

    @property
    def job_file(self) -> Path:
        return self.folder / "job.toml"

    @property
    def output(self) -> Path:
        return self.folder / "out.parquet"

    @property
    def environment(self) -> dict[str, str]:
        hidden = (
            "ABLIT_KEY",
            "TERM",
            "COLUMNS",
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "ALL_PROXY",
            "PYTHONUNBUFFERED",
        )
        kept = {name: value for name, value in os.environ.items() if name not in hidden}
        return {**kept, "ABLIT_KEY": self.key}

    def texts(self, *texts: str, name: str = "in.csv") -> Path:
        """Writes a table with the columns id and text."""
        path = self.folder / name
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("id", "text"), *enumerate(texts)])
        return path

    def parquet(self, table: pa.Table, name: str = "in.parquet") -> Path:
        path = self.folder / name
        pq.write_table(table, path)
        return path

    def start(self, *arguments: str, environment: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
        """The command in the background; its caller must end it."""
        return BatchrunProcess(
            arguments,
            cwd=self.folder,
            env={**self.environment, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def command(self, *arguments: str, environment: Mapping[str, str] | None = None) -> Done:
        """The command, to its end."""
        with self.start(*arguments, environment=environment) as process:
            return ended(process)

    def run(self, *settings: str, options: Sequence[str] = ()) -> Done:
        """`batchrun run job.toml`, with settings such as budget.usd=2 on top."""
        return self.command("run", "job.toml", *options, *as_options(settings))

    def rows(self) -> list[dict[str, Any]]:
        """The rows of the output."""
        rows: list[dict[str, Any]] = pq.read_table(self.output).to_pylist()
        return rows

    def column(self, name: str) -> list[Any]:
        values: list[Any] = pq.read_table(self.output, columns=[name])[name].to_pylist()
        return values

    def summary(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads((self.folder / "out.run" / "summary.json").read_text())
        return parsed

    def journal(self, query: str) -> list[tuple[Any, ...]]:
        """Rows of a query on the journal, as any SQLite tool would get them."""
        connection = sqlite3.connect(f"file:{self.folder}/out.run/journal.sqlite?mode=ro", uri=True)
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.close()

    def bill(self) -> dict[str, Any]:
        return self.sandbox.bill(self.key)

    @property
    def requests(self) -> int:
        """How many requests the sandbox has had from here."""
        return int(self.bill()["requests"])


def as_options(settings: Sequence[str]) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


def ended(process: "subprocess.Popen[str]") -> Done:
    """Waits for the end of a process that was started here."""
    try:
        out, err = process.communicate(timeout=40)
    finally:
        process.kill()
    return Done(process.returncode, out, err)


@contextmanager
def paused(process: "subprocess.Popen[str]") -> Iterator[None]:
    """The process goes on after the block, however long the block takes."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def until(holds: Callable[[], bool], seconds: float = 15) -> None:
    """Waits until `holds()`; an AssertionError says that it never did."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
