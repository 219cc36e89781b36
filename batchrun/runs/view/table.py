"""All rows of a job as a table: chosen, sorted and cut into pages, from its output or from a copy of that."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from batchrun.client.templates import no_such_column
from batchrun.errors import UsageError
from batchrun.tables.text_rows import csv_header, csv_records

ROWS_OF_A_PAGE = 50
PAGES_AT_ONCE = 4
MOST_LABELS = 50
_FAR = 4_096
"""Rows of a page that are further apart are read by themselves."""


@dataclass(frozen=True)
class RowsFile:
    """A Parquet file with all rows of the input in order, as an output has them.

    `prompt` are the input's columns that the prompt uses, `harmless` those that spreadsheets must not run.
    """

    path: Path
    made_at: int
    rows: int
    columns: tuple[str, ...]
    input: tuple[str, ...]
    prompt: tuple[str, ...]
    prefix: str = ""
    expected: str | None = None
    harmless: frozenset[str] = frozenset()

    def added(self, name: str) -> str | None:
        """Returns batchrun's column `name` under its whole name; None where the job has none."""
        whole = f"{self.prefix}{name}"
        return whole if whole in self.columns and whole not in self.input else None


@dataclass(frozen=True, slots=True)
class Choice:
    """Which rows, and their order. A row has all of it; an empty text or a pair less chooses nothing.

    `where` are pairs of a column and the text of its cell, `text` is part of the prompt or the answer.
    """

    status: str = ""
    reason: str = ""
    label: str = ""
    disagree: bool = False
    text: str = ""
    where: tuple[tuple[str, str], ...] = ()
    sort: str = ""
    descending: bool = False

    def query(self, page: int = 1) -> str:
        """Returns the choice as the query of a URL, which `choice_of` reads."""
        pairs = [(name, getattr(self, name)) for name in ("status", "reason", "label", "text", "sort")]
        pairs += [(name, "1") for name in ("disagree", "descending") if getattr(self, name)]
        for column, text in self.where:
            pairs += [("column", column), ("value", text)]
        pairs += [("page", str(page))] if page > 1 else []
        # A value may be empty beside its column: then the cell is.
        return urlencode([(name, value) for name, value in pairs if value or name == "value"])

    def sorted_by(self, column: str) -> "Choice":
        """Returns the choice in the order of a column, upside down if it is in that order already."""
        return replace(self, sort=column, descending=self.sort == column and not self.descending)

    def without(self, place: int) -> "Choice":
        return replace(self, where=self.where[:place] + self.where[place + 1 :])


def choice_of(file: RowsFile, pairs: Sequence[tuple[str, str]]) -> tuple[Choice, int]:
    """Returns the choice in the query of a URL, and the page. Raises UsageError for an unknown column."""
    given = dict(pairs)
    columns = [value for name, value in pairs if name == "column"]
    values = [value for name, value in pairs if name == "value"]
    where = tuple((column, value) for column, value in zip(columns, values, strict=False) if column)
    sort = given.get("sort", "")
    for name in (*(column for column, _ in where), *([sort] if sort else [])):
        if name not in file.columns:
            raise UsageError(no_such_column("This page", name, file.columns, of="the output"))
        _refuse_incomparable(name, _schema(file)[name])
    texts = {name: given.get(name, "").strip() for name in ("status", "reason", "label", "text")}
    page = given.get("page", "1")
    choice = Choice(
        **texts,
        disagree="disagree" in given,
        where=where,
        sort=sort,
        descending=bool(sort) and "descending" in given,
    )
    return choice, max(1, int(page)) if page.isdecimal() and len(page) < 10 else 1


@lru_cache(maxsize=8)
def found_rows(file: RowsFile, choice: Choice) -> pl.Series | None:
    """Returns the indexes of the chosen rows in order; None for all rows in the input's order."""
    conditions = [*_conditions(file, choice)]
    if not conditions and not choice.sort:
        return None
    rows = _scan(file).with_row_index("")  # no column of a table has this name
    if conditions:
        rows = rows.filter(pl.all_horizontal(conditions))
    if choice.sort:
        rows = rows.select("", choice.sort).sort(
            choice.sort, descending=choice.descending, nulls_last=True, maintain_order=True
        )
    return rows.select("").collect().to_series()


def _conditions(file: RowsFile, choice: Choice) -> Iterator[pl.Expr]:
    chosen = {"status": choice.status, "error_code": choice.reason, "label": choice.label}
    for name, value in chosen.items():
        column = file.added(name)
        if value:
            yield pl.lit(False) if column is None else pl.col(column) == value
    if choice.disagree:
        below_one = [pl.col(name) < 1 for name in map(file.added, ("score", "agreement")) if name is not None]
        yield pl.any_horizontal(below_one) if below_one else pl.lit(False)
    schema = _schema(file)
    if choice.text:
        searched = [name for name in _searched(file) if schema[name] == pl.String]
        has_it = [
            pl.col(name).str.to_lowercase().str.contains(choice.text.lower(), literal=True)
            for name in searched
        ]
        yield pl.any_horizontal(has_it) if has_it else pl.lit(False)
    for name, text in choice.where:
        yield _has_text(pl.col(name), schema[name], text)


def _searched(file: RowsFile) -> Iterator[str]:
    yield from file.prompt
    if (answer := file.added("output")) is not None:
        yield answer


