"""What a large journal costs: `python -m benchmarks.journal` writes one, and comes back to it.

Times are CPU seconds of this process. The rows are answered, 100 a commit.
"""

import argparse
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from hashlib import blake2b
from pathlib import Path
from typing import NoReturn

from batchrun.journal import Attempt, Intent, Journal, JournalWriter, Outcome, create_or_open
from batchrun.journal.checking import check_answers, check_quickly, check_whole

ROWS_IN_A_COMMIT = 100
ROWS_IN_A_PAGE = 1_024
STARTED_AT = 1_700_000_000_000
BODY = (
    b'{"id":"msg_%024x","type":"message","content":[{"type":"text","text":"' + b"Some words. " * 12 + b'"}]}'
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.journal", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="answered rows (1,000,000)")
    parser.add_argument("--folder", help="where the journal goes for the time")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="batchrun-journal-", dir=options.folder) as name:
        path = Path(name) / "journal.sqlite"
        with closing(create_or_open(path)) as journal:
            written = _cpu(lambda: _write(journal, options.rows))
            print(f"| {options.rows:,} answered rows | CPU |\n| --- | --- |")
            print(f"| written, a row | {written / options.rows * 1e6:.1f} us |")
            for what, work in _ways_back(journal).items():
                print(f"| {what} | {_cpu(work):.3f} s |")


def _ways_back(journal: Journal) -> dict[str, Callable[[], object]]:
    return {
        "sums, as `status` reads them": lambda: journal.totals(sandbox=False),
        "quick check": lambda: check_quickly(journal),
        "whole check": lambda: check_whole(journal),
        "responses compared with their checksums": lambda: check_answers(journal),
        "all found answered, in the order of the input": lambda: _find_all(journal),
    }


def _write(journal: Journal, rows: int) -> None:
    journal.start_run("", STARTED_AT, False, "", "", "{}")
    durable = threading.Semaphore(0)
    writer = JournalWriter(journal, lambda intents, _: durable.release(intents), _fail, lambda: False, _fail)
    ended: range = range(0)
    for first in range(1, rows + 1, ROWS_IN_A_COMMIT):
        for attempt in ended:
            writer.record(_answer(attempt))
        ended = range(first, min(rows + 1, first + ROWS_IN_A_COMMIT))
        for attempt in ended:
            writer.write_intent(_intent(attempt))
        for _ in ended:
            durable.acquire()
    for attempt in ended:
        writer.record(_answer(attempt))
    writer.close()


def _find_all(journal: Journal) -> None:
    attempt, page = journal.settled_after(0, ROWS_IN_A_PAGE)
    while page:
        attempt, page = journal.settled_after(attempt, ROWS_IN_A_PAGE)


def _intent(attempt: int) -> Intent:
    digest = blake2b(b"%d" % attempt, digest_size=16).digest()
    return Intent(attempt, 1, digest, 1, STARTED_AT + attempt, 270_000, 0, 54)


def _answer(attempt: int) -> Attempt:
    return Attempt(
        attempt,
        Outcome.ANSWERED,
        final=False,
        finished_at=STARTED_AT + 800 + attempt,
        nano_usd=270_000,
        credits=1,
        tokens=54,
        input_tokens=24,
        output_tokens=30,
        latency_ms=800.0,
        http_status=200,
        response=BODY % attempt,
    )


def _cpu(work: Callable[[], object]) -> float:
    before = time.process_time()
    work()
    return time.process_time() - before


def _fail(error: Exception) -> NoReturn:
    raise error


if __name__ == "__main__":
    main()
