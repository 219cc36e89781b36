"""An open journal: records of runs, and queries."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from batchrun.clock import MILLISECONDS_PER_DAY
from batchrun.errors import StorageError
from batchrun.journal.attempt_rows import (
    FAILURES,
    abandoned,
    first_started_since,
    read_attempts,
    read_numbers,
    reopened,
    replace_attempts,
)
from batchrun.journal.balance import lowest_balance, most_billed, uncertain_credits
from batchrun.journal.blocks import open_intents
from batchrun.journal.checksums import NUMBERS, check_numbers
from batchrun.journal.connection import transaction, translated_errors
from batchrun.journal.digest_index import DigestIndex, insert_indexed
from batchrun.journal.former_formats import former_intents
from batchrun.journal.place import Identity, Place, keep_copy, moved
from batchrun.journal.records import AttemptRow, Intent, Outcome, RequestHistory, Totals
from batchrun.journal.schema import FORMAT
from batchrun.journal.settlement import free_of_charge, settlement_of, unbilled
from batchrun.journal.totals import (
    Group,
    SumsByGroup,
    add_to_sums,
    nano_usd_by_day,
    overruns_of,
    read_sums,
    recount_failures,
    sum_up,
    totals_of,
)

MOST_SENT_BEFORE = 20_000
"""Attempts before the first one since an instant, which can have been in flight then."""


class Journal:
    """An open journal. Reads may use a connection of their own while a run writes."""

    def __init__(self, path: Path, connection: sqlite3.Connection, stored_format: int = FORMAT) -> None:
        self.path = path
        self.connection = connection
        self.format = stored_format
        self._place = Place(path)
        self.digests = DigestIndex(connection, path)

    def close(self) -> None:
        self.connection.close()

    @property
    def identity(self) -> Identity | None:
        """What tells the file from others, as long as it is open."""
        return self._place.journal

    def check_place(self) -> None:
        """Raises MovedError where the written file is no longer the one at the journal's path."""
        if not self._place.is_kept():
            raise moved(self.path)

    def keep(self) -> Path:
        """Writes the open journal to its path, or beside another file there. Returns the copy's path.

        Raises StorageError where that fails.
        """
        try:
            with translated_errors(self.path):
                if self._place.has_journal():
                    self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                    return self.path
                return keep_copy(self.connection, self.path)
        except OSError as error:
            raise StorageError(f"The journal {self.path} can't be put back: {error.strerror}.") from None

    def start_run(
        self, version: str, started_at: int, sandbox: bool, endpoint: str, fingerprint: str, job: str
    ) -> int:
        """Records the start of a run; returns its number."""
        with translated_errors(self.path), transaction(self.connection):
            (number,) = self.connection.execute("SELECT ifnull(max(run), 0) + 1 FROM runs").fetchone()
            self.connection.execute(
                "INSERT INTO runs (run, version, started_at, sandbox, endpoint, fingerprint, job, control)"
                " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?1 + ?3 + ?4)",
                (number, version, started_at, sandbox, endpoint, fingerprint, job),
            )
        return int(number)

    def finish_run(self, run: int, finished_at: int, rows: str | None, exit_code: int, reason: str) -> None:
        with translated_errors(self.path):
            self.connection.execute(
                "UPDATE runs SET finished_at = ?, rows = ?, exit_code = ?, reason = ? WHERE run = ?",
                (finished_at, rows, exit_code, reason, run),
            )

    def note_rows(self, run: int, rows: str) -> None:
        """Records the row counts so far, as JSON, for commands that watch the run."""
        with translated_errors(self.path):
            self.connection.execute("UPDATE runs SET rows = ? WHERE run = ?", (rows, run))

    def note_sampling(self, run: int, plan: str) -> None:
        """Records how a run draws its rows, as JSON, before the first one is sent."""
        with translated_errors(self.path):
            self.connection.execute("UPDATE runs SET sampling = ? WHERE run = ?", (plan, run))

    def samplings(self) -> dict[int, str]:
        """Returns how each run with random rows drew them, as JSON, by the run's number."""
        with translated_errors(self.path):
            return dict(self.connection.execute("SELECT run, sampling FROM runs WHERE sampling NOTNULL"))

    def abandon_open_intents(self, finished_at: int, final: bool) -> int:
        """Books a dead run's open intents as uncertain, at their worst case; returns how many.

        Only the holder of the lock may call this: another run's intents would be in flight.
        """
        with translated_errors(self.path), transaction(self.connection):
            open_ones = open_intents(self.connection, self.path)
            rows = [abandoned(intent, finished_at, final=final) for intent in open_ones]
            insert_indexed(self.connection, rows)
            add_to_sums(self.connection, self.path, rows)
            self.connection.execute("DELETE FROM intent_blocks")
        return len(rows)

    def settle(self, sandbox: bool, nano_usd: int) -> tuple[int, int]:
        """Books `nano_usd` in total for the uncertain attempts of one kind of runs: for the lock's holder.

        Returns their number, and the amount booked before. Raises UsageError for more than the worst case.
        """
        with translated_errors(self.path), transaction(self.connection):
            uncertain = self._uncertain(sandbox)
            self._rebook(settlement_of(uncertain, nano_usd))
        return len(uncertain), sum(row.nano_usd or 0 for row in uncertain)

    def free_unbilled(self, sandbox: bool) -> int:
        """Books nothing for uncertain attempts that the balance shows not to be billed; returns the nano-USD.

        Only the holder of the lock may call this, with none in flight.
        """
        with translated_errors(self.path), transaction(self.connection):
            most = most_billed(self.connection, f"run NOT IN ({_listed(self._other_runs(sandbox))})")
            freed = [] if most is None else unbilled(self._uncertain(sandbox), most)
            if freed:  # else nothing is written: the disk may be full, and there may be many failures
                self._rebook(map(free_of_charge, freed))
        return sum(row.nano_usd or 0 for row in freed)

    def _rebook(self, rows: Iterable[AttemptRow]) -> None:
        replace_attempts(self.connection, rows)
        recount_failures(self.connection, self.path)

    def _uncertain(self, sandbox: bool) -> list[AttemptRow]:
        others = self._other_runs(sandbox)
        return [row for row in self._failures(Outcome.UNCERTAIN) if row.run not in others]

    def reopen_failures(self, run: int, *, in_doubt: bool) -> None:
        """Makes the failures of `run` no longer final, so that the next run sends their requests again.

        `in_doubt`: those that may have been billed, too.
        """
        outcomes = (Outcome.REFUSED, Outcome.UNCERTAIN) if in_doubt else (Outcome.REFUSED,)
        with translated_errors(self.path), transaction(self.connection):
            failures = [row for row in self._failures(*outcomes) if row.run == run and row.final]
            self._rebook(map(reopened, failures))

    def next_attempt(self) -> int:
        """Returns the first unused attempt number."""
        with translated_errors(self.path):
            (newest,) = self.connection.execute("SELECT ifnull(max(attempt), 0) FROM attempts").fetchone()
            return max([int(newest), *(intent.attempt for intent in self.open_intents())]) + 1

    def latest_start(self) -> int:
        """Returns the time of the newest attempt, in milliseconds since 1970 UTC; 0 before the first."""
        newest = "attempt = (SELECT max(attempt) FROM attempts)"
        with translated_errors(self.path):
            return max(
                (row.started_at for row in read_attempts(self.connection, self.path, newest)), default=0
            )

    def settled_digests(self, digests: Sequence[bytes], retry_failed_before: int = 0) -> dict[bytes, bool]:
        """Returns the requests that need not be sent: False with a response, True if failed permanently.

        Failures of runs before `retry_failed_before` don't count, nor do those of a request that was sent
        again later.
        """
        settled: dict[bytes, bool] = {}
        if not digests:
            return settled
        for _, run, digest, outcome, final in self._numbers(digests):
            if outcome == Outcome.ANSWERED:
                settled[digest] = False
            elif settled.get(digest) is not False:
                if final and run >= retry_failed_before:
                    settled[digest] = True
                else:
                    settled.pop(digest, None)
        return settled

    def attempted_before(self, run: int, digests: Sequence[bytes]) -> set[bytes]:
        """Returns the requests that runs before `run` have attempted, with any outcome."""
        return {digest for _, earlier, digest, _, _ in self._numbers(digests) if earlier < run}

    def first_run_with_key(self, key: str) -> int | None:
        """Returns the number of the first run whose job knows `key`, such as `input.types`.

        None where no run does, as in a journal that only earlier versions have written to.
        """
        with translated_errors(self.path):
            (run,) = self.connection.execute(
                "SELECT min(run) FROM runs WHERE json_type(job, ?) NOTNULL", (f"$.{key}",)
            ).fetchone()
        return None if run is None else int(run)

    def max_tokens_of_runs(self) -> tuple[int, ...]:
        """Returns the runs' values of request.max_tokens and retry.max_tokens, in ascending order."""
        with translated_errors(self.path):
            found = self.connection.execute(
                "SELECT json_extract(job, '$.request.max_tokens') FROM runs UNION"
                " SELECT value FROM runs, json_each(job, '$.retry.max_tokens')"
            ).fetchall()
        return tuple(sorted(cap for (cap,) in found if isinstance(cap, int)))

    def max_tokens_of_run(self) -> dict[int, int | None]:
        """Returns request.max_tokens of each run; None where it was left out, or a column set it."""
        with translated_errors(self.path):
            return dict(
                self.connection.execute(
                    "SELECT run, CASE WHEN json_type(job, '$.request.columns.max_tokens') ISNULL"
                    " THEN json_extract(job, '$.request.max_tokens') END FROM runs"
                )
            )

    def settled_after(
        self, attempt: int, most: int, retry_failed_before: int = 0
    ) -> tuple[int, dict[bytes, bool]]:
        """Returns the requests that the next `most` attempts after `attempt` settled, as `settled_digests`
        does, in the order of sending; and the last of these attempts."""
        settled: dict[bytes, bool] = {}
        while not settled and (page := self._settled_page(attempt, most)):
            numbers, digests, failures = zip(*page, strict=True)
            attempt = numbers[-1]
            settled = dict.fromkeys(digests, False)
            if any(failures):
                failed = {digest for _, digest, is_failure in page if is_failure}
                known = self.settled_digests(tuple(failed), retry_failed_before)
                reopened = failed - known.keys()
                settled = {digest: known.get(digest, False) for digest in settled if digest not in reopened}
        return attempt, settled

    def _settled_page(self, attempt: int, most: int) -> list[tuple[int, bytes, int]]:
        # Checksums are not compared here: that takes five times as long. A digest with a flipped bit matches
        # no row's request; the row that it belonged to is looked up by the index, which finds the damage.
        with translated_errors(self.path):
            return self.connection.execute(
                "SELECT attempt, digest, outcome <> 'answered' FROM attempts"
                " WHERE attempt > ? AND (outcome = 'answered' OR final) ORDER BY attempt LIMIT ?",
                (attempt, most),
            ).fetchall()

    def histories(self, digests: Sequence[bytes]) -> dict[bytes, RequestHistory]:
        """Returns the history of each request; unsent ones are left out.

        Raises JournalError where a response no longer matches its checksum.
        """
        histories: dict[bytes, RequestHistory] = {}
        with translated_errors(self.path):
            where, values = self.digests.condition(digests)
            for row in read_attempts(self.connection, self.path, f"{where} ORDER BY attempt", values):
                histories.setdefault(row.digest, RequestHistory()).add(row)
        return histories

    def totals(self, sandbox: bool, *, run: int | None = None, since: int | None = None) -> Totals:
        """Returns the sums over one kind of runs (sandbox or not), over one run, or over what was sent since
        the beginning of the UTC day of an instant, in milliseconds since 1970.
        """
        first_day = 0 if since is None else since // MILLISECONDS_PER_DAY

        def counts(part: Group | Intent) -> bool:
            return part.day >= first_day and (run is None or part.run == run)

        with translated_errors(self.path), transaction(self.connection):
            every, in_flight = self._of_kind(sandbox)
            sums, in_flight = {key: every[key] for key in every if counts(key)}, [*filter(counts, in_flight)]
            wanted = f"run NOT IN ({_listed(self._other_runs(sandbox))})"
            wanted += "" if run is None else f" AND run = {run:d}"
            balance = self._remaining_credits(wanted)
            return totals_of(sums, in_flight, balance, overruns_of(self.connection, wanted))

    def counted_by_day(self, sandbox: bool) -> dict[int, int]:
        """Returns what was settled, is uncertain or reserved, in nano-USD by the UTC day of sending."""
        with translated_errors(self.path), transaction(self.connection):
            return nano_usd_by_day(*self._of_kind(sandbox))

    def lowest_balance(self, sandbox: bool) -> int | None:
        """Returns what `balance.lowest_balance` does, for one kind of runs."""
        with translated_errors(self.path), transaction(self.connection):
            return lowest_balance(self._of_kind(sandbox)[0], self._uncertain(sandbox))

    def uncertain_credits_by_balance(self, sandbox: bool) -> int | None:
        """Returns what `balance.uncertain_credits` does, for one kind of runs."""
        with translated_errors(self.path), transaction(self.connection):
            return uncertain_credits(self.connection, f"run NOT IN ({_listed(self._other_runs(sandbox))})")

    def answers_since(self, instant: int, sandbox: bool) -> int:
        """Returns the number of responses since an instant. Those of sandbox runs, or those of the others.

        Of the attempts that were sent before the instant, the newest `MOST_SENT_BEFORE` can be among them.
        """
        with translated_errors(self.path):
            (answers,) = self.connection.execute(
                "SELECT count(*) FROM attempts WHERE attempt >= ? AND outcome = 'answered'"
                " AND finished_at >= ? AND run IN (SELECT run FROM runs WHERE sandbox = ?)",
                (first_started_since(self.connection, instant) - MOST_SENT_BEFORE, instant, int(sandbox)),
            ).fetchone()
        return int(answers)

    def row_counts(self, sandbox: bool) -> list[str]:
        """Returns the row counts by status, as JSON, as each run knew them, the newest run first."""
        with translated_errors(self.path):
            noted = self.connection.execute(
                "SELECT rows FROM runs WHERE sandbox = ? AND rows NOTNULL ORDER BY run DESC", (int(sandbox),)
            )
            return [str(rows) for (rows,) in noted]

    def last_run(self, sandbox: bool, *, settlement: bool = False) -> dict[str, Any] | None:
        """The newest run's row, by column name; or the newest `settlement`'s, which is noted as a run."""
        with translated_errors(self.path):
            cursor = self.connection.execute(
                "SELECT * FROM runs WHERE sandbox = ? AND ifnull(reason GLOB 'Booked *', 0) = ?"
                " ORDER BY run DESC LIMIT 1",
                (int(sandbox), int(settlement)),
            )
            row = cursor.fetchone()
            return None if row is None else dict(zip((c[0] for c in cursor.description), row, strict=True))

    def _other_runs(self, sandbox: bool) -> set[int]:
        """Returns the numbers of the other kind's runs. One whose record was lost is of either kind."""
        others = self.connection.execute("SELECT run FROM runs WHERE sandbox <> ?", (int(sandbox),))
        return {run for (run,) in others}

    def _of_kind(self, sandbox: bool) -> tuple[SumsByGroup, list[Intent]]:
        """Returns the sums and the open intents of one kind of runs."""
        others = self._other_runs(sandbox)
        sums = {group: part for group, part in self.sums().items() if group.run not in others}
        return sums, [intent for intent in self.open_intents() if intent.run not in others]

    def sums(self) -> SumsByGroup:
        """Returns the sums over the attempts of all runs. Raises JournalError where one is damaged."""
        if self.format < FORMAT:
            return sum_up(read_numbers(self.connection, self.path))
        return read_sums(self.connection, self.path)

    def open_intents(self) -> list[Intent]:
        """Returns the intents without an outcome. Raises JournalError where one is damaged."""
        if self.format < FORMAT:
            return former_intents(self.connection)
        return open_intents(self.connection, self.path)

    def _failures(self, *outcomes: Outcome) -> list[AttemptRow]:
        condition = f"{FAILURES} AND outcome IN ({_marks(outcomes)}) ORDER BY attempt"
        return list(
            read_attempts(self.connection, self.path, condition, [str(outcome) for outcome in outcomes])
        )

    def _numbers(self, digests: Sequence[bytes]) -> Iterator[tuple[int, int, bytes, str, int]]:
        """Yields attempt, run, digest, outcome and final, in sending order, of the attempts of some requests.

        It compares the checksums of the numbers.
        """
        with translated_errors(self.path):
            where, values = self.digests.condition(digests)
            query = f"SELECT {', '.join(NUMBERS)}, control FROM attempts WHERE {where} ORDER BY attempt"
            for row in self.connection.execute(query, values):
                check_numbers(self.path, row[:-1], row[-1])
                yield row[0], row[1], row[2], row[6], row[7]

    def _remaining_credits(self, runs: str) -> int | None:
        newest = f"outcome = 'answered' AND {runs} ORDER BY attempt DESC LIMIT 1"
        found = read_attempts(self.connection, self.path, newest)
        return next((row.remaining_credits for row in found), None)


def _marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))


def _listed(values: Iterable[int]) -> str:
    return ", ".join(map(str, values))
