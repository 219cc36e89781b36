"""The estimates of a sample hold: their 95 % intervals cover what the other rows then really take."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest

import batchrun
from batchrun.engine.pricing import PriceList
from batchrun.job.spec import Limits
from batchrun.journal import Totals
from batchrun.rows.ordering import key_of, sort_key
from batchrun.runs.plan.counts import Counts
from batchrun.runs.plan.estimates import Figure, expected_by_sample, expected_of, remaining_of
from batchrun.runs.plan.sample import BottomKSample, RowSpend, SampledRow
from tests.evaluation.population import ROWS, population

if TYPE_CHECKING:
    from collections.abc import Callable

SAMPLE = 50


def spends(repaired: bool) -> list[RowSpend]:
    """Skewed costs; with repairs a fifth of the rows takes up to twelve requests."""
    rng = np.random.default_rng(7)
    cost = population().cost
    requests = 1 + repaired * np.minimum(rng.geometric(0.45, ROWS) - 1, 11) * (rng.random(ROWS) < 0.5)
    return [
        RowSpend(int(c * n) * 5_000, int(c * n * 0.7), int(c * n * 0.3), float(c * n * 4), int(n))
        for c, n in zip(cost.tolist(), requests.tolist(), strict=True)
    ]


def first_of(seed: int, most: int, rows: int = ROWS) -> list[SampledRow]:
    draw = BottomKSample(most)
    key = key_of(seed)
    for row in range(rows):
        place = sort_key(row, key)
        if draw.wants(place):
            draw.add(SampledRow(place, row, None, False, -1))
    return draw.rows()


@pytest.mark.parametrize("repaired", [False, True])
def test_intervals_cover_what_the_other_rows_take_in_ninety_of_a_hundred_runs(repaired: bool) -> None:
    """Samples of 50 of 5,000 rows with skewed costs, drawn as a plan draws them."""
    rows = spends(repaired)
    kinds: dict[str, Callable[[RowSpend], float]] = {
        "nano_usd": lambda row: row.nano_usd or 0,
        "input_tokens": lambda row: row.input_tokens,
        "output_tokens": lambda row: row.output_tokens,
        "requests": lambda row: row.requests,
    }
    whole = {name: sum(map(of, rows)) for name, of in kinds.items()}
    busy = sum(row.milliseconds for row in rows) / 1000
    covered = dict.fromkeys([*kinds, "seconds"], 0)
    for seed in range(100):
        sample = [row._replace(spend=rows[row.row]) for row in first_of(seed, SAMPLE)]
        expected = expected_by_sample(sample, ROWS - SAMPLE, Limits(concurrency=16), SAMPLE, clustered=False)
        assert expected is not None
        for name, of in kinds.items():
            figure = getattr(expected, name)
            rest = whole[name] - sum(of(rows[row.row]) for row in sample)
            covered[name] += figure.interval[0] <= rest <= figure.interval[1]
        assert expected.seconds is not None
        assert expected.seconds.interval is not None
        rest = (busy - sum(rows[row.row].milliseconds for row in sample) / 1000) / 16
        covered["seconds"] += expected.seconds.interval[0] <= rest <= expected.seconds.interval[1]
    assert min(covered.values()) >= 90, covered


def test_the_interval_covers_what_the_run_in_the_sandbox_then_costs(tmp_path: Path) -> None:
    """Three seeds; texts of very different lengths, answers of the sandbox's own making."""
    rng = np.random.default_rng(3)
    texts = [f"row {row} " + "word " * int(words) for row, words in enumerate(rng.lognormal(3, 0.9, 150))]
    rows = pl.DataFrame({"text": texts})
    covered = 0
    for seed in range(3):
        job = {
            "prompt": {"template": "Say something of this: {{ text }}"},
            "request": {"model": "abliterated-model", "max_tokens": 60},
            "output": {"path": str(tmp_path / f"{seed}.parquet"), "seed": seed, "accept": ["truncated"]},
        }
        plan = batchrun.plan(job, input=rows, sample=30, sandbox=True)
        assert plan["expected"]["basis"] == "a random sample of 30 rows"
        assert (plan["rows"]["answered"], plan["rows"]["to_send"]) == (30, 120)
        summary = batchrun.run(job, input=rows, sandbox=True).summary
        assert summary["this_run"]["requests"]["sent"] == 120
        low, high = plan["expected"]["intervals"]["usd"]
        covered += low <= summary["this_run"]["usd"]["settled"] <= high
        assert high < 3 * low
    assert covered >= 2


def test_a_sample_of_all_rows_leaves_nothing_to_expect() -> None:
    assert remaining_of([3.0, 5.0], 0, None) == Figure(0.0, (0.0, 0.0))


def test_one_row_or_one_cluster_says_nothing_of_the_spread() -> None:
    assert remaining_of([3.0], 10, None) is None
    assert remaining_of([3.0, 4.0, 5.0], 10, [1, 1, 1]) is None


def test_rows_that_are_alike_within_clusters_make_the_interval_wider() -> None:
    values = np.repeat(np.arange(1.0, 11.0), 10).tolist()
    clusters = np.repeat(np.arange(10), 10).tolist()
    plain, clustered = remaining_of(values, 900, None), remaining_of(values, 900, clusters)
    assert plain is not None
    assert clustered is not None
    assert plain.value == clustered.value
    assert plain.interval is not None
    assert clustered.interval is not None
    assert clustered.interval[1] - clustered.interval[0] > 2 * (plain.interval[1] - plain.interval[0])


def test_limits_hold_the_run_back_where_they_are_tighter_than_the_answers_are_slow() -> None:
    sample = [SampledRow(place, place, RowSpend(1, 90, 10, 2_000, 1), False, -1) for place in range(10)]
    free = expected_by_sample(sample, 600, Limits(concurrency=12), 10, clustered=False)
    assert free is not None
    assert free.seconds == Figure(100.0, (100.0, 100.0))
    limited = expected_by_sample(
        sample, 600, Limits(concurrency=12, requests_per_minute=60), 10, clustered=False
    )
    assert limited is not None
    assert limited.seconds == Figure(600.0, (600.0, 600.0))


def test_few_rows_that_nobody_asked_for_as_a_sample_are_none() -> None:
    sample = [SampledRow(place, place, RowSpend(1, 90, 10, 2_000, 1), False, -1) for place in range(19)]
    counts = Counts(requests=10, input_guess=70, output_bound=20)
    counts.by_status["pending"] = 10
    price_list = PriceList(10**9, 10**9)
    guessed = expected_of(counts, Totals(), price_list, Limits(), sample, 0, clustered=False)
    assert (guessed.sample, guessed.input_tokens, guessed.output_tokens) == (0, Figure(70), Figure(10))
    asked_for = expected_of(counts, Totals(), price_list, Limits(), sample, 40, clustered=False)
    assert asked_for.basis == "a random sample of 19 rows, of 40 that were asked for"
    assert asked_for.input_tokens.value == 900


def test_a_draw_keeps_the_first_rows_and_its_sample_ends_at_the_first_open_one() -> None:
    spend = RowSpend(1, 1, 1, 1, 1)
    draw = BottomKSample(4)
    for place in (9, 3, 7, 1, 5, 8):
        if draw.wants(place):
            draw.add(SampledRow(place, 100 + place, None if place == 5 else spend, place == 3, -1))
    assert [row.place for row in draw.rows()] == [1, 3, 5, 7]
    assert [row.place for row in draw.sample()] == [1]
