"""The lines of --verbose on stderr: each failed attempt, and what happens to its row."""

from contextlib import suppress

import click

from batchrun.rows.observer import AttemptFailed, Observer, RunStarted, Worker
from batchrun.text import single_line


class EventLines(Observer):
    """Prints each event in a line. A closed stderr doesn't change the run."""

    def run_started(self, event: RunStarted) -> None:
        _say(f"run {event.run} started")

    def attempt_failed(self, event: AttemptFailed) -> None:
        _say(failure_line(event))

    def worker_joined(self, worker: Worker) -> None:
        _say(f"worker {worker.name} has joined")

    def worker_left(self, worker: Worker, why: str) -> None:
        _say(f"worker {worker.name} has left, with {worker.in_flight:,} requests in flight: {why}")


def failure_line(event: AttemptFailed) -> str:
    failure = event.failure
    status = f", HTTP {failure.status}" if failure.status else ""
    wait = f"; wait {failure.retry_after:g} s" if failure.retry_after else ""
    billing = "; may be billed" if failure.billing == "unknown" else ""
    then = "its row has failed" if event.final else "its row is sent again"
    return f"attempt {event.attempt}: {failure.code}{status}: {failure.message}{wait}{billing}; {then}"


def _say(line: str) -> None:
    with suppress(OSError):
        click.echo(single_line(line), err=True)
