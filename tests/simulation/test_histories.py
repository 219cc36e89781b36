"""Whole runs under a virtual clock, disk, network and provider: as `python -m proofs.simulation`."""

import pytest

from proofs.simulation.campaign import seed_that_finds, tally
from proofs.simulation.parts import Parts
from proofs.simulation.planted import PLANTED
from proofs.simulation.shrinking import replayed, shrunk

SEEDS = 100
PARTS = 2
A_SEED_THAT_FINDS = {
    "an end handed in after the ledger frees": 11,
    "a day's cap that is given twice": 105,
    "a retry that forgets its reservation": 18,
}
"""Where a search begins; it goes on where histories have become others."""


@pytest.mark.parametrize("part", range(PARTS))
def test_no_history_breaks_a_promise(part: int) -> None:
    found = tally(range(part, SEEDS, PARTS))
    assert found.broken == []
    counts = found.counts
    assert min(counts["crashes"], counts["torn"]) > 0
    assert counts["billed"] > counts["histories"]


@pytest.mark.parametrize("seed", [8484])
def test_what_broke_a_promise_once_breaks_none(seed: int) -> None:
    """8484: a deferred vote went before the one that begins its row, which a cap on rows held back."""
    assert replayed(seed, Parts()).violation is None


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_found(name: str) -> None:
    assert seed_that_finds(name, 3 * SEEDS, A_SEED_THAT_FINDS.get(name, 0)) is not None


def test_a_failing_history_replays_exactly_and_shrinks() -> None:
    name = "a withdrawn intent that is kept"
    parts = PLANTED[name]
    seed = seed_that_finds(name, 3 * SEEDS)
    assert seed is not None
    first, second = replayed(seed, parts), replayed(seed, parts)
    assert (first.trace, str(first.violation)) == (second.trace, str(second.violation))
    plainer = shrunk(seed, first, parts, most_tries=40)
    assert len(plainer.choices) < len(first.choices)
    again = replayed(seed, parts, plainer.choices)
    assert again.violation is not None
    assert (again.trace, str(again.violation)) == (plainer.trace, str(plainer.violation))


def test_the_same_history_without_the_bug_breaks_nothing() -> None:
    seed = seed_that_finds("a withdrawn intent that is kept", 3 * SEEDS)
    assert seed is not None
    assert replayed(seed, Parts()).violation is None
