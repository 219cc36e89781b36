"""Sums over attempts by run, day, outcome and error code, kept in the same transactions as the attempts."""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import astuple

from batchrun.amounts import NOTHING, Amount
from batchrun.clock import MILLISECONDS_PER_DAY
from batchrun.journal.attempt_rows import FAILURES, read_attempts
from batchrun.journal.checksums import checksum
from batchrun.journal.connection import damaged
from batchrun.journal.records import AttemptRow, Intent, Outcome, Overrun, Spend, Totals


class Group(NamedTuple):
    """What the attempts of one sum have in common. `day` counts from 1970-01-01 UTC; `error_code` is "" where
    there is none."""

    run: int
    day: int
    outcome: str
    error_code: str


class Sums(msgspec.Struct):
    """The sums over the attempts of one group. `dearest_credits` and `dearest_tokens` are those of the
    response with the most credits per token; `least_balance` is the lowest that a response has stated, and
    `least_balance_at` when the first of these ended."""

    requests: int = 0
    retried: int = 0
    final: int = 0
    nano_usd: int = 0
    credits: int = 0
    tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    dearest_credits: int = 0
    dearest_tokens: int = 1
    least_balance: int | None = None
    least_balance_at: int | None = None

    @classmethod
    def over(cls, attempts: Sequence[AttemptRow]) -> "Sums":
        """Returns the sums over some attempts: column by column, which takes a third of the time."""
        of: Any = AttemptRow._make(zip(*attempts, strict=True))  # each field has a column's values
        sums = cls(
            len(attempts),
            sum(number > 1 for number in of.number),
            sum(of.final),
            sum(filter(None, of.nano_usd)),
            sum(of.credits),
            sum(of.tokens),
            sum(filter(None, of.input_tokens)),
            sum(filter(None, of.output_tokens)),
        )
        for credits_booked, tokens in set(zip(of.credits, of.tokens, strict=True)):
            if tokens:
                sums._see_rate(credits_booked, tokens)
        for balance, at in zip(of.remaining_credits, of.finished_at, strict=True):
            if balance is not None:
                sums._see_balance(balance, at)
        return sums

    def plus(self, other: "Sums") -> "Sums":
        """Returns the sums over both groups."""
        names = Sums.__struct_fields__[:8]
        both = Sums(*(getattr(self, name) + getattr(other, name) for name in names), *astuple(self)[8:])
        both._see_rate(other.dearest_credits, other.dearest_tokens)
        if other.least_balance is not None and other.least_balance_at is not None:
            both._see_balance(other.least_balance, other.least_balance_at)
        return both

    def stored(self) -> tuple[int | None, ...]:
        """Returns the values as the table has them: SQLite's integers have 64 bits."""
        return tuple(value if value is None else min(value, _MOST) for value in astuple(self))

    def _see_rate(self, credits_booked: int, tokens: int) -> None:
        """Keeps the higher rate; of two that are equal the one with more tokens, whatever the order."""
        rate, highest = credits_booked * self.dearest_tokens, self.dearest_credits * tokens
        if rate > highest or (rate == highest and tokens > self.dearest_tokens):
            self.dearest_credits, self.dearest_tokens = credits_booked, tokens

    def _see_balance(self, balance: int, at: int) -> None:
        if (
            self.least_balance is None
            or self.least_balance_at is None
            or (balance, at) < (self.least_balance, self.least_balance_at)
        ):
            self.least_balance, self.least_balance_at = balance, at


SumsByGroup = dict[Group, Sums]
_MOST = 2**63 - 1
_SUMMED_AT_ONCE = 1_000
_VALUES = len(Group._fields) + len(Sums.__struct_fields__)
_UPSERT = f"INSERT OR REPLACE INTO totals VALUES ({', '.join('?' * (_VALUES + 1))})"


