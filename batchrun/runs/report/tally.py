"""What a page says of all rows, counted in one pass, in memory that doesn't grow with their number."""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from batchrun.amounts import NANO
from batchrun.client.request import Request
from batchrun.engine.pricing import PriceList
from batchrun.rows.history import RowHistory
from batchrun.rows.ordering import key_of, sort_key
from batchrun.rows.result import FAILED, INVALID, PENDING
from batchrun.runs.reading import Lowest, ReadableRow, SeenRow, cell_text, without_attempts
from batchrun.runs.report.distribution import Distribution

MOST_VALUES = 1_000
OTHER = "(other values)"
MOST_ROWS = 12
MOST_OF_A_CELL = 2
MOST_DISAGREEMENTS = 40
LONGEST_VALUE = 60
DISTRIBUTIONS = ("latency_ms", "first_token_ms", "input_tokens", "output_tokens")

Item = tuple[ReadableRow, tuple[bytes, ...]]
"""A row to read, and the identities of its requests."""
KINDS = {
    "failed": "Failures",
    "invalid": "Invalid answers",
    "disagree": "Disagreements",
    "agreement": "Least agreement",
    "expensive": "Most expensive rows",
    "random": "A random sample",
}


@dataclass
class Group:
    """The rows with one value of a column."""

    rows: int = 0
    ended: int = 0
    usd: float = 0.0
    scored: int = 0
    score: float = 0.0


@dataclass
class Tally:
    """`values` counts the values of each label's column; `groups` sums by a column of the input.

    `agreement` and `by_run` sum scores: by agreement, and by the run that sent the row's last request.
    `nano_usd_at_worst` is the sum over `sendable` rows. `kept` has rows to read, by kind.
    """

    price_list: PriceList
    label_columns: tuple[str, ...]
    seed: int
    by: str | None = None
    values: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    distributions: dict[str, Distribution] = field(
        default_factory=lambda: {name: Distribution() for name in DISTRIBUTIONS}
    )
    groups: dict[str, Group] = field(default_factory=dict)
    agreement: dict[float, Group] = field(default_factory=dict)
    by_run: dict[int, Group] = field(default_factory=dict)
    sendable: int = 0
    nano_usd_at_worst: int = 0
    kept: dict[str, Lowest[Item]] = field(
        default_factory=lambda: {kind: Lowest[Item](MOST_ROWS) for kind in KINDS}
    )
    pairs: dict[tuple[str, str], list[Item]] = field(default_factory=dict)

    def add(self, row: SeenRow) -> None:
        """Takes the next row."""
        if isinstance(row.request, Request):
            bound = row.request.input_bound, row.request.output_bound or 0
            self.sendable += 1
            self.nano_usd_at_worst += self.price_list.worst_case(*bound, row.request.cached).nano_usd
        if self.by is not None:
            _sum_up(_group(self.groups, cell_text(row.cells[self.by])), row)
        if row.status == PENDING:
            return
        if isinstance(row.record, RowHistory) and row.record.history is not None:
            _sum_up(self.by_run.setdefault(row.record.history.run, Group()), row)
        if row.added.get("agreement") is not None:
            _sum_up(self.agreement.setdefault(round(row.added["agreement"], 2), Group()), row)
        self._count(row)
        self._keep(row)

    def _count(self, row: SeenRow) -> None:
        added = row.added
        if not row.result.answered:
            return
        for name in self.label_columns:
            value = cell_text(added[name])
            counts = self.values[name]
            short = value if len(value) <= LONGEST_VALUE else f"{value[: LONGEST_VALUE - 1]}…"
            counts[short if short in counts or len(counts) < MOST_VALUES else OTHER] += 1
        if not added["shared"]:
            for name, distribution in self.distributions.items():
                if added[name] is not None:
                    distribution.add(added[name])

    def _keep(self, row: SeenRow) -> None:
        added, index = row.added, float(row.index)
        if row.status in (FAILED, INVALID):
            self._offer(row.status, index, row)
        if added.get("score") is not None and added["score"] < 1:
            self._keep_pair(row)
        if added.get("agreement") is not None and added["agreement"] < 1:
            self._offer("agreement", added["agreement"], row)
        if added["cost_usd"]:
            self._offer("expensive", -added["cost_usd"], row)
        if row.result.answered:
            self._offer("random", float(sort_key(row.index, key_of(self.seed))), row)

    def _keep_pair(self, row: SeenRow) -> None:
        """Keeps a few rows of each cell of the confusion matrix, the first ones."""
        evaluation = row.dataset.job.evaluation
        expected = "" if evaluation is None else cell_text(row.cells[evaluation.expected])
        pair = (expected[:LONGEST_VALUE], (row.result.label_text or "")[:LONGEST_VALUE])
        kept = self.pairs.get(pair, [])
        if len(kept) < MOST_OF_A_CELL and sum(map(len, self.pairs.values())) < MOST_DISAGREEMENTS:
            self.pairs.setdefault(pair, []).append(_item(row))

    def _offer(self, kind: str, key: float, row: SeenRow) -> None:
        self.kept[kind].add(key, lambda: _item(row))

    def items(self, kind: str) -> list[Item]:
        """Returns the rows to read of one kind."""
        if kind == "disagree":
            return [item for pair in self.pairs.values() for item in pair]
        return self.kept[kind].items()

    @property
    def usd_at_worst(self) -> float:
        """Returns the mean worst case of a row's first request."""
        return self.nano_usd_at_worst / self.sendable / NANO if self.sendable else 0.0


def _item(row: SeenRow) -> Item:
    return without_attempts(row), row.digests


def _group(groups: dict[str, Group], name: str) -> Group:
    if name not in groups and len(groups) >= MOST_VALUES:
        name = OTHER
    return groups.setdefault(name, Group())


def _sum_up(group: Group, row: SeenRow) -> None:
    score: Any = row.added.get("score")
    group.rows += 1
    group.ended += row.status != PENDING
    group.usd += (row.added["cost_usd"] or 0.0) + row.added["uncertain_usd"]
    if score is not None:
        group.scored += 1
        group.score += score


Reader = Callable[[tuple[bytes, ...]], list[dict[str, Any]]]
"""Returns the attempts of requests."""


def rows_to_read(tally: Tally, attempts: Reader) -> dict[str, list[ReadableRow]]:
    """Returns the rows to read by kind, with their attempts; kinds without a row are left out."""
    found = {
        kind: [row | {"attempts": attempts(digests)} for row, digests in tally.items(kind)] for kind in KINDS
    }
    return {kind: rows for kind, rows in found.items() if rows}
