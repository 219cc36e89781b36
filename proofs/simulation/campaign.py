"""Many seeds on all cores, and the planted bugs, as results of a proof."""

import os
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

from proofs.results import Result, Say
from proofs.simulation.parts import Parts
from proofs.simulation.planted import PLANTED
from proofs.simulation.shrinking import replayed

SEEDS = 10_000
SEEDS_FOR_A_PLANTED_BUG = 1_000
_AT_ONCE = 100


@dataclass
class Tally:
    """`counts` has sums over histories, `broken` the failing seeds with what they break."""

    counts: Counter[str] = field(default_factory=Counter)
    broken: list[tuple[int, str]] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        self.counts += other.counts
        self.broken += other.broken


def tally(seeds: Iterable[int]) -> Tally:
    """Lives the history of each seed."""
    total = Tally()
    for seed in seeds:
        found = replayed(seed, Parts())
        total.counts += found.counts
        if found.violation is not None:
            total.broken.append((seed, str(found.violation)))
    return total


def seed_that_finds(name: str, most: int = SEEDS_FOR_A_PLANTED_BUG, first: int = 0) -> int | None:
    """Returns the first seed whose history finds the planted bug `name`; None if none of `most` does.

    The search begins at the seed `first`.
    """
    seeds = range(first, first + most)
    return next((seed for seed in seeds if replayed(seed, PLANTED[name]).violation is not None), None)


def prove_simulation(say: Say, seeds: int = SEEDS) -> list[Result]:
    """The histories of `seeds` seeds, and for each planted bug as many as it takes to find it."""
    total = Tally()
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(seed_that_finds, PLANTED))
        starts = range(0, seeds, _AT_ONCE)
        for part in pool.map(tally, (range(start, min(start + _AT_ONCE, seeds)) for start in starts)):
            total.add(part)
            for seed, text in part.broken:
                say(f"seed {seed} breaks a promise: {text}; python -m proofs.simulation --seed {seed}")
            if total.counts["histories"] % 1_000 == 0:
                say(f"{total.counts['histories']:,} of {seeds:,} histories, {len(total.broken)} broken")
    return [*_results(total), *_planted_results(dict(zip(PLANTED, found, strict=True)))]


def _results(total: Tally) -> list[Result]:
    proof, counts = "simulation", total.counts
    return [
        Result(proof, "histories, steps", f"{counts['histories']:,}, {counts['steps']:,}"),
        Result(proof, "runs, crashes", f"{counts['runs']:,}, {counts['crashes']:,}"),
        Result(proof, "crashes that left half a write", f"{counts['torn']:,}"),
        Result(proof, "requests, billed ones", f"{counts['requests']:,}, {counts['billed']:,}"),
        Result(proof, "histories with a broken promise", f"{len(total.broken):,}", "0", not total.broken),
    ]


def _planted_results(found: dict[str, int | None]) -> list[Result]:
    return [
        Result(
            "simulation",
            f"{name}: found by seed",
            "none" if seed is None else f"{seed:,}",
            f"below {SEEDS_FOR_A_PLANTED_BUG:,}",
            seed is not None,
        )
        for name, seed in found.items()
    ]
