"""The order of asking: every row once, clusters together, strata in proportion, the same when asked again."""

from hashlib import blake2b
from itertools import groupby

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from batchrun.evaluation.statistics.sampling_order import (
    Groups,
    cluster_order,
    groups_of,
    random_order,
    row_places,
    stratified_order,
)

SEEDS = st.integers(0, 2**63 - 1)
CELLS = st.lists(st.sampled_from(["a", "b", "c", "d", None]), max_size=120)


def clusters_in_order(groups: Groups, order: list[int]) -> list[int]:
    return [code for code, _ in groupby(groups.codes[order].tolist())]


def test_places_are_those_of_every_version_so_far() -> None:
    """An interrupted run goes on in the same order: the hash of the row's index, keyed with the seed."""
    digest = blake2b((5).to_bytes(8, "big"), digest_size=8, key=(7).to_bytes(8, "big")).digest()
    assert row_places([5], 7).tolist() == [int.from_bytes(digest, "big")]
    assert random_order(range(10), 0).tolist() == [5, 1, 7, 9, 4, 2, 3, 8, 6, 0]


@given(CELLS, SEEDS)
def test_every_order_holds_every_row_once(cells: list[str | None], seed: int) -> None:
    rows, groups = range(len(cells)), groups_of(cells)
    everything = list(rows)
    assert sorted(random_order(rows, seed).tolist()) == everything
    assert sorted(cluster_order(rows, groups, seed).tolist()) == everything
    assert sorted(stratified_order(rows, groups, seed).tolist()) == everything


@given(CELLS, SEEDS)
def test_rows_of_a_cluster_stay_together(cells: list[str | None], seed: int) -> None:
    groups = groups_of(cells)
    order = cluster_order(range(len(cells)), groups, seed).tolist()
    named = [code for code in clusters_in_order(groups, order) if code >= 0]
    assert len(named) == len(set(named)) == len(groups.names)


@given(CELLS, SEEDS)
def test_every_beginning_holds_the_strata_in_proportion(cells: list[str | None], seed: int) -> None:
    """Less than one row off, for each stratum and each number of rows."""
    order = stratified_order(range(len(cells)), groups_of(cells), seed).tolist()
    for stratum in set(cells):
        share = cells.count(stratum) / len(cells)
        asked = 0
        for rows, position in enumerate(order, 1):
            asked += cells[position] == stratum
            assert abs(asked - rows * share) < 1


def test_many_strata_of_all_sizes_stay_in_proportion() -> None:
    rng = np.random.default_rng(3)
    codes = rng.choice(60, 5_000, p=rng.dirichlet(np.full(60, 0.3))).astype(np.int32)
    groups = Groups(codes, [f"stratum {code}" for code in range(60)])
    asked = codes[stratified_order(range(codes.size), groups, 1)]
    so_far = np.cumsum(asked[:, None] == np.arange(60), axis=0)
    due = np.arange(1, codes.size + 1)[:, None] * np.bincount(codes, minlength=60) / codes.size
    assert np.abs(so_far - due).max() < 1


def test_rows_within_a_stratum_and_within_a_cluster_are_in_the_random_order() -> None:
    cells = ["a", "b", "b", "a", "b"] * 20
    plain = random_order(range(100), 9).tolist()
    for order in (cluster_order, stratified_order):
        grouped = order(range(100), groups_of(cells), 9).tolist()
        for cell in ("a", "b"):
            assert [row for row in grouped if cells[row] == cell] == [
                row for row in plain if cells[row] == cell
            ]


@given(CELLS, CELLS, SEEDS)
def test_appended_rows_leave_the_order_of_the_others_as_it_was(
    cells: list[str | None], appended: list[str | None], seed: int
) -> None:
    before, after = groups_of(cells), groups_of([*cells, *appended])
    rows, more = range(len(cells)), range(len(cells) + len(appended))
    for old, new in (
        (random_order(rows, seed), random_order(more, seed)),
        (cluster_order(rows, before, seed), cluster_order(more, after, seed)),
    ):
        assert [row for row in new.tolist() if row < len(cells)] == old.tolist()


def test_the_order_is_the_rows_not_that_of_the_table() -> None:
    """What is left after an interruption comes in the same order as it would have come."""
    whole = random_order(range(200), 4).tolist()
    left = [row for row in range(200) if row % 3]
    assert [left[position] for position in random_order(left, 4).tolist()] == [
        row for row in whole if row % 3
    ]


def test_each_row_is_as_likely_as_any_other_to_be_among_the_first() -> None:
    """Over many seeds, with clusters as well: 4.9 standard deviations, for 40 counts."""
    cells = [f"c{row // 4}" for row in range(40)]
    counts = np.zeros((2, 40))
    for seed in range(2_000):
        counts[0, random_order(range(40), seed)[:10]] += 1
        counts[1, cluster_order(range(40), groups_of(cells), seed)[:8]] += 1
    for row, share in zip(counts, (10 / 40, 8 / 40), strict=True):
        assert np.abs(row - 2_000 * share).max() < 4.9 * np.sqrt(2_000 * share * (1 - share))


def test_groups_are_told_apart_by_their_text() -> None:
    groups = groups_of([1, "1", None, "ä", "\ud800", 2.5])
    assert groups.codes.tolist() == [0, 0, -1, 1, 2, 3]
    assert groups.names == ["1", "ä", "\ud800", "2.5"]
    assert sorted(cluster_order(range(6), groups, 0).tolist()) == list(range(6))
