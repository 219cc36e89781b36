"""Copies the readable records of a damaged journal into a new one. The damaged file is only read."""

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from batchrun.clock import MILLISECONDS_PER_DAY
from batchrun.errors import JournalError, StorageError
from batchrun.journal.adjustments import Adjustment, insert_adjustments
from batchrun.journal.adjustments import is_whole as is_whole_adjustment
from batchrun.journal.attempt_rows import insert_attempts, read_attempts
from batchrun.journal.blocks import intents_of, open_intents, write_blocks
from batchrun.journal.checksums import NUMBERS, UNSEALED, has_whole_numbers, is_whole, sealed
from batchrun.journal.connection import connect, transaction, translated_errors
from batchrun.journal.digest_index import index_all
from batchrun.journal.former_formats import TABLES, former_intents, show_as_current
from batchrun.journal.journal import Journal
from batchrun.journal.opening import create_or_open, open_for_reading
from batchrun.journal.records import AttemptRow, Intent, Outcome
from batchrun.journal.samples import Sample, insert_samples
from batchrun.journal.schema import FORMAT, columns, has_our_tables
from batchrun.journal.totals import SumsByGroup, read_sums, sum_up, write_sums
from batchrun.journal.write_ahead_log import find_break, log_of, repair

PAGE_BYTES = 4096
_Record = tuple[Any, ...]
_UNREADABLE = (sqlite3.Error, OverflowError, MemoryError)


@dataclass(frozen=True, slots=True)
class Salvaged:
    """`answers` were saved completely, and `attempts` in all. `lost_answers` left their cost behind. The
    records of `lost_attempts` are gone: the totals, where they can be read, say what they cost in all."""

    answers: int = 0
    attempts: int = 0
    lost_answers: int = 0
    lost_attempts: int = 0


def salvage(path: Path, into: Path, others: Sequence[Path] = ()) -> Salvaged:
    """Copies every readable, complete record into the new journal `into`.

    Where the write-ahead log is damaged in its middle, records are read on both sides of the damage. An
    attempt whose response is missing, or doesn't match its checksum, becomes uncertain: its cost still
    counts, and its row will be sent again. `others` are undamaged journals of the same job, whose records are
    added under new numbers. Needs room for four more journals beside `into`. Only the holder of the run's
    lock may call this. Raises StorageError where `into` exists or can't be written, JournalError where
    nothing can be read.
    """
    if into.exists():
        raise StorageError(f"{into} exists already. Move it away, then try again.")
    with tempfile.TemporaryDirectory(dir=into.parent) as folder:
        copies = _copied(path, Path(folder))
        with translated_errors(path), ExitStack() as opened:
            sources = [opened.enter_context(closing(_readable(copy))) for copy in copies]
            for source in sources:
                source.text_factory = _lenient_text
            added = [opened.enter_context(closing(open_for_reading(other))) for other in others]
            with closing(create_or_open(into)) as target, translated_errors(into):
                return _copy_records(sources, added, target)


def _copied(path: Path, folder: Path) -> list[Path]:
    """Returns copies of the journal, the newest state first. There are several where its log is damaged: with
    the whole log, with its undamaged frames, and with its beginning alone, which is all that SQLite would
    read.
    """
    try:
        log = log_of(path)
        copies = []
        if find_break(log) is not None:
            for name, keep_damaged in (("all", True), ("whole", False)):
                copy = folder / f"{name}.sqlite"
                shutil.copyfile(path, copy)
                repair(log, log_of(copy), keep_damaged=keep_damaged)
                copies.append(copy)
        copy = folder / "journal.sqlite"
        shutil.copyfile(path, copy)
        if log.exists():
            shutil.copyfile(log, log_of(copy))
    except OSError as error:
        raise StorageError(f"The journal {path} can't be copied: {error.strerror}.") from None
    return [*copies, copy]


def _readable(copy: Path) -> sqlite3.Connection:
    """Restores the definitions of a copy's tables where they are damaged: all journals have them in the same
    pages."""
    connection = connect(copy, "rw")
    try:
        if _is_former(connection) or has_our_tables(connection):
            return connection
    except _UNREADABLE:
        pass
    connection.close()
    _replace_schema(copy)
    return connect(copy, "rw")


def _is_former(connection: sqlite3.Connection) -> bool:
    """Returns whether a journal has a former format, which it then shows as the current one."""
    (stored,) = connection.execute("PRAGMA user_version").fetchone()
    if stored not in TABLES:
        return False
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if not names.issuperset(TABLES[stored]):
        return False
    show_as_current(connection, stored)
    return True


