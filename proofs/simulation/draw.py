"""The only source of chance: a seed, or the choices of an earlier history."""

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Draw:
    """Makes choices from a seed and records them in `made`, or repeats the given `choices`.

    Where `choices` end, every further choice is 0. The plainest case is 0 everywhere, so that zeros and a
    shorter list make a simpler history: this is how a failure shrinks.
    """

    def __init__(self, seed: int, choices: Sequence[int] | None = None) -> None:
        self.made: list[int] = []
        self._random = random.Random(seed)  # noqa: S311  # repeatable on purpose
        self._choices = choices

    def below(self, bound: int) -> int:
        """Returns an integer from 0 to `bound` - 1."""
        if self._choices is None:
            choice = self._random.randrange(bound)
        else:
            place = len(self.made)
            choice = self._choices[place] % bound if place < len(self._choices) else 0
        self.made.append(choice)
        return choice

    def one_in(self, number: int) -> bool:
        """Returns True once in `number` times."""
        return self.below(number) == number - 1

    def of(self, options: Sequence[T]) -> T:
        """Returns one of the options; the first is the plainest."""
        return options[self.below(len(options))]

    def up_to(self, most: float) -> float:
        """Returns a number from 0 to `most`, in steps of a thousandth of it."""
        return most * self.below(1001) / 1000