def sum_up(attempts: Iterable[AttemptRow]) -> SumsByGroup:
    """Returns the sums over records of the table `attempts`."""
    sums: SumsByGroup = {}
    waiting = iter(attempts)
    while page := list(islice(waiting, _SUMMED_AT_ONCE)):
        groups: dict[tuple[int, int, str, str], list[AttemptRow]] = {}
        for row in page:
            key = (row.run, row.started_at // MILLISECONDS_PER_DAY, row.outcome, row.error_code or "")
            groups.setdefault(key, []).append(row)
        for key, rows in groups.items():
            group, added = Group(*key), Sums.over(rows)
            sums[group] = sums[group].plus(added) if group in sums else added
    return sums


def read_sums(connection: sqlite3.Connection, path: Path, group: Group | None = None) -> SumsByGroup:
    """Returns the journal's sums, all or those of one group. Raises JournalError where one is damaged."""
    where = "" if group is None else " WHERE (run, day, outcome, error_code) = (?, ?, ?, ?)"
    found: SumsByGroup = {}
    for *record, crc in connection.execute(f"SELECT * FROM totals{where}", group or ()):
        if checksum(record) != crc:
            raise damaged(path, "a record of its totals doesn't match its checksum")
        found[Group(*record[:4])] = Sums(*record[4:])
    return found


def write_sums(connection: sqlite3.Connection, sums: Mapping[Group, Sums]) -> None:
    """Writes the sums of some groups in place of what stands there."""
    records = ((*group, *sums[group].stored()) for group in sums)
    connection.executemany(_UPSERT, ((*record, checksum(record)) for record in records))


def add_to_sums(connection: sqlite3.Connection, path: Path, attempts: Iterable[AttemptRow]) -> None:
    """Adds attempts to the journal's sums."""
    for group, added in sum_up(attempts).items():
        known = read_sums(connection, path, group).get(group, Sums())
        write_sums(connection, {group: known.plus(added)})


def recount_failures(connection: sqlite3.Connection, path: Path) -> None:
    """Sums the attempts without a response up again, after some have changed."""
    connection.execute(f"DELETE FROM totals WHERE {FAILURES}")
    write_sums(connection, sum_up(read_attempts(connection, path, FAILURES)))


def overruns_of(connection: sqlite3.Connection, where: str) -> tuple[Overrun, ...]:
    """Returns the responses that raised the worst case, of attempts for which the condition `where` holds."""
    found = connection.execute(
        "SELECT ifnull(nano_usd, 0), tokens, input_bound, output_bound"
        f" FROM overruns JOIN attempts USING (attempt) WHERE {where} ORDER BY attempt"
    )
    return tuple(map(Overrun._make, found))


def nano_usd_by_day(sums: SumsByGroup, in_flight: Iterable[Intent]) -> dict[int, int]:
    """Returns what was settled, is uncertain or reserved, in nano-USD by the UTC day of sending."""
    counted: Counter[int] = Counter()
    for group, part in sums.items():
        counted[group.day] += part.nano_usd
    for intent in in_flight:
        counted[intent.day] += intent.nano_usd
    return dict(+counted)


def totals_of(
    sums: SumsByGroup,
    in_flight: Sequence[Intent],
    remaining_credits: int | None,
    overruns: tuple[Overrun, ...],
) -> Totals:
    """Returns the sums as one value. `in_flight` are the intents without an outcome."""
    by_outcome = {outcome: Sums() for outcome in Outcome}
    by_error: dict[str, int] = {}
    for group, part in sums.items():
        by_outcome[Outcome(group.outcome)] = by_outcome[Outcome(group.outcome)].plus(part)
        if group.outcome != Outcome.ANSWERED:
            by_error[group.error_code] = by_error.get(group.error_code, 0) + part.requests
    answered, refused, uncertain = by_outcome.values()
    reserved = NOTHING
    for intent in in_flight:
        reserved = reserved.plus(Amount(intent.nano_usd, intent.credits, intent.tokens))
    parts = (answered, refused, uncertain)
    return Totals(
        spend=Spend(
            Amount(answered.nano_usd, answered.credits, answered.tokens, answered.requests),
            Amount(uncertain.nano_usd, uncertain.credits, uncertain.tokens),
        ),
        open=reserved,
        open_intents=len(in_flight),
        requests=sum(part.requests for part in parts) + len(in_flight),
        retried=sum(part.retried for part in parts) + sum(intent.number > 1 for intent in in_flight),
        answered=answered.requests,
        failed=refused.final + uncertain.final,
        uncertain=uncertain.requests,
        input_tokens=answered.input_tokens,
        output_tokens=answered.output_tokens,
        remaining_credits=remaining_credits,
        credits_per_token=_rate(answered),
        overruns=overruns,
        by_error=by_error,
    )


def _rate(answered: Sums) -> Fraction | None:
    return Fraction(answered.dearest_credits, answered.dearest_tokens) if answered.dearest_credits else None
