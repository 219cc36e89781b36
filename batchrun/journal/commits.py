"""What one commit writes: ends of attempts, blocks of intents, sums."""

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from batchrun.journal.adjustments import Adjustment, insert_adjustments
from batchrun.journal.attempt_rows import insert_attempts
from batchrun.journal.blocks import Block, block_of, open_blocks
from batchrun.journal.checksums import sealed
from batchrun.journal.connection import transaction, translated_errors, written_by_another
from batchrun.journal.digest_index import ATTEMPTS_IN_A_PART, DigestIndex, condition_of, list_unindexed
from batchrun.journal.records import Attempt, AttemptRow, Intent
from batchrun.journal.samples import Sample, insert_samples
from batchrun.journal.schema import OVERRUN_CONTROL
from batchrun.journal.totals import Sums, SumsByGroup, read_sums, sum_up, write_sums


class Withdrawal(int):
    """The number of an attempt whose request was never sent."""


class Close:
    """Ends the queue."""


class Wake:
    """Makes the writer try whether it can still write."""


Record = Intent | Attempt | Withdrawal | Adjustment | Sample | Close | Wake

_INSERT_OVERRUN = f"""
INSERT INTO overruns SELECT *, {OVERRUN_CONTROL} FROM (
    SELECT ?1 AS attempt, ?2 AS input_bound, ?3 AS output_bound)
"""
_INSERT_BLOCK = "INSERT INTO intent_blocks VALUES (?, ?, ?, ?)"
_REWRITE_BLOCK = "REPLACE INTO intent_blocks VALUES (?, ?, ?, ?)"
_DELETE_BLOCK = "DELETE FROM intent_blocks WHERE first = ?"
_NOTE_ROWS = "UPDATE runs SET rows = ? WHERE run = ?"
_NEWEST = """
SELECT max(ifnull((SELECT max(attempt) FROM attempts), 0), ifnull((SELECT max(first) FROM intent_blocks), 0))
"""


