"""Makes a failing history shorter and plainer, as long as it breaks the same promise."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from proofs.simulation.parts import Parts
from proofs.simulation.world import Outcome, history

MOST_TRIES = 400


def replayed(seed: int, parts: Parts, choices: list[int] | None = None) -> Outcome:
    """Lives a history in a temporary folder, in memory where the system has such a folder."""
    memory = Path("/dev/shm")  # noqa: S108  # a folder of its own is made in it
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        return history(seed, Path(folder), parts, choices)


def shrunk(seed: int, outcome: Outcome, parts: Parts, most_tries: int = MOST_TRIES) -> Outcome:
    """Returns the plainest outcome that is found with the same broken promise as `outcome`.

    The choices of the history are a list of numbers, 0 the plainest of each. Stretches of the list are left
    out, then set to 0, then single numbers are made smaller; what still fails is kept. `most_tries` bounds
    the histories that are tried.
    """
    best = outcome
    simpler = _simpler(best.choices)
    for _ in range(most_tries):
        choices = next(simpler, None)
        if choices is None:
            break
        tried = replayed(seed, parts, choices)
        if _is_same(tried, outcome) and _is_plainer(tried.choices, best.choices):
            best = tried
            simpler = _simpler(best.choices)
    return best


def _simpler(choices: list[int]) -> Iterator[list[int]]:
    """Yields simpler lists, the much simpler ones first."""
    size = max(1, len(choices) // 2)
    while size:
        for start in range(0, len(choices), size):
            before, stretch, after = choices[:start], choices[start : start + size], choices[start + size :]
            yield before + after
            if any(stretch):
                yield before + [0] * len(stretch) + after
        size //= 2
    for place, choice in enumerate(choices):
        if choice > 1:
            yield [*choices[:place], choice // 2, *choices[place + 1 :]]


def _is_same(tried: Outcome, outcome: Outcome) -> bool:
    return (
        tried.violation is not None
        and outcome.violation is not None
        and tried.violation.promise == outcome.violation.promise
    )


def _is_plainer(one: list[int], other: list[int]) -> bool:
    return (len(one), sum(map(bool, one)), sum(one)) < (len(other), sum(map(bool, other)), sum(other))
