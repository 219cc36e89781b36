"""What can still be read of a damaged journal, copied into a new one. The damaged file is only read."""

import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchrun.errors import StorageError
from batchrun.journal.connection import connect, transaction, translated_errors
from batchrun.journal.records import Outcome
from batchrun.journal.schema import has_our_tables
from batchrun.journal.storage import checksum, create_or_open

PAGE_BYTES = 4096
_COLUMNS = {
    "runs": (
        "run, version, started_at, finished_at, sandbox, endpoint, fingerprint, job, sampling, rows,"
        " exit_code, reason, control"
    ),
    "intents": "attempt, run, digest, number, started_at, nano_usd, credits, tokens, control",
    "attempts": (
        "attempt, run, digest, number, started_at, finished_at, outcome, final, nano_usd, credits, tokens,"
        " input_tokens, output_tokens, remaining_credits, latency_ms, first_token_ms, http_status,"
        " error_code, error, control"
    ),
    "responses": "attempt, crc32, body",
    "overruns": "attempt, input_bound, output_bound, control",
}
_Record = tuple[Any, ...]
_UNREADABLE = (sqlite3.Error, OverflowError, MemoryError)


@dataclass(frozen=True, slots=True)
class Salvaged:
    """`answers` were saved whole, and `attempts` in all. `lost_answers` left their cost behind;
    of the `lost_attempts` nothing is known, so that the budget can't count them."""

    answers: int = 0
    attempts: int = 0
    lost_answers: int = 0
    lost_attempts: int = 0


def salvage(path: Path, into: Path) -> Salvaged:
    """Copies every record that can still be read, and is whole, into the new journal `into`.

    An attempt whose answer is gone, or doesn't match its checksum, becomes uncertain: its cost still
    counts, and its row will be asked again. Needs room for two more journals beside `into`. Only the
    holder of the run's lock may call this. Raises StorageError where `into` exists or can't be
    written, JournalError where nothing can be read.
    """
    if into.exists():
        raise StorageError(f"{into} exists already. Move it away, then try again.")
    with tempfile.TemporaryDirectory(dir=into.parent) as folder:
        copy = _copied(path, Path(folder))
        with translated_errors(path), closing(_readable(copy)) as source:
            source.text_factory = _lenient_text
            last_attempt = _last_attempt(source)
            with closing(create_or_open(into)) as target, translated_errors(into):
                return _copy_records(source, target.connection, last_attempt)


def _copied(path: Path, folder: Path) -> Path:
    copy = folder / "journal.sqlite"
    try:
        shutil.copyfile(path, copy)
        log = path.with_name(path.name + "-wal")
        if log.exists():
            shutil.copyfile(log, copy.with_name(copy.name + "-wal"))
    except OSError as error:
        raise StorageError(f"The journal {path} can't be copied: {error.strerror}.") from None
    return copy


def _readable(copy: Path) -> sqlite3.Connection:
    """The copy, with its first page made anew where that is damaged: it is the same in all journals."""
    connection = connect(copy, "rw")
    try:
        if has_our_tables(connection):
            return connection
    except _UNREADABLE:
        pass
    connection.close()
    _replace_first_page(copy)
    return connect(copy, "rw")


def _replace_first_page(copy: Path) -> None:
    fresh = copy.with_name("fresh.sqlite")
    create_or_open(fresh).close()
    page = bytearray(fresh.read_bytes()[:PAGE_BYTES])
    page[28:32] = bytes(4)  # the size in pages: SQLite goes by the file's where it is 0
    with copy.open("r+b") as file:
        file.write(page)


def _copy_records(source: sqlite3.Connection, target: sqlite3.Connection, last_attempt: int) -> Salvaged:
    """One by one, since a damaged record must not take others along."""
    fates: Counter[str] = Counter()
    with transaction(target):
        for table in ("runs", "intents", "overruns"):
            for record in _records(source, table, last_attempt):
                _insert(target, table, record)
        for attempt in _records(source, "attempts", last_attempt):
            fates[_copy_attempt(source, target, attempt)] += 1
    return Salvaged(
        answers=fates["answered"],
        attempts=fates.total() - fates["lost"],
        lost_answers=fates["answer lost"],
        lost_attempts=fates["lost"],
    )


def _copy_attempt(source: sqlite3.Connection, target: sqlite3.Connection, attempt: _Record | None) -> str:
    if attempt is None:
        return "lost"
    answered = attempt[6] == Outcome.ANSWERED
    response = _whole_response(source, attempt) if answered else None
    lost = answered and response is None
    if not _insert(target, "attempts", _without_answer(attempt) if lost else attempt):
        return "lost"
    if answered and not lost:
        _insert(target, "responses", response)
        return "answered"
    return "answer lost" if lost else "not answered"


def _records(source: sqlite3.Connection, table: str, last: int) -> Iterator[_Record | None]:
    """The table's records: from its start to the first that can't be read, then number by number.

    None stands for a number that can't be read; whether it was ever in use isn't known either.
    """
    columns = _COLUMNS[table]
    key = columns.partition(",")[0]
    reached = 0
    try:
        for record in source.execute(f"SELECT {columns} FROM {table} ORDER BY {key}"):
            reached = record[0]
            yield record
    except _UNREADABLE:
        for number in range(reached + 1, last + 1):
            yield from _record(source, f"SELECT {columns} FROM {table} WHERE {key} = ?", number)


def _record(source: sqlite3.Connection, query: str, number: int) -> list[_Record | None]:
    try:
        return source.execute(query, (number,)).fetchall()
    except _UNREADABLE:
        return [None]


def _last_attempt(source: sqlite3.Connection) -> int:
    """The highest number in use, as far as any table still says."""
    highest = 0
    for table in ("attempts", "intents", "responses"):
        try:
            (number,) = source.execute(f"SELECT max(attempt) FROM {table}").fetchone()
        except _UNREADABLE:
            continue
        highest = max(highest, number or 0)
    return highest


def _whole_response(source: sqlite3.Connection, attempt: _Record) -> _Record | None:
    try:
        response = source.execute(
            f"SELECT {_COLUMNS['responses']} FROM responses WHERE attempt = ?", (attempt[0],)
        ).fetchone()
    except _UNREADABLE:
        return None
    numbers = attempt[0], attempt[5], *attempt[11:16]
    whole = response and type(response[2]) is bytes and checksum(response[2], *numbers) == response[1]
    return response if whole else None


def _without_answer(attempt: _Record) -> _Record:
    return (
        *attempt[:6],
        Outcome.UNCERTAIN,
        *attempt[7:17],
        "answer_lost",
        "The answer was lost with a damaged journal.",
        attempt[19],
    )


def _insert(target: sqlite3.Connection, table: str, record: _Record | None) -> bool:
    """Whether the record was whole: the constraints of the table decide."""
    if record is None:
        return False
    marks = ",".join("?" * len(record))
    try:
        return target.execute(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", record).rowcount == 1
    except OverflowError:
        return False


def _lenient_text(text: bytes) -> str:
    return text.decode(errors="replace")
