"""Journals for tests: made by the real writer, of requests that are numbers."""

import threading
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from batchrun.errors import StorageError
from batchrun.journal import Attempt, Intent, Journal, JournalWriter, Outcome, create_or_open
from batchrun.journal.records import RequestHistory
from batchrun.journal.writer import OpenCommits, commits_here

STARTED_AT = 1_700_000_000_000


def digest_of(number: int) -> bytes:
    return (number * 0x9E3779B97F4A7C15 % 2**128).to_bytes(16, "big")


def start_run(journal: Journal, sandbox: bool = False) -> int:
    return journal.start_run("0", STARTED_AT, sandbox, "http://localhost", "f", "{}")


def intent(attempt: int, *, run: int = 1, number: int = 1, nano_usd: int = 500) -> Intent:
    return Intent(attempt, run, digest_of(attempt), number, STARTED_AT + attempt, nano_usd, 7, 90)


def answer_to(attempt: int, body: bytes | None = None) -> Attempt:
    """An answer of its own for each attempt, about 450 bytes long. Every fortieth cost too much."""
    return Attempt(
        attempt,
        Outcome.ANSWERED,
        final=False,
        finished_at=STARTED_AT + 1_000 + attempt,
        nano_usd=300 + attempt,
        credits=1 + attempt % 5,
        tokens=40 + attempt,
        input_tokens=30 + attempt,
        output_tokens=10,
        remaining_credits=100_000 - attempt,
        latency_ms=12.5 + attempt,
        first_token_ms=None,
        http_status=200,
        response=body or message_of(attempt),
        passed_bounds=(20 + attempt, 5) if attempt % 40 == 1 else None,
    )


def message_of(attempt: int) -> bytes:
    content = [{"type": "text", "text": f"{attempt} " * 90}]
    message = {"id": f"msg_{attempt}", "type": "message", "content": content, "stop_reason": "end_turn"}
    return msgspec.json.encode(message)


def failure_of(attempt: int, outcome: Outcome = Outcome.REFUSED, *, final: bool = True) -> Attempt:
    booked = (500, 7, 90) if outcome is Outcome.UNCERTAIN else (0, 0, 0)
    return Attempt(
        attempt,
        outcome,
        final,
        STARTED_AT + 2_000 + attempt,
        *booked,
        latency_ms=3.0,
        http_status=500,
        error_code="api_error",
        error="failed",
    )


@dataclass
class Reports:
    """What a writer has reported, for a test to wait for and to look at."""

    commits: int = 0
    not_needed: frozenset[int] = frozenset()
    errors: tuple[Exception, ...] = ()
    nearly_full: tuple[StorageError, ...] = ()

    def __post_init__(self) -> None:
        self.committed = threading.Semaphore(0)

    def take_commit(self, intents: int, not_needed: frozenset[int]) -> None:
        self.commits += 1
        self.not_needed |= not_needed
        for _ in range(intents):
            self.committed.release()

    def take_error(self, error: Exception) -> None:
        self.errors += (error,)

    def take_nearly_full(self, error: StorageError) -> None:
        self.nearly_full += (error,)


def writer_of(journal: Journal, reports: Reports, open_commits: OpenCommits = commits_here) -> JournalWriter:
    return JournalWriter(
        journal,
        reports.take_commit,
        reports.take_error,
        lambda: False,
        reports.take_nearly_full,
        open_commits=open_commits,
    )


def ask_all(
    journal: Journal, attempts: range, run: int = 1, open_commits: OpenCommits = commits_here
) -> None:
    """Answers to all attempts, but refusals of the multiples of 10, and uncertain failures of 15."""
    reports = Reports()
    writer = writer_of(journal, reports, open_commits)
    for attempt in attempts:
        writer.write_intent(intent(attempt, run=run))
    for _ in attempts:
        assert reports.committed.acquire(timeout=20)
    for attempt in attempts:
        if attempt % 15 == 0:
            writer.record(failure_of(attempt, Outcome.UNCERTAIN, final=False))
        elif attempt % 10 == 0:
            writer.record(failure_of(attempt))
        else:
            writer.record(answer_to(attempt))
    writer.close()


def make_journal(path: Path, rows: int) -> None:
    journal = create_or_open(path)
    ask_all(journal, range(1, rows + 1), start_run(journal))
    journal.close()


def everything(journal: Journal, rows: int) -> tuple[dict[bytes, RequestHistory], dict[bytes, bool], object]:
    """What batchrun reads of a journal: histories, what needs no asking, and the sums.

    Without the texts of errors: on them rests nothing, and they have no checksum.
    """
    digests = [digest_of(number) for number in range(1, rows + 1)]
    histories = {
        digest: msgspec.structs.replace(history, error_code=None, error=None)
        for digest, history in journal.histories(digests).items()
    }
    totals = replace(journal.totals(sandbox=False), by_error={})
    return histories, journal.settled_digests(digests), totals
