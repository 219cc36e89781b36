"""Which requests are still to be asked, whatever the journal holds and in whatever order."""

import dataclasses
import random
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from msgspec.structs import replace

from batchrun.client.request import Request
from batchrun.job.file import make_job
from batchrun.journal import Attempt, Journal, Outcome
from batchrun.rows.active import ActiveRows
from batchrun.rows.dataset import ROWS_IN_A_CHUNK, Dataset, open_dataset
from batchrun.rows.labelling import PLAIN
from batchrun.rows.result import RowResult
from batchrun.rows.selection import candidates, in_random_order, pending_rows
from batchrun.runs.observers.progress import Progress
from tests.money.journals import Reports, answer_to, failure_of, intent, writer_of

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS = 5 * ROWS_IN_A_CHUNK + 17


def workload_of(folder: Path, texts: list[str], expected: str | None = None) -> Dataset:
    pq.write_table(pa.table({"text": texts}), folder / "in.parquet")
    tables = {
        "input": {"path": "in.parquet"},
        "prompt": {"template": "{{ text }}"},
        "request": {"model": "m", "max_tokens": 5},
        "output": {"path": "out.parquet"},
        **({"evaluation": {"expected": expected, "metric": "exact"}} if expected else {}),
    }
    return open_dataset(make_job(tables, folder, sandbox=True), sandbox=True)


def digests_of(dataset: Dataset) -> list[bytes]:
    requests = [request for chunk in dataset.chunks([]) for request in chunk.requests]
    return [request.digest for request in requests if isinstance(request, Request)]


def settle(journal: Journal, digests: list[bytes], outcomes: str = "a") -> None:
    """One attempt for each digest. The letters of `outcomes` take turns: a(nswered), f(ailed for good),
    in d(oubt), r(efused)."""
    ends: dict[str, Callable[[int], Attempt]] = {
        "a": answer_to,
        "f": failure_of,
        "d": lambda attempt: failure_of(attempt, Outcome.UNCERTAIN, final=False),
        "r": lambda attempt: failure_of(attempt, final=False),
    }
    reports = Reports()
    writer = writer_of(journal, reports)
    attempts = range(journal.next_attempt(), journal.next_attempt() + len(digests))
    for attempt, digest in zip(attempts, digests, strict=True):
        writer.write_intent(replace(intent(attempt), digest=digest))
    for _ in attempts:
        assert reports.committed.acquire(timeout=20)
    for place, attempt in enumerate(attempts):
        writer.record(ends[outcomes[place % len(outcomes)]](attempt))
    writer.close()


def pending_indexes(dataset: Dataset, journal: Journal, retry_failed_before: int = 0) -> list[int]:
    rules = dataclasses.replace(PLAIN, asks_again_before=retry_failed_before)
    chunks = pending_rows(dataset, journal, Progress(rows=None), rules)
    return [row.index for chunk in chunks for row in chunk]


def texts(rows: int = ROWS) -> list[str]:
    return [f"row {row}" for row in range(rows)]


def test_rows_appended_to_a_finished_input_are_all_that_is_left(tmp_path: Path, journal: Journal) -> None:
    settle(journal, digests_of(workload_of(tmp_path, texts())))
    longer = workload_of(tmp_path, [*texts(), "new", "newer"])
    assert pending_indexes(longer, journal) == [ROWS, ROWS + 1]


@pytest.mark.parametrize("seed", range(4))
def test_what_is_pending_does_not_depend_on_the_order_of_the_journal(
    tmp_path: Path, journal: Journal, seed: int
) -> None:
    """Reordered, duplicated, partly failed and partly unknown rows behind the answers of another prompt."""
    draw = random.Random(seed)
    rows = workload_of(tmp_path, draw.choices(texts(), k=ROWS))
    digests = digests_of(rows)
    asked = list(dict.fromkeys(digests))[: draw.randint(0, ROWS)]
    if seed % 2:
        draw.shuffle(asked)
    settle(journal, [bytes([n % 256]) * 8 + n.to_bytes(8, "big") for n in range(draw.randint(0, 3_000))])
    settle(journal, asked, "aaafadar")
    settled = {digest for place, digest in enumerate(asked) if "aaafadar"[place % 8] in "af"}
    assert pending_indexes(rows, journal) == [row for row in range(ROWS) if digests[row] not in settled]


def test_failures_of_earlier_runs_are_asked_again_if_wanted(tmp_path: Path, journal: Journal) -> None:
    rows = workload_of(tmp_path, texts(100))
    settle(journal, digests_of(rows), "af")
    assert pending_indexes(rows, journal) == []
    assert pending_indexes(rows, journal, retry_failed_before=2) == list(range(1, 100, 2))


def test_rows_in_the_order_of_last_time_are_not_looked_up_one_by_one(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A million finished rows would cost three seconds otherwise."""
    rows = workload_of(tmp_path, texts())
    settle(journal, digests_of(rows))
    looked_up: list[bytes] = []
    plain = Journal.settled_digests

    def counting(self: Journal, digests: tuple[bytes, ...], before: int = 0) -> dict[bytes, bool]:
        looked_up.extend(digests)
        return plain(self, digests, before)

    monkeypatch.setattr(Journal, "settled_digests", counting)
    assert pending_indexes(rows, journal) == []
    assert looked_up == []


def test_a_random_order_holds_every_request_once_and_is_the_seeds(tmp_path: Path, journal: Journal) -> None:
    rows = workload_of(tmp_path, texts())

    def order(seed: int) -> list[int]:
        chunks = pending_rows(rows, journal, Progress(rows=None), PLAIN)
        return [row.index for chunk in in_random_order(chunks, seed, 1_024, tmp_path) for row in chunk]

    assert sorted(order(1)) == list(range(ROWS))
    assert order(1) == order(1) != order(2)


@pytest.mark.parametrize("again", [False, True])
def test_rows_of_an_evaluation_are_counted_once_also_where_failed_ones_are_asked_again(
    tmp_path: Path, journal: Journal, again: bool
) -> None:
    dataset = workload_of(tmp_path, [str(row) for row in range(100)], expected="text")
    settle(journal, digests_of(dataset)[:60], "f")
    progress = Progress(rows=100)
    rules = dataclasses.replace(PLAIN, asks_again_before=2 if again else 0)
    rows = [one.row for chunk in candidates(dataset, journal, progress, rules) for one in chunk]
    active = ActiveRows(rules)
    asked = [row for row in rows if row is not None and not isinstance(active.begin(row), RowResult)]
    counts = progress.rows_so_far()
    assert (counts["ok"], counts["failed"], counts["pending"]) == (0, 0 if again else 60, len(asked))
    assert len(asked) == (100 if again else 40)
