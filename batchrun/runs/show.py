"""Chooses rows of a job for a person to read. Sends nothing."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

from batchrun.client.templates import no_such_column
from batchrun.errors import UsageError
from batchrun.job.spec import Job
from batchrun.journal import Journal
from batchrun.rows.dataset import Dataset, open_dataset
from batchrun.rows.ordering import key_of, sort_key
from batchrun.rows.result import PENDING
from batchrun.runs.output import RowWriter
from batchrun.runs.reading import Lowest, ReadableRow, SeenRow, cell_text, readable, seen_rows
from batchrun.runs.run_folder import open_journal_of

Where = tuple[str, str]
"""A column of the output, and the text that its cell must have."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which rows to show: those for which all of it holds, `most` at most; the first ones unless `random`.

    `numbers` are rows, from 1; without them, rows that have not ended are left out unless `where` names their
    status. `statuses` is empty for any status.
    """

    most: int
    numbers: frozenset[int] = frozenset()
    statuses: frozenset[str] = frozenset()
    disagree: bool = False
    where: tuple[Where, ...] = ()
    random: bool = False


def rows_to_read(job: Job, choice: Choice, *, sandbox: bool = False) -> list[ReadableRow]:
    """Returns the chosen rows as JSON-able values, in input order.

    Raises UsageError for an unknown column or row, or if nothing has been run yet; JournalError.
    """
    with closing(open_journal_of(job)) as journal:
        dataset = open_dataset(job, sandbox=sandbox)
        fits = _predicate(dataset, choice)
        writer = RowWriter(dataset, journal)
        fitting = filter(fits, _until_last(seen_rows(dataset, journal, writer), choice.numbers))
        if choice.random:
            found = _drawn(fitting, choice.most, job.output.seed, journal)
        else:
            found = [readable(row, journal) for row in islice(fitting, choice.most)]
    last, rows = max(choice.numbers, default=0), writer.counts["total"]
    if last > rows and len(found) < choice.most:
        raise UsageError(f"The input has no row {last:,}: it has {rows:,} rows.")
    return found


def _until_last(rows: Iterator[SeenRow], numbers: frozenset[int]) -> Iterator[SeenRow]:
    last = max(numbers, default=None)
    for row in rows:
        yield row
        if last is not None and row.index + 1 >= last:
            return


def _drawn(rows: Iterable[SeenRow], most: int, seed: int, journal: Journal) -> list[ReadableRow]:
    key, drawn = key_of(seed), Lowest[ReadableRow](most)
    for row in rows:
        drawn.add(sort_key(row.index, key), lambda row=row: readable(row, journal))  # type: ignore[misc]
    return sorted(drawn.items(), key=lambda row: int(row["row"]))


def _predicate(dataset: Dataset, choice: Choice) -> Callable[[SeenRow], bool]:
    for name, _ in choice.where:
        if name not in dataset.schema.names:
            raise UsageError(no_such_column("--where", name, dataset.schema.names, of="the output"))
    if choice.disagree and dataset.metric is None and dataset.labelling.votes == 1:
        raise UsageError("--disagree needs expected answers ([evaluation]) or votes ([labels] votes).")
    any_status = bool(choice.numbers) or f"{dataset.job.output.prefix}status" in dict(choice.where)

    def fits(row: SeenRow) -> bool:
        return (
            (not choice.numbers or row.index + 1 in choice.numbers)
            and (any_status or row.status != PENDING)
            and (not choice.statuses or row.status in choice.statuses)
            and (not choice.disagree or row.disagrees)
            and all(_text(row, name) == text for name, text in choice.where)
        )

    return fits


def _text(row: SeenRow, name: str) -> str:
    if name in row.cells:
        return cell_text(row.cells[name])
    return cell_text(row.added[name.removeprefix(row.dataset.job.output.prefix)])
