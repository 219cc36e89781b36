"""A plan reckons with the lengths of the rows to send: after any part of them, checked against simulation."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import batchrun
from batchrun.cli.plan_lines import plan_lines
from batchrun.engine.pricing import PriceList
from batchrun.evaluation.statistics.sampling_order import (
    cluster_order,
    groups_of,
    random_order,
    stratified_order,
)
from batchrun.job.spec import Limits
from batchrun.journal import Totals
from batchrun.runs.plan.counts import Counts
from batchrun.runs.plan.estimates import Expected, expected_by_sample, expected_of
from batchrun.runs.plan.sample import RowSpend, SampledRow

ROWS = 3_000
PRICES = PriceList(5 * 10**9, 15 * 10**9)
RNG = np.random.default_rng(11)
GROUPS = groups_of([f"author {row // 10}" for row in range(ROWS)])
SIZES = (200 + RNG.lognormal(6, 0.7, ROWS) * np.repeat(RNG.lognormal(0, 0.6, ROWS // 10), 10)).astype(int)
INPUTS = (SIZES / 4.2 * RNG.lognormal(0, 0.1, ROWS)).astype(int)
OUTPUTS = RNG.integers(2, 60, ROWS)
COSTS = INPUTS * 5_000 + OUTPUTS * 15_000


@cache
def spend_of(row: int) -> RowSpend:
    return RowSpend(int(COSTS[row]), int(INPUTS[row]), int(OUTPUTS[row]), 100.0, 1)


def estimated(order: "np.typing.NDArray[Any]", rows: int, *, clustered: bool, by_length: bool) -> Expected:
    sample = [
        SampledRow(
            place, row, spend_of(row), False, int(GROUPS.codes[row]), int(SIZES[row]) if by_length else 0
        )
        for place, row in enumerate(order[:rows].tolist())
    ]
    size = int(SIZES[order[rows:]].sum())
    found = expected_by_sample(sample, ROWS - rows, Limits(), rows, clustered, size, PRICES)
    assert found is not None
    return found


ORDERS = {
    "plain": lambda seed: random_order(range(ROWS), seed),
    "strata": lambda seed: stratified_order(range(ROWS), GROUPS, seed),
    "clusters": lambda seed: cluster_order(range(ROWS), GROUPS, seed),
}


@pytest.mark.parametrize("kind", ORDERS)
def test_intervals_cover_what_the_others_cost_and_are_narrower_than_by_means_per_row(kind: str) -> None:
    """200 samples of 300 of 3,000 rows; a stratified one does better than is promised."""
    covered, widths = {"nano_usd": 0, "input_tokens": 0}, {True: list[float](), False: list[float]()}
    for seed in range(200):
        order = ORDERS[kind](seed)
        rest = order[300:]
        whole = {"nano_usd": COSTS[rest].sum(), "input_tokens": INPUTS[rest].sum()}
        # Widths by means per row hardly differ: the first thirty tell.
        for by_length in (True, False) if seed < 30 else (True,):
            found = estimated(order, 300, clustered=kind == "clusters", by_length=by_length)
            assert found.nano_usd is not None
            assert found.nano_usd.interval is not None
            low, high = found.nano_usd.interval
            widths[by_length].append(high - low)
            for name, actual in whole.items() if by_length else ():
                low, high = getattr(found, name).interval
                covered[name] += low <= actual <= high
    assert min(covered.values()) >= 0.9 * 200, covered
    assert np.mean(widths[True]) < 0.4 * np.mean(widths[False])


def test_after_the_shortest_rows_a_plan_tells_what_the_long_ones_cost() -> None:
    """In the order of their lengths, the mean of the first tenth is a fraction of the others'."""
    order = np.argsort(SIZES)
    counts = Counts(size_to_send=int(SIZES[order[300:]].sum()))
    counts.by_status["pending"], counts.by_status["ok"] = ROWS - 300, 300
    for row in order[:300].tolist():
        counts.ended.add(int(SIZES[row]), spend_of(row))
    expected = expected_of(counts, Totals(), PRICES, Limits(), [], 0, clustered=False)
    actual = int(COSTS[order[300:]].sum())
    by_means = COSTS[order[:300]].mean() * (ROWS - 300)
    assert expected.nano_usd is not None
    assert expected.nano_usd.value == pytest.approx(actual, rel=0.1)
    assert expected.nano_usd.interval is not None
    assert expected.nano_usd.interval[0] <= actual <= expected.nano_usd.interval[1]
    assert by_means < 0.6 * actual
    assert expected.sample == 0, "no random sample"
    assert "300 rows in the journal that have ended, by length" in expected.basis


def test_a_plan_after_a_part_of_the_rows_in_the_input_s_order_is_close_to_the_cost(tmp_path: Path) -> None:
    """The first of 120 rows are short; the sandbox's answers don't depend on them."""
    rows = pl.DataFrame({"text": [f"row {row} " + "word " * (2 * row) for row in range(120)]})
    job: dict[str, Any] = {
        "prompt": {"template": "Say something of this: {{ text }}"},
        "request": {"model": "abliterated-model", "max_tokens": 60},
        "budget": {"rows": 40},
        "output": {"path": str(tmp_path / "out.parquet"), "accept": ["truncated"]},
    }
    first = batchrun.run(job, input=rows, sandbox=True).summary
    plan = batchrun.plan(job, input=rows, sandbox=True)
    rest = batchrun.run(job, input=rows, settings={"budget.rows": 120}, sandbox=True).summary
    cost = rest["this_run"]["usd"]["settled"]
    assert rest["this_run"]["requests"]["sent"] == 80
    assert plan["expected"]["usd"] == pytest.approx(cost, rel=0.15)
    low, high = plan["expected"]["intervals"]["usd"]
    assert low <= cost <= high
    assert 2 * first["usd"]["settled"] < 0.75 * cost, "by means per row it would be far off"
    assert any("if the other rows are like these" in line for line in plan_lines(plan))


def test_rows_that_have_all_ended_leave_nothing_to_expect() -> None:
    counts = Counts()
    counts.by_status["ok"] = 5
    for row in range(5):
        counts.ended.add(int(SIZES[row]), spend_of(row))
    expected = expected_of(counts, Totals(answered=5), PRICES, Limits(), [], 0, clustered=False)
    assert expected.nano_usd is not None
    assert expected.nano_usd.value == 0
