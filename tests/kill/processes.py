"""batchrun's commands as processes of their own: runs that can be killed, and the sandbox that they ask."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from tests.forked import BatchrunProcess

_PROJECT = Path(__file__).parents[2]
_QUIET_SECONDS = 0.03


class BilledRequest(NamedTuple):
    """One line of the bill. `status` is 0 where no status line was sent."""

    id: str
    body_sha256: str
    nano_usd: int
    status: int
    fault: str | None


class SandboxProcess:
    """A running `batchrun sandbox`, whose bill is the truth."""

    def __init__(self, base_url: str, client: httpx.Client) -> None:
        self.base_url = base_url
        self._client = client

    def totals(self) -> dict[str, Any]:
        total: dict[str, Any] = self._get("/sandbox/bill?requests=0")["total"]
        return total

    def settled_totals(self) -> dict[str, Any]:
        """The totals, once nothing is left to be read from the sockets of a process that was killed."""
        totals = self.totals()
        while True:
            time.sleep(_QUIET_SECONDS)
            later = self.totals()
            if later == totals:
                return totals
            totals = later

    def requests(self) -> list[BilledRequest]:
        """All requests, in the order of their arrival."""
        return [
            BilledRequest(line["id"], line["body_sha256"], line["nano_usd"], line["status"], line["fault"])
            for line in self._get("/sandbox/bill")["requests"]
        ]

    def _get(self, path: str) -> dict[str, Any]:
        response = self._client.get(self.base_url + path).raise_for_status()
        statement: dict[str, Any] = response.json()
        return statement


@contextmanager
def sandbox_process(*options: str) -> Iterator[SandboxProcess]:
    """`batchrun sandbox` on a free port, in a process that ends with the block."""
    process = BatchrunProcess(
        ["sandbox", "--port", "0", *options], stderr=subprocess.PIPE, text=True, cwd=_PROJECT
    )
    with process:
        try:
            line = process.stderr.readline() if process.stderr else ""
            found = re.search(r"http://127\.0\.0\.1:\d+", line)
            if found is None:
                raise RuntimeError(f"the sandbox did not start: {line}")
            with httpx.Client(timeout=30) as client:
                yield SandboxProcess(found[0], client)
        finally:
            process.kill()


@contextmanager
def command_process(
    *arguments: str | Path,
    log: Path,
    settings: Mapping[str, str] | None = None,
    module: str = "batchrun",
) -> Iterator["subprocess.Popen[bytes]"]:
    """A command of batchrun. What it says goes to `log`; it is killed if the block leaves it running.

    `settings` are further variables of its environment; `module` is run in place of batchrun.
    """
    environment = {**os.environ, "ABLIT_KEY": "any", **(settings or {})}
    command = list(map(str, arguments))
    with log.open("ab") as output:
        options: dict[str, Any] = {"stdout": output, "stderr": output, "stdin": subprocess.DEVNULL}
        process: subprocess.Popen[bytes]
        if module == "batchrun":
            process = BatchrunProcess(command, env=environment, cwd=log.parent, **options)
        else:
            environment["PYTHONPATH"] = str(_PROJECT)
            process = subprocess.Popen(
                [sys.executable, "-m", module, *command], env=environment, cwd=log.parent, **options
            )
    with process:
        try:
            yield process
        finally:
            process.kill()


def finished(arguments: Sequence[str | Path], log: Path, timeout: float = 300.0) -> int:
    """Waits for a command of batchrun, `timeout` seconds at most; returns its exit code."""
    with command_process(*arguments, log=log) as process:
        return process.wait(timeout)
