"""A second journal in plain dictionaries, against which the real one is held after every commit."""

from collections.abc import Iterable, Sequence
from copy import copy
from typing import NamedTuple

from batchrun.amounts import NOTHING, Amount
from batchrun.journal.commits import Record, Withdrawal
from batchrun.journal.records import Attempt, Intent, Outcome, Totals


class Sums(NamedTuple):
    """What a journal's totals say, as far as money and counts of attempts go."""

    settled: Amount
    uncertain: Amount
    open: Amount
    open_intents: int
    requests: int

    @classmethod
    def of(cls, totals: Totals) -> "Sums":
        spend = totals.spend
        return cls(spend.settled, spend.uncertain, totals.open, totals.open_intents, totals.requests)

    @property
    def committed(self) -> Amount:
        return self.settled.plus(self.uncertain).plus(self.open)


class Books:
    """`open` has the intents without an end, `ended` the others with their ends, by attempt."""

    def __init__(self) -> None:
        self.open: dict[int, Intent] = {}
        self.ended: dict[int, tuple[Intent, Attempt]] = {}
        self.answered: dict[bytes, int] = {}

    def copied(self) -> "Books":
        other = copy(self)
        other.open, other.ended, other.answered = dict(self.open), dict(self.ended), dict(self.answered)
        return other

    def apply(self, batch: Sequence[Record]) -> frozenset[int]:
        """Books one transaction; returns the intents that it refuses. Ends go first."""
        for record in batch:
            if isinstance(record, Attempt):
                self._end(self.open.pop(record.attempt), record)
        refused = set()
        for record in batch:
            if isinstance(record, Intent):
                if self._has_end(record):
                    refused.add(record.attempt)
                else:
                    self.open[record.attempt] = record
        for record in batch:
            if isinstance(record, Withdrawal):
                self.open.pop(int(record), None)
        return frozenset(refused)

    def give_up_open(self, *, final: bool) -> None:
        """Books the intents that a dead run has left open."""
        for intent in self.open.values():
            amounts = intent.nano_usd, intent.credits, intent.tokens
            self._end(intent, Attempt(intent.attempt, Outcome.UNCERTAIN, final, 0, *amounts))
        self.open.clear()

    def sums(self) -> Sums:
        ends = [end for _, end in self.ended.values()]
        answered = [end for end in ends if end.outcome is Outcome.ANSWERED]
        uncertain = [end for end in ends if end.outcome is Outcome.UNCERTAIN]
        settled = _total(answered)
        return Sums(
            Amount(settled.nano_usd, settled.credits, settled.tokens, len(answered)),
            _total(uncertain),
            _total(self.open.values()),
            len(self.open),
            len(self.open) + len(self.ended),
        )

    @property
    def newest(self) -> int:
        """The highest number of an attempt, 0 without any."""
        return max((*self.open, *self.ended), default=0)

    def at_most(self, attempt: int) -> Amount | None:
        """Returns what the provider may have billed for an attempt; None where nothing is known of it."""
        if attempt in self.open:
            return _amount(self.open[attempt])
        if attempt in self.ended:
            return _amount(self.ended[attempt][1])
        return None

    def _end(self, intent: Intent, end: Attempt) -> None:
        self.ended[end.attempt] = intent, end
        if end.outcome is Outcome.ANSWERED:
            self.answered.setdefault(intent.digest, end.attempt)

    def _has_end(self, new: Intent) -> bool:
        return new.digest in self.answered or any(
            intent.digest == new.digest and intent.run == new.run and end.final
            for intent, end in self.ended.values()
        )


def _amount(record: Intent | Attempt) -> Amount:
    return Amount(record.nano_usd or 0, record.credits, record.tokens)


def _total(records: Iterable[Intent | Attempt]) -> Amount:
    total = NOTHING
    for record in records:
        total = total.plus(_amount(record))
    return total