def _replace_schema(copy: Path) -> None:
    """Writes the pages with the tables' definitions again: those of an empty journal but the tables' own."""
    fresh = copy.with_name("fresh.sqlite")
    with closing(create_or_open(fresh)) as journal:
        roots = {page for (page,) in journal.connection.execute("SELECT rootpage FROM sqlite_schema")}
    content = bytearray(fresh.read_bytes())
    content[28:32] = bytes(4)  # the size in pages: with 0, SQLite uses the file's size
    with copy.open("r+b") as file:
        for page in range(1, len(content) // PAGE_BYTES + 1):
            if page not in roots:
                file.seek((page - 1) * PAGE_BYTES)
                file.write(content[(page - 1) * PAGE_BYTES : page * PAGE_BYTES])


def _copy_records(sources: Sequence[sqlite3.Connection], added: Sequence[Journal], into: Journal) -> Salvaged:
    """Copies records one by one, so that a damaged one doesn't affect others."""
    target = into.connection
    last_attempt = max(map(_last_attempt, sources))
    lost: set[int] = set()
    without_answer: set[int] = set()
    with transaction(target):
        for source in sources:
            for table in ("runs", "overruns"):
                for _, record in _records(source, table, last_attempt):
                    _insert(target, table, record)
            _copy_notes(source, target)
            for number, attempt in _records(source, "attempts", last_attempt):
                _copy_attempt(target, number, attempt, lost, without_answer)
        intents = _whole_intents(sources, lost)
        write_blocks(
            target, (intent for number, intent in sorted(intents.items()) if not _has_attempt(target, number))
        )
        answers, attempts = target.execute(
            "SELECT ifnull(sum(outcome = 'answered'), 0), count(*) FROM attempts"
        ).fetchone()
        _count_lost_amounts(sources, into, last_attempt)
        for journal in added:
            _add_records(journal, into)
        target.execute("DELETE FROM totals")
        write_sums(target, sum_up(read_attempts(target, into.path)))
        index_all(target)
    return Salvaged(answers, attempts, len(without_answer), len(lost))


def _whole_intents(sources: Sequence[sqlite3.Connection], lost: set[int]) -> dict[int, Intent]:
    """Returns the intents that can be read, and adds the first of each damaged block to `lost`; -1 where it
    is unknown whether there were any."""
    found: dict[int, Intent] = {}
    readable = False
    for source in sources:
        try:
            (stored,) = source.execute("PRAGMA user_version").fetchone()
            if stored in TABLES:
                found |= {intent.attempt: intent for intent in former_intents(source)}
            else:
                for record in source.execute("SELECT first, intents, digests, crc32 FROM intent_blocks"):
                    intents = intents_of(record)
                    if intents is None:
                        lost.add(record[0])
                    found |= {intent.attempt: intent for intent in intents or ()}
            readable = True
        except _UNREADABLE:
            continue
    if not readable:
        lost.add(-1)
    return found


def _count_lost_amounts(sources: Sequence[sqlite3.Connection], into: Journal, last_attempt: int) -> None:
    """Books as uncertain what the totals have above the readable attempts: their records are lost."""
    known = _spent(sum_up(read_attempts(into.connection, into.path)))
    number = max(last_attempt, _last_attempt(into.connection))
    for (run, day), amounts in _stored_spend(sources).items():
        missing = [
            max(0, there - here)
            for there, here in zip(amounts, known.get((run, day), (0, 0, 0)), strict=True)
        ]
        if any(missing):
            number += 1
            at = day * MILLISECONDS_PER_DAY
            error = "The records of these requests were lost with a damaged journal."
            values = (number, run, bytes(16), 1, at, at, str(Outcome.UNCERTAIN), 0, *missing, *(None,) * 6)
            insert_attempts(into.connection, [sealed((*values, "record_lost", error), None)])


def _stored_spend(sources: Sequence[sqlite3.Connection]) -> dict[tuple[int, int], tuple[int, int, int]]:
    for source in sources:
        with suppress(JournalError, *_UNREADABLE):
            return _spent(read_sums(source, Path()))
    return {}


def _spent(sums: SumsByGroup) -> dict[tuple[int, int], tuple[int, int, int]]:
    """Returns the amounts that count as spent, by run and day: nano-USD, credits, tokens."""
    spent: dict[tuple[int, int], tuple[int, int, int]] = {}
    for group, part in sums.items():
        nano_usd, credits_booked, tokens = spent.get((group.run, group.day), (0, 0, 0))
        spent[group.run, group.day] = (
            nano_usd + part.nano_usd,
            credits_booked + part.credits,
            tokens + part.tokens,
        )
    return spent


def _add_records(journal: Journal, into: Journal) -> None:
    """Copies all records of another journal, under numbers that follow the target's."""
    source, target = journal.connection, into.connection
    (run,) = target.execute("SELECT ifnull(max(run), 0) FROM runs").fetchone()
    attempt = max(_last_attempt(target), 0)
    for record in source.execute(f"SELECT {_names('runs')} FROM runs"):
        _insert(target, "runs", (record[0] + run, *record[1:-1], record[-1] + run))
    for row in read_attempts(source, journal.path):
        moved = row._replace(attempt=row.attempt + attempt, run=row.run + run)
        _insert(target, "attempts", sealed(moved[:UNSEALED], row.response))
    intents = former_intents(source) if journal.format < FORMAT else open_intents(source, journal.path)
    write_blocks(
        target,
        (replace(intent, attempt=intent.attempt + attempt, run=intent.run + run) for intent in intents),
    )
    for record in source.execute(f"SELECT {_names('overruns')} FROM overruns"):
        _insert(target, "overruns", (record[0] + attempt, *record[1:-1], record[-1] + attempt))
    _copy_notes(source, target, run)


def _copy_notes(source: sqlite3.Connection, target: sqlite3.Connection, add: int = 0) -> None:
    """Copies what was set during runs and what these knew of themselves, as far as it can be read.

    No amount rests on it. `add` is added to the numbers of runs.
    """
    runs = {run - add for (run,) in target.execute("SELECT run FROM runs")}
    for record in _noted(source, "adjustments", "run, at, rowid"):
        made = Adjustment(*record)
        if made.run in runs and is_whole_adjustment(made):
            insert_adjustments(target, [made._replace(run=made.run + add)])
    for record in _noted(source, "samples", "run, second"):
        seen = Sample(*record)
        if seen.run in runs and all(type(value) is int for value in seen[:5]):
            insert_samples(target, [seen._replace(run=seen.run + add)])


def _noted(source: sqlite3.Connection, table: str, order: str) -> list[_Record]:
    """Returns a table's records up to the first unreadable one; none without the table."""
    found = []
    with suppress(*_UNREADABLE):
        for record in source.execute(f"SELECT * FROM {table} ORDER BY {order}"):
            found.append(record)  # noqa: PERF402  # those before an error are kept
    return found


def _copy_attempt(
    target: sqlite3.Connection,
    number: int,
    record: _Record | None,
    lost: set[int],
    without_answer: set[int],
) -> None:
    """Copies a record unless an earlier source had it undamaged; tracks the numbers still missing."""
    is_there = _has_attempt(target, number)
    if is_there and number not in without_answer:
        return
    attempt = None if record is None else AttemptRow._make(record)
    if attempt is None or not has_whole_numbers(attempt[: len(NUMBERS)], attempt.control):
        if not is_there:
            lost.add(number)
        return
    whole = is_whole(attempt)
    if is_there:
        if not whole:
            return
        target.execute("DELETE FROM attempts WHERE attempt = ?", (number,))
    if not _insert(target, "attempts", attempt if whole else _without_answer(attempt)):
        lost.add(number)
        return
    lost.discard(number)
    if whole:
        without_answer.discard(number)
    else:
        without_answer.add(number)


def _has_attempt(target: sqlite3.Connection, number: int) -> bool:
    return target.execute("SELECT 1 FROM attempts WHERE attempt = ?", (number,)).fetchone() is not None


def _records(source: sqlite3.Connection, table: str, last: int) -> Iterator[tuple[int, _Record | None]]:
    """Yields the table's records: from its start to the first unreadable one, then number by number.

    None stands for an unreadable number; whether it was ever in use is unknown.
    """
    key = columns(table)[0]
    reached = 0
    try:
        for record in source.execute(f"SELECT {_names(table)} FROM {table} ORDER BY {key}"):
            reached = record[0]
            yield reached, record
    except _UNREADABLE:
        for number in range(reached + 1, last + 1):
            for record in _record(source, f"SELECT {_names(table)} FROM {table} WHERE {key} = ?", number):
                yield number, record


def _record(source: sqlite3.Connection, query: str, number: int) -> list[_Record | None]:
    try:
        return source.execute(query, (number,)).fetchall()
    except _UNREADABLE:
        return [None]


def _last_attempt(source: sqlite3.Connection) -> int:
    """Returns the highest number in use, as far as any table can still be read."""
    highest = 0
    for table in ("attempts", "intents"):
        try:
            (number,) = source.execute(f"SELECT max(attempt) FROM {table}").fetchone()
        except _UNREADABLE:
            continue
        highest = max(highest, number or 0)
    return highest


def _names(table: str) -> str:
    return ", ".join(columns(table))


def _without_answer(attempt: AttemptRow) -> AttemptRow:
    lost = attempt._replace(
        outcome=str(Outcome.UNCERTAIN),
        error_code="answer_lost",
        error="The answer was lost with a damaged journal.",
    )
    return sealed(lost[:UNSEALED], None)


def _insert(target: sqlite3.Connection, table: str, record: _Record | None) -> bool:
    """Returns whether the record was undamaged: the table's constraints decide."""
    if record is None:
        return False
    marks = ",".join("?" * len(record))
    try:
        return target.execute(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", record).rowcount == 1
    except OverflowError:
        return False


def _lenient_text(text: bytes) -> str:
    return text.decode(errors="replace")