class Commits:
    """Writes the transactions of one run.

    It remembers the open blocks of intents, the sums that it has changed, and the highest attempt known.
    They change only after a transaction has succeeded, so that its batch can be written again after one that
    failed, as on a full disk.
    """

    process: int | None = None
    """None: this one."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self._digests = DigestIndex(connection, path)
        self._sums: SumsByGroup = {}
        with translated_errors(path):
            blocks = open_blocks(connection, path)
            self._newest = self._newest_written()
        self._block_of = {attempt: block for block in blocks for attempt in block.intents}

    def write(self, batch: Sequence[Record], row_counts: tuple[str, int] | None = None) -> frozenset[int]:
        """Writes one transaction. Ends precede intents, so that an intent sees the earlier responses.

        `row_counts` are noted with their run. Returns the intents refused as unneeded. Raises JournalError
        and StorageError.
        """
        with translated_errors(self._path):
            return self._write(batch, row_counts)

    def _write(self, batch: Sequence[Record], row_counts: tuple[str, int] | None) -> frozenset[int]:
        ends = [record for record in batch if type(record) is Attempt]
        withdrawn = {int(record) for record in batch if type(record) is Withdrawal}
        intents = [record for record in batch if type(record) is Intent]
        adjustments = [record for record in batch if type(record) is Adjustment]
        samples = [record for record in batch if type(record) is Sample]
        attempts = [_row(end, self._block_of[end.attempt].intents[end.attempt]) for end in ends]
        ended = [end.attempt for end in ends]
        sums = self._sums_with(attempts)
        known = self._attempts_for(intents, attempts)
        with transaction(self._connection):
            self._check_alone()
            insert_attempts(self._connection, attempts)
            list_unindexed(self._connection, attempts)
            self._write_overruns(ends)
            write_sums(self._connection, sums)
            self._update_blocks(ended, withdrawn)
            refused = self._unneeded(intents, known)
            new = self._write_block(intents, refused | withdrawn)
            if adjustments:
                insert_adjustments(self._connection, adjustments)
            if samples:
                insert_samples(self._connection, samples)
            if row_counts is not None:
                self._connection.execute(_NOTE_ROWS, row_counts)
        self._remember(sums, new, (*ended, *withdrawn))
        return refused

    def index_digests(self, at_least: int = 1, attempts_in_a_part: int = ATTEMPTS_IN_A_PART) -> bool:
        """Does what `DigestIndex.index_part` does. Raises JournalError and StorageError."""
        with translated_errors(self._path):
            return self._digests.index_part(at_least, attempts_in_a_part)

    def give_up(self) -> None:
        """Does nothing: what this process is writing can't be left."""

    def close(self) -> None:
        """Does nothing: the connection is the journal's."""

    def _check_alone(self) -> None:
        """Raises StorageError where another program has written attempts of its own."""
        if self._newest_written() > self._newest:
            raise written_by_another(self._path)

    def _newest_written(self) -> int:
        return int(self._connection.execute(_NEWEST).fetchone()[0])

    def _sums_with(self, attempts: Sequence[AttemptRow]) -> SumsByGroup:
        """Returns the sums of the attempts' groups, these attempts included."""
        changed = {}
        for group, added in sum_up(attempts).items():
            known = self._sums.get(group)
            if known is None:
                known = read_sums(self._connection, self._path, group).get(group, Sums())
            changed[group] = known.plus(added)
        return changed

    def _write_overruns(self, ends: Iterable[Attempt]) -> None:
        overruns = [(end.attempt, *end.passed_bounds) for end in ends if end.passed_bounds is not None]
        self._connection.executemany(_INSERT_OVERRUN, overruns)

    def _update_blocks(self, ended: Iterable[int], withdrawn: Collection[int]) -> None:
        """Deletes blocks without an open intent, and writes those again of which some were withdrawn: their
        reservations are free now, and must not count after a crash."""
        gone: dict[int, set[int]] = {}
        touched: dict[int, Block] = {}
        for attempt in (*ended, *withdrawn):
            if (block := self._block_of.get(attempt)) is not None:
                touched[block.first] = block
                gone.setdefault(block.first, set()).add(attempt)
        for first, block in touched.items():
            if len(gone[first]) == len(block.intents):
                self._connection.execute(_DELETE_BLOCK, (first,))
            elif not gone[first].isdisjoint(withdrawn):
                left = {
                    number: intent for number, intent in block.intents.items() if number not in gone[first]
                }
                self._connection.execute(_REWRITE_BLOCK, block_of(Block(first, left)))

    def _attempts_for(self, intents: Sequence[Intent], ending: Sequence[AttemptRow]) -> list[int]:
        """Returns the ended attempts of the intents' requests, also those that end in this transaction."""
        if not intents:
            return []
        wanted = {intent.digest for intent in intents}
        ended = (row.attempt for row in ending if row.digest in wanted)
        return [*self._digests.attempts(tuple(wanted)), *ended]

    def _unneeded(self, intents: Sequence[Intent], attempts: Sequence[int]) -> frozenset[int]:
        """Returns the intents whose requests have a response, or have failed permanently in the same run.

        `attempts` are the ended ones of these requests.
        """
        if not attempts:
            return frozenset()
        where, values = condition_of(attempts)
        settled = set(
            self._connection.execute(
                f"SELECT digest, CASE outcome WHEN 'answered' THEN NULL ELSE run END FROM attempts"
                f" WHERE {where} AND (outcome = 'answered' OR final)",
                values,
            )
        )
        if not settled:
            return frozenset()
        return frozenset(
            intent.attempt
            for intent in intents
            if not settled.isdisjoint(((intent.digest, None), (intent.digest, intent.run)))
        )

    def _write_block(self, intents: Sequence[Intent], left_out: Collection[int]) -> Block | None:
        new = [intent for intent in intents if intent.attempt not in left_out] if left_out else intents
        if not new:
            return None
        block = Block(new[0].attempt, {intent.attempt: intent for intent in new})
        self._connection.execute(_INSERT_BLOCK, block_of(block))
        return block

    def _remember(self, sums: SumsByGroup, new: Block | None, gone: Iterable[int]) -> None:
        self._sums |= sums
        for attempt in gone:
            if (block := self._block_of.pop(attempt, None)) is not None:
                del block.intents[attempt]
        if new is not None:
            self._block_of |= dict.fromkeys(new.intents, new)
            self._newest = max(self._newest, *new.intents)


def _row(end: Attempt, intent: Intent) -> AttemptRow:
    return sealed(
        (
            intent.attempt, intent.run, intent.digest, intent.number, intent.started_at, end.finished_at,
            end.outcome.value, int(end.final), end.nano_usd, end.credits, end.tokens, end.input_tokens,
            end.output_tokens, end.remaining_credits, end.latency_ms, end.first_token_ms, end.http_status,
            end.error_code, end.error,
        ),
        end.response,
    )  # fmt: skip
