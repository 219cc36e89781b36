"""Shows lines whenever they have changed: on a terminal in their place, elsewhere below the others."""

import sys
from collections.abc import Callable
from contextlib import suppress

from batchrun.cli.lines import broken, say
from batchrun.text import single_line

SECONDS_BETWEEN_LOOKS = 0.5
"""A look beside a small run takes 2 ms of CPU time, and a run notes its row counts once a second."""
MOST_SHARE_OF_TIME = 0.05
"""Sums over a journal of a million attempts take 0.6 s: then the looks are further apart."""

Look = Callable[[], tuple[list[str], bool]]
"""Returns the lines to show, and whether there will be others."""


def watch(look: Look, used: Callable[[], float], sleep: Callable[[float], object]) -> None:
    """Shows the lines until there will be no others, or until Ctrl-C.

    `used` returns the CPU time so far, in seconds: on a busy machine a look takes longer and costs no more.
    """
    with suppress(KeyboardInterrupt):
        show = _in_place() if sys.stdout.isatty() else _when_changed()
        while True:
            before = used()
            lines, goes_on = look()
            show(lines)
            if not goes_on:
                return
            sleep(max(SECONDS_BETWEEN_LOOKS, (used() - before) / MOST_SHARE_OF_TIME))


def _when_changed() -> Callable[[list[str]], None]:
    shown: list[str] = []

    def show(lines: list[str]) -> None:
        if lines != shown:
            for line in (*([""] if shown else []), *lines):
                say(line)
            shown[:] = lines

    return show


def _in_place() -> Callable[[list[str]], None]:
    from batchrun.runs.observers.in_place import InPlace

    place = InPlace(sys.stdout)

    def show(lines: list[str]) -> None:
        columns = place.columns
        place.show([part for line in lines for part in broken(single_line(line), columns).split("\n")])

    return show
