"""Where a row's microseconds go: `python -m benchmarks.stages` times the stages of a run one by one.

Each stage runs alone, on the rows of one job, in this process; its CPU time counts with all threads. In a run
they take turns: what is missing to the CPU time of a whole run is the engine, and waiting for one another.
"""

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import NoReturn

import msgspec
import uvloop

from batchrun.amounts import NOTHING
from batchrun.client.endpoint import EndpointSettings, open_endpoint
from batchrun.client.request import Request
from batchrun.engine.accounting import Accounting, ActiveRequest
from batchrun.engine.ledger import Ledger, caps_of
from batchrun.engine.starting_balance import starting_price_list
from batchrun.exchange import Response
from batchrun.job.file import load_job
from batchrun.job.spec import fingerprint, public_job, run_folder
from batchrun.journal import Attempt, Intent, Journal, JournalWriter, Totals, create_or_open
from batchrun.rows.dataset import Dataset, keeping_digests, open_dataset
from batchrun.rows.selection import pending_rows
from batchrun.runs.observers.progress import Progress
from batchrun.runs.output import write_output
from batchrun.version import __version__
from benchmarks.jobs import Jobs
from benchmarks.server import Server, compile_server, serving

ROWS = 50_000
IN_FLIGHT = 256
ROWS_IN_A_COMMIT = 100


class Stages:
    """Collects stages and their CPU time in microseconds per row."""

    def __init__(self) -> None:
        self.taken: dict[str, float] = {}

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        before = time.process_time()
        yield
        self.taken[name] = (time.process_time() - before) / ROWS * 1e6


class _Records:
    """In the journal's place: keeps what it is given."""

    def __init__(self) -> None:
        self.intents: list[Intent] = []
        self.attempts: list[Attempt] = []

    def write_intent(self, intent: Intent) -> None:
        self.intents.append(intent)

    def record(self, attempt: Attempt) -> None:
        self.attempts.append(attempt)

    def cancel_intent(self, attempt: int) -> None:
        raise AssertionError(f"attempt {attempt} was sent")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="batchrun-stages-") as name:
        folder = Path(name)
        with serving(compile_server(folder)) as server:
            job = Jobs(folder).new(server, ROWS, IN_FLIGHT)
            dataset = open_dataset(load_job(job.file), sandbox=False)
            stages = _time_stages(dataset, server, create_or_open(folder / "journal.sqlite"), folder)
    print("| stage | us of CPU per row |\n| --- | --- |")
    for stage, microseconds in stages.taken.items():
        print(f"| {stage} | {microseconds:.1f} |")
    print(f"| together | {sum(stages.taken.values()):.1f} |")


def _time_stages(dataset: Dataset, server: Server, journal: Journal, folder: Path) -> Stages:
    stages = Stages()
    with stages.timed("read, render, encode, take the digest"):
        for _ in dataset.chunks([]):
            pass
    job = dataset.job
    tables = msgspec.json.encode(public_job(job)).decode()
    journal.start_run(__version__, 0, False, job.endpoint.base_url, fingerprint(job), tables)
    run_folder(job).mkdir(exist_ok=True)
    dataset = keeping_digests(dataset)
    chunks = pending_rows(dataset, journal, Progress(), dataset.labelling)
    requests = [row.request for row in chain.from_iterable(chunks)]
    with stages.timed("send and decode"):
        answers = uvloop.run(_send_all(server, requests))
    with stages.timed("ledger and accounting"):
        records = _book_all(dataset, requests, answers)
    with stages.timed(f"journal, {ROWS_IN_A_COMMIT} rows in a commit"):
        _commit_all(journal, records)
    with stages.timed("look up what is settled"):
        for start in range(0, ROWS, 1024):
            journal.settled_digests(tuple(request.digest for request in requests[start : start + 1024]))
    with stages.timed("output: read, look up, decode, Parquet"):
        write_output(dataset, journal, folder / "output.parquet", lambda _rows, _findings: {})
    journal.close()
    return stages


async def _send_all(server: Server, requests: list[Request]) -> list[Response]:
    import anyio

    answers: list[Response] = []
    waiting = iter(requests)
    settings = EndpointSettings(f"http://127.0.0.1:{server.port}", auth="none", connections=IN_FLIGHT)

    async def work() -> None:
        for request in waiting:
            reply = await endpoint.send(request.body)
            assert isinstance(reply, Response)
            answers.append(reply)

    async with open_endpoint(settings) as endpoint, anyio.create_task_group() as tasks:
        for _ in range(IN_FLIGHT):
            tasks.start_soon(work)
    return answers


def _book_all(dataset: Dataset, requests: list[Request], answers: list[Response]) -> _Records:
    job, records = dataset.job, _Records()
    ledger = Ledger(caps_of(job.budget, NOTHING, NOTHING), job.budget.keep_credits)
    accounting = Accounting(1, 1, ledger, starting_price_list(job, False, Totals()), records)
    for request, answer in zip(requests, answers, strict=True):
        active = ActiveRequest(request)
        assert accounting.reserve(active) is None
        accounting.answered(active, answer)
    return records


def _commit_all(journal: Journal, records: _Records) -> None:
    """As a run does: each commit has some intents, and the ends of those in the commit before it."""
    durable = threading.Semaphore(0)
    writer = JournalWriter(journal, lambda intents, _: durable.release(intents), _fail, lambda: False, _fail)
    for start in range(0, ROWS, ROWS_IN_A_COMMIT):
        for attempt in records.attempts[max(0, start - ROWS_IN_A_COMMIT) : start]:
            writer.record(attempt)
        for intent in records.intents[start : start + ROWS_IN_A_COMMIT]:
            writer.write_intent(intent)
        for _ in records.intents[start : start + ROWS_IN_A_COMMIT]:
            durable.acquire()
    for attempt in records.attempts[-ROWS_IN_A_COMMIT:]:
        writer.record(attempt)
    writer.close()


def _fail(error: Exception) -> NoReturn:
    raise error


if __name__ == "__main__":
    main()
