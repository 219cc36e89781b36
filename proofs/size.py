"""A finished run of a million rows: what its journal costs, and what it costs to come back to it.

The journal is written by the real writer, from the requests of the real input; only the endpoint is left out.
"""

import queue
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from batchrun.client.request import Request
from batchrun.clock import milliseconds
from batchrun.job.file import load_job
from batchrun.job.spec import fingerprint, public_job
from batchrun.journal import Attempt, Intent, Journal, JournalWriter, Outcome, create_or_open
from batchrun.journal.checking import check_at_start
from batchrun.rows.dataset import Dataset, endpoint_identity, keeping_digests, open_dataset
from batchrun.runs.run_folder import make_run_folder
from proofs.results import Result, Say
from tests.kill.processes import SandboxProcess, command_process, finished, sandbox_process

ROWS = 1_000_000
APPENDED = 10
IN_FLIGHT = 256
_INPUT_TOKENS = 24
_OUTPUT_TOKENS = 30
_NANO_USD = 5_000 * (_INPUT_TOKENS + _OUTPUT_TOKENS)

_JOB = """
[input]
path = "prompts.parquet"
[prompt]
template = "Sentiment of this review, one word: {{{{ text }}}}"
[request]
model = "abliterated-model"
max_tokens = 64
[endpoint]
base_url = "{base_url}"
[pricing]
input_usd_per_million = 5.0
output_usd_per_million = 5.0
[budget]
usd = 100000
[output]
path = "answers.parquet"
"""


class Resumed(NamedTuple):
    """Seconds from the start of the command, and the process's peak of resident memory in bytes."""

    first_request: float
    peak_at_first_request: int
    end: float
    exit_code: int


def prove_size(say: Say) -> list[Result]:
    with tempfile.TemporaryDirectory() as name, sandbox_process("--latency", "0.5") as sandbox:
        folder = Path(name)
        job_file = folder / "job.toml"
        job_file.write_text(_JOB.format(base_url=sandbox.base_url))
        _write_prompts(folder, ROWS)
        say(f"writing the journal of {ROWS:,} rows")
        cpu_seconds = _write_journal(job_file, folder)
        size = (folder / "answers.run" / "journal.sqlite").stat().st_size
        status_seconds = min(_timed_status(job_file, folder) for _ in range(3))
        _write_prompts(folder, ROWS + APPENDED)
        say(f"resuming with {APPENDED} appended rows")
        resumed = _resume(job_file, folder, sandbox)
        billed = sandbox.settled_totals()["billed_requests"]
    return _results(cpu_seconds, size, status_seconds, resumed, billed)


def _results(cpu: float, size: int, status: float, resumed: Resumed, billed: int) -> list[Result]:
    proof = f"a journal of {ROWS:,} rows"
    microseconds = cpu / ROWS * 1e6
    first, peak = resumed.first_request, resumed.peak_at_first_request
    whole = f"{resumed.end:.1f} s, exit code {resumed.exit_code}"
    return [
        Result(proof, "CPU of the journal per row", f"{microseconds:.1f} us", "< 25 us", microseconds < 25),
        Result(proof, "journal's file", f"{size / 2**20:,.0f} MiB"),
        Result(proof, "batchrun status", f"{status:.2f} s", "0.5 s", status <= 0.5),
        Result(
            proof, f"{APPENDED} rows appended: requests sent", f"{billed}", f"{APPENDED}", billed == APPENDED
        ),
        Result(proof, "until the first of them", f"{first:.1f} s", "10 s", first <= 10),
        Result(proof, "peak memory until then", f"{peak / 10**6:.0f} MB", "300 MB", peak <= 300 * 10**6),
        Result(proof, "whole run, output included", whole, "exit code 0", resumed.exit_code == 0),
    ]


def _write_prompts(folder: Path, rows: int) -> None:
    texts = [f"{row:07} the quick brown fox jumps over the lazy dog, {row % 97} times" for row in range(rows)]
    pq.write_table(
        pa.table({"id": range(rows), "text": texts}), folder / "prompts.parquet", row_group_size=2**16
    )


def _write_journal(job_file: Path, folder: Path) -> float:
    """Journals one answered attempt for each row; returns the CPU seconds of the journal alone."""
    run_folder = make_run_folder(folder / "answers.run")
    dataset = keeping_digests(open_dataset(load_job(job_file), sandbox=False))  # as every run does
    with closing(create_or_open(run_folder.journal)) as journal:
        check_at_start(journal, milliseconds())
        run = _start_run(journal, dataset)
        cpu_seconds = _write_attempts(journal, _requests(dataset), run)
        rows = msgspec.json.encode(
            {"total": ROWS, "ok": ROWS, "invalid": 0, "failed": 0, "pending": 0, "shared": 0}
        )
        journal.finish_run(run, milliseconds(), rows.decode(), 0, "Every row has an answer.")
    return cpu_seconds


