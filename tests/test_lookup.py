"""The output is the same, whether its answers are read page by page or looked up one by one."""

import random
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from batchrun.errors import JournalError
from batchrun.journal import Journal, Outcome, answers
from batchrun.journal.checksums import sealed
from batchrun.journal.digest_index import insert_indexed
from batchrun.rows import dataset as datasets
from batchrun.rows import lookup
from batchrun.rows.columns import output_batch
from batchrun.rows.dataset import Dataset
from batchrun.rows.history import row_histories_by_digest
from batchrun.rows.lookup import PagedLookup, look_up
from batchrun.runs.output import RowWriter
from tests.money.journals import message_of
from tests.test_dataset import dataset
from tests.test_selection import digests_of, settle

ROWS = 100


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "_ANSWERS_IN_A_PAGE", 8)
    monkeypatch.setattr(datasets, "ROWS_IN_A_CHUNK", 8)


@pytest.fixture
def looked_up(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The requests that are looked up by their digests."""
    digests: list[bytes] = []
    plain = Journal.histories

    def histories(self: Journal, wanted: Any) -> Any:
        digests.extend(wanted)
        return plain(self, wanted)

    monkeypatch.setattr(Journal, "histories", histories)
    return digests


def rows_of(folder: Path, texts: list[str], **output: Any) -> Dataset:
    return dataset(folder, pa.table({"text": texts}), **output)


def add_answer(journal: Journal, digest: bytes, body: bytes | None = None, run: int = 1) -> None:
    """One more answer to a request, which may have one."""
    attempt = journal.next_attempt()
    amounts = (300, 1, 40, 30, 10, 99, 1.5, None, 200, None, None)
    values = (attempt, run, digest, 1, 5, 6, str(Outcome.ANSWERED), 0, *amounts)
    insert_indexed(journal.connection, [sealed(values, body or message_of(attempt))])


def message(text: str, stop_reason: str = "end_turn", **usage: int) -> bytes:
    content = [{"type": "text", "text": text}]
    return msgspec.json.encode(
        {"type": "message", "content": content, "stop_reason": stop_reason, "usage": usage}
    )


def one_by_one(rows: Dataset, journal: Journal) -> list[pa.RecordBatch]:
    """The output as it is by the rules of each row alone."""
    seen: set[bytes] = set()
    batches = []
    for chunk in rows.chunks(journal=journal):
        digests = chunk.sendable_digests
        sendable = chunk.sendable
        records = row_histories_by_digest(digests, sendable.copy, journal, rows.labelling)
        values = []
        for digest, request in zip(chunk.digests, chunk.requests, strict=True):
            if digest is None:
                values.append(rows.added.values(request, False))  # type: ignore[arg-type]
            else:
                values.append(rows.added.values(records.get(digest), digest in seen))
                seen.add(digest)
        batches.append(output_batch(chunk.batch, values, rows.schema))
    return batches


def assert_the_same(rows: Dataset, journal: Journal) -> RowWriter:
    writer, by_rows = RowWriter(rows, journal), RowWriter(rows, journal)
    chunks = list(rows.chunks(journal=journal))
    written = [writer.batch(chunk) for chunk in chunks]
    assert written == one_by_one(rows, journal)
    for chunk in chunks:
        by_rows.values(chunk)
    assert (writer.counts, writer.findings()) == (by_rows.counts, by_rows.findings())
    assert writer.counts["total"] == sum(batch.num_rows for batch in written)
    return writer


def texts(count: int = ROWS) -> list[str]:
    return [f"row {number}" for number in range(count)]


def test_rows_that_were_answered_in_their_order_are_not_looked_up(
    tmp_path: Path, journal: Journal, looked_up: list[bytes]
) -> None:
    rows = rows_of(tmp_path, texts())
    settle(journal, digests_of(rows))
    writer = RowWriter(rows, journal)
    assert [writer.batch(chunk).num_rows for chunk in rows.chunks(journal=journal)] == [8] * 12 + [4]
    assert looked_up == []
    assert_the_same(rows, journal)


@pytest.mark.parametrize("outcomes", ["a", "aaaaaaaf", "ad", "aar", "aaaaaaaaaaaaaaaaad", "f"])
@pytest.mark.parametrize("sent", [ROWS, ROWS // 2, 3, 0])
def test_failures_and_rows_that_were_not_sent_are_found(
    tmp_path: Path, journal: Journal, outcomes: str, sent: int
) -> None:
    rows = rows_of(tmp_path, texts())
    settle(journal, digests_of(rows)[:sent], outcomes)
    assert assert_the_same(rows, journal).counts["pending"] >= ROWS - sent


def test_every_attempt_of_a_request_counts(tmp_path: Path, journal: Journal) -> None:
    rows = rows_of(tmp_path, texts())
    digests = digests_of(rows)
    settle(journal, digests[::9], "rd")
    settle(journal, digests)
    for digest in digests[5::7]:
        add_answer(journal, digest)
    assert_the_same(rows, journal)


def test_the_first_row_of_a_request_has_the_cost_and_the_others_share(
    tmp_path: Path, journal: Journal
) -> None:
    repeated = [f"row {number % 30}" for number in range(ROWS)] + ["new", "row 1", "new", "", "last", "last"]
    rows = rows_of(tmp_path, repeated)
    settle(journal, digests_of(rows)[:29])
    writer = assert_the_same(rows, journal)
    assert writer.counts["shared"] == 71 - 2  # row 29 is not answered
    assert writer.counts["failed"] == 1


@pytest.mark.parametrize("seed", range(3))
def test_any_order_of_sending_is_found(tmp_path: Path, journal: Journal, seed: int) -> None:
    rows = rows_of(tmp_path, texts())
    digests = digests_of(rows)
    draw = random.Random(seed)
    parts = [digests[start : start + 20] for start in range(0, ROWS, 20)]
    draw.shuffle(parts)
    draw.shuffle(parts[0])
    for part in parts:
        settle(journal, part, draw.choice(["a", "aaf", "ar"]))
    assert_the_same(rows, journal)


def test_what_was_sent_for_another_prompt_is_skipped(
    tmp_path: Path, journal: Journal, looked_up: list[bytes]
) -> None:
    """Only the first chunk is looked up: the pages begin behind it."""
    settle(journal, [number.to_bytes(16, "big") for number in range(500)])
    rows = rows_of(tmp_path, texts())
    settle(journal, digests_of(rows))
    writer = RowWriter(rows, journal)
    for chunk in rows.chunks(journal=journal):
        writer.batch(chunk)
    assert len(looked_up) == 8
    assert_the_same(rows, journal)


def test_a_random_order_is_not_read_by_pages(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of(tmp_path, texts(800))
    digests = digests_of(rows)
    random.Random(1).shuffle(digests)
    settle(journal, digests)
    pages = []
    plain = answers.answers_after

    def read(journal: Journal, after: int, *more: Any) -> Any:
        pages.append(after)
        return plain(journal, after, *more)

    monkeypatch.setattr(lookup, "answers_after", read)
    writer = RowWriter(rows, journal)
    for chunk in rows.chunks(journal=journal):
        writer.batch(chunk)
    assert len(pages) < 10
    assert writer.counts["ok"] == 800


@pytest.mark.parametrize(
    "body",
    [
        message("cut", "max_tokens"),
        message("", "end_turn"),
        message("no", "refusal"),
        message("cached", input_tokens=3, cache_read_input_tokens=20, output_tokens=1),
        message("written", input_tokens=3, cache_creation_input_tokens=9),
    ],
)
def test_answers_of_every_kind_are_the_same(tmp_path: Path, journal: Journal, body: bytes) -> None:
    rows = rows_of(tmp_path, texts(40))
    digests = digests_of(rows)
    settle(journal, digests[:20])
    add_answer(journal, digests[20], body)
    settle(journal, digests[21:30])
    for digest in digests[30:]:
        add_answer(journal, digest, body)
    assert_the_same(rows, journal)
    assert_the_same(rows_of(tmp_path, texts(40), accept=["truncated", "empty", "refusal"]), journal)


def test_many_requests_that_were_sent_again_are_all_looked_up(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "_MOST_REPEATED", 3)
    rows = rows_of(tmp_path, texts())
    settle(journal, digests_of(rows)[:5], "r")
    settle(journal, digests_of(rows))
    assert_the_same(rows, journal)


@pytest.mark.parametrize("column", ["nano_usd", "response", "control", "response_crc32", "finished_at"])
def test_a_damaged_answer_is_an_error_where_a_row_needs_it_alone(
    tmp_path: Path, journal: Journal, column: str
) -> None:
    rows = rows_of(tmp_path, texts())
    digests = digests_of(rows)
    settle(journal, digests)
    value = "x'6060'" if column == "response" else f"{column} + 1"
    journal.connection.execute(f"UPDATE attempts SET {column} = {value} WHERE attempt = 42")
    writer = RowWriter(rows, journal)
    chunks = list(rows.chunks())
    for chunk in chunks[:5]:
        writer.batch(chunk)
    with pytest.raises(JournalError, match="attempt 42 or its answer"):
        writer.batch(chunks[5])
    others = [text for number, text in enumerate(texts()) if number != 41]
    assert_the_same(rows_of(tmp_path, others), journal)


def test_pages_and_look_ups_find_the_same_histories(tmp_path: Path, journal: Journal) -> None:
    rows = rows_of(tmp_path, texts())
    digests = digests_of(rows)
    settle(journal, digests[::3], "d")
    settle(journal, digests, "aaaf")
    paged = PagedLookup(journal)
    found = [paged.find(digests[start : start + 8]) for start in range(0, ROWS, 8)]
    assert found == [look_up(journal, digests[start : start + 8]) for start in range(0, ROWS, 8)]
