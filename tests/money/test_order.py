"""The order of asking: random but seeded, the same after an interruption; duplicates asked separately."""

from collections.abc import Iterator
from pathlib import Path

from batchrun.client.request import Request, nth_occurrence
from batchrun.rows.active import Row
from batchrun.rows.selection import in_random_order
from tests.money.fanout import request


def chunks(rows: range) -> Iterator[list[Row]]:
    indexed = [Row(row, request(row)) for row in rows]
    for start in range(0, len(indexed), 100):
        yield indexed[start : start + 100]


def order_of(rows: range, seed: int) -> list[Row]:
    return [item for chunk in in_random_order(chunks(rows), seed, 1_024, Path()) for item in chunk]


def test_every_request_comes_once_and_as_it_was() -> None:
    assert sorted(order_of(range(2_500), 1), key=lambda row: row.index) == [
        Row(row, request(row)) for row in range(2_500)
    ]


def test_the_seed_alone_decides_the_order() -> None:
    assert order_of(range(500), 1) == order_of(range(500), 1)
    assert order_of(range(500), 1) != order_of(range(500), 2)


def test_an_interrupted_run_goes_on_in_the_same_order() -> None:
    """Rows that were asked already, or were appended since, don't move the others."""
    whole = [row.index for row in order_of(range(1_000), 9)]
    rest = [row.index for row in order_of(range(400, 1_300), 9)]
    assert [row for row in whole if row >= 400] == [row for row in rest if row < 1_000]


def test_the_first_rows_asked_are_a_sample_of_all() -> None:
    """Their mean index is within four standard errors of the middle."""
    first = [row.index for row in order_of(range(10_000), 3)][:400]
    standard_error = 10_000 / 12**0.5 / 400**0.5
    assert abs(sum(first) / 400 - 5_000) < 4 * standard_error


def test_duplicates_that_are_asked_separately_have_an_identity_each() -> None:
    """The first keeps the request's own: going from shared to separate asks only for the others."""
    first = request(1)
    occurrences: list[Request] = [nth_occurrence(first, occurrence) for occurrence in range(1, 6)]
    assert occurrences[0] == first
    assert len({one.digest for one in occurrences}) == 5
    assert {one.body for one in occurrences} == {first.body}
    assert {(one.input_bound, one.output_bound) for one in occurrences} == {
        (first.input_bound, first.output_bound)
    }
