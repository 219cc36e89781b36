"""Shows lines again and again: on a terminal in their place, elsewhere whenever they have changed."""

import sys
from collections.abc import Callable
from contextlib import suppress

from batchrun.cli.lines import say

SECONDS_BETWEEN_LOOKS = 2.0
MOST_SHARE_OF_TIME = 0.05
"""Sums over a journal of a million attempts take 0.6 s: then the looks are further apart."""

Look = Callable[[], tuple[list[str], bool]]
"""Returns the lines to show, and whether there will be others."""


def watch(look: Look, clock: Callable[[], float], sleep: Callable[[float], object]) -> None:
    """Shows the lines until there will be no others, or until Ctrl-C. Times are in seconds."""
    with suppress(KeyboardInterrupt):
        show = _in_place() if sys.stdout.isatty() else _when_changed()
        while True:
            began = clock()
            lines, goes_on = look()
            show(lines)
            if not goes_on:
                return
            sleep(max(SECONDS_BETWEEN_LOOKS, (clock() - began) / MOST_SHARE_OF_TIME))


def _when_changed() -> Callable[[list[str]], None]:
    shown: list[str] = []

    def show(lines: list[str]) -> None:
        if lines != shown:
            for line in (*([""] if shown else []), *lines):
                say(line)
            shown[:] = lines

    return show


def _in_place() -> Callable[[list[str]], None]:
    height = 0

    def show(lines: list[str]) -> None:
        nonlocal height
        sys.stdout.write(f"\x1b[{height}F\x1b[J" if height else "")
        height = sum(say(line) for line in lines)

    return show