def _has_text(cell: pl.Expr, kind: pl.DataType, text: str) -> pl.Expr:
    """Returns whether a cell is what a person has typed: a number by its value, a time by its beginning."""
    if kind == pl.String:
        return (cell == text) | (cell.is_null() if text == "" else pl.lit(False))
    if text == "":
        return cell.is_null()
    if kind.is_numeric():
        number = _number(text)
        return pl.lit(False) if number is None else cell == number
    as_text = cell.cast(pl.String)
    return as_text.str.starts_with(text) if kind.is_temporal() else as_text == text


def _number(text: str) -> int | float | None:
    for kind in (int, float):
        with suppress(ValueError, OverflowError):
            return kind(text)
    return None


def _refuse_incomparable(name: str, kind: pl.DataType) -> None:
    if kind.is_nested() or kind in (pl.Binary, pl.Duration, pl.Null):
        raise UsageError(
            f"The column {name!r} can't be compared: its type is {kind}. Next: choose another one."
        )


def _scan(file: RowsFile) -> pl.LazyFrame:
    return pl.scan_parquet(file.path, glob=False, hive_partitioning=False)


@lru_cache(maxsize=8)
def _schema(file: RowsFile) -> Mapping[str, pl.DataType]:
    return dict(_scan(file).collect_schema())


@lru_cache(maxsize=8)
def values_of(file: RowsFile, name: str) -> tuple[tuple[str, int], ...]:
    """Returns the values of a column of texts and how many rows have each, the commonest first."""
    column = file.added(name)
    if column is None or _schema(file)[column] != pl.String:
        return ()
    counts = (
        _scan(file)
        .filter(pl.col(column) != "")
        .group_by(column)
        .len()
        .sort("len", column, descending=[True, False])
    )
    return tuple(counts.head(MOST_LABELS).collect().iter_rows())


def rows_of_page(
    file: RowsFile, choice: Choice, page: int, columns: Sequence[str]
) -> dict[int, Mapping[str, Any]]:
    """Returns the rows of a page, counted from 1, by their index. Texts are cut to what a line can show."""
    block, place = divmod(page - 1, PAGES_AT_ONCE)
    first = place * ROWS_OF_A_PAGE
    rows = _rows_of_pages(file, choice, block, tuple(dict.fromkeys(columns)))
    return dict(list(rows.items())[first : first + ROWS_OF_A_PAGE])


@lru_cache(maxsize=16)
def _rows_of_pages(
    file: RowsFile, choice: Choice, block: int, columns: tuple[str, ...]
) -> dict[int, Mapping[str, Any]]:
    """Returns the rows of some pages: in an order of their own they lie anywhere in the file, and most of its
    row groups have to be read, for one page as for four."""
    found, most = found_rows(file, choice), PAGES_AT_ONCE * ROWS_OF_A_PAGE
    if found is None:
        indexes = list(range(block * most, min((block + 1) * most, file.rows)))
    else:
        indexes = found.slice(block * most, most).to_list()
    schema = _schema(file)
    cut = [pl.col(name).str.slice(0, 400) if schema[name] == pl.String else pl.col(name) for name in columns]
    scan, spans = _scan(file).select(cut), list(_spans(sorted(indexes)))
    parts = pl.collect_all([scan.slice(span[0], span[-1] - span[0] + 1) for span in spans])
    read = {
        index: part.row(index - span[0], named=True)
        for span, part in zip(spans, parts, strict=True)
        for index in span
    }
    return {index: read[index] for index in indexes}


def _spans(indexes: Sequence[int]) -> Iterator[list[int]]:
    """Yields ascending indexes in groups without a large gap."""
    group: list[int] = []
    for index in indexes:
        if group and index - group[-1] > _FAR:
            yield group
            group = []
        group.append(index)
    if group:
        yield group


def is_shared(file: RowsFile, index: int) -> bool:
    """Returns whether a row shares an earlier row's answer, which paid for it."""
    column = file.added("shared")
    if column is None or index >= file.rows:
        return False
    return bool(_scan(file).select(column).slice(index, 1).collect().item())


def neighbors(found: pl.Series | None, rows: int, index: int) -> tuple[int | None, int | None]:
    """Returns the indexes of the rows before and after a row in the chosen order."""
    if found is None:
        return (index - 1 if index else None), (index + 1 if index + 1 < rows else None)
    place = (found == index).arg_max()
    if place is None or not len(found) or found[place] != index:
        return None, None
    return (found[place - 1] if place else None), (found[place + 1] if place + 1 < len(found) else None)


def csv_parts(file: RowsFile, found: pl.Series | None) -> Iterator[bytes]:
    """Yields the chosen rows as CSV, in the input's order and in bounded memory."""
    with pq.ParquetFile(file.path) as source:
        yield csv_header(source.schema_arrow, file.harmless)
        first, ascending = 0, None if found is None else found.sort()
        for batch in source.iter_batches():
            part = batch
            if ascending is not None:
                start = ascending.search_sorted(first, "left")
                end = ascending.search_sorted(first + batch.num_rows, "left")
                inside = ascending.slice(start, end - start) - first
                part = batch.take(pa.array(inside.to_list(), pa.int64()))
            if part.num_rows:
                yield csv_records(part, file.harmless)
            first += batch.num_rows