def _start_run(journal: Journal, dataset: Dataset) -> int:
    job = dataset.job
    endpoint = endpoint_identity(job, sandbox=False)
    tables = msgspec.json.encode(public_job(job)).decode()
    return journal.start_run("0", milliseconds(), False, endpoint, fingerprint(job), tables)


def _requests(dataset: Dataset) -> Iterator[Request]:
    for chunk in dataset.chunks([]):
        for request in chunk.requests:
            if isinstance(request, Request):
                yield request


def _write_attempts(journal: Journal, requests: Iterator[Request], run: int) -> float:
    """Writes groups of as many as are in flight by default: one's answers with the next one's intents.

    Returns the CPU seconds of writing and of handing over.
    """
    commits: queue.SimpleQueue[tuple[int, float]] = queue.SimpleQueue()
    writer = JournalWriter(
        journal,
        committed=lambda intents, _refused: commits.put((intents, time.thread_time())),
        failed=_raise,
        make_room=lambda: False,
        nearly_full=_raise,
    )
    handing_over = writing = 0.0
    number, attempts = 1, list[Attempt]()
    while group := list(islice(requests, IN_FLIGHT)):
        intents = [_intent(number + place, run, request) for place, request in enumerate(group)]
        handing_over += _cpu_seconds(writer.record, attempts) + _cpu_seconds(writer.write_intent, intents)
        attempts = [_answered(intent) for intent in intents]
        number += len(group)
        durable = 0
        while durable < len(intents):
            committed, writing = commits.get()
            durable += committed
    handing_over += _cpu_seconds(writer.record, attempts)
    writer.close()
    return handing_over + writing


def _cpu_seconds(hand_over: Callable[[Any], object], records: Iterable[Any]) -> float:
    started = time.thread_time()
    for record in records:
        hand_over(record)
    return time.thread_time() - started


def _raise(error: Exception) -> None:
    raise error


def _intent(attempt: int, run: int, request: Request) -> Intent:
    tokens = request.input_bound + (request.output_bound or 0)
    return Intent(attempt, run, request.digest, 1, milliseconds(), 5_000 * tokens, 0, tokens)


def _answered(intent: Intent) -> Attempt:
    message = {
        "id": f"msg_{intent.attempt:024x}",
        "type": "message",
        "role": "assistant",
        "model": "abliterated-model",
        "content": [{"type": "text", "text": "A sentence of about thirty tokens. " * 4}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": _INPUT_TOKENS, "output_tokens": _OUTPUT_TOKENS},
        "remaining_credits": None,
        "estimated_credits_used": 1,
        "estimated_cost_usd": _NANO_USD / 10**9,
    }
    return Attempt(
        intent.attempt,
        Outcome.ANSWERED,
        final=False,
        finished_at=milliseconds(),
        nano_usd=_NANO_USD,
        credits=1,
        tokens=_INPUT_TOKENS + _OUTPUT_TOKENS,
        input_tokens=_INPUT_TOKENS,
        output_tokens=_OUTPUT_TOKENS,
        latency_ms=800.0,
        http_status=200,
        response=msgspec.json.encode(message),
    )


def _timed_status(job_file: Path, folder: Path) -> float:
    started = time.monotonic()
    exit_code = finished(["status", job_file], folder / "commands.log")
    if exit_code != 0:
        raise RuntimeError((folder / "commands.log").read_text())
    return time.monotonic() - started


def _resume(job_file: Path, folder: Path, sandbox: SandboxProcess) -> Resumed:
    started = time.monotonic()
    with command_process("run", job_file, "-q", log=folder / "commands.log") as process:
        while process.poll() is None and not sandbox.totals()["requests"]:
            time.sleep(0.01)
        first_request = time.monotonic() - started
        peak = _peak_memory(process.pid)
        exit_code = process.wait(timeout=300)
    return Resumed(first_request, peak, time.monotonic() - started, exit_code)


def _peak_memory(process: int) -> int:
    """Peak of the resident memory in bytes: VmHWM of proc_pid_status(5), in units of 1,024 bytes."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the resumed run ended before its first request")
