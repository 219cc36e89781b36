"""Shows lines whenever they have changed: on a terminal in their place, elsewhere below the others."""

import sys
from collections.abc import Callable
from contextlib import suppress

from batchrun.cli.lines import say

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
        show = _in_place() if sys.stdout.isatty() else _below()
        shown: list[str] | None = None
        while True:
            before = used()
            lines, goes_on = look()
            if lines != shown:
                show(lines)
            shown = lines
            if not goes_on:
                return
            sleep(max(SECONDS_BETWEEN_LOOKS, (used() - before) / MOST_SHARE_OF_TIME))


def _below() -> Callable[[list[str]], None]:
    is_first = True

    def show(lines: list[str]) -> None:
        nonlocal is_first
        for line in (*([] if is_first else [""]), *lines):
            say(line)
        is_first = False

    return show


def _in_place() -> Callable[[list[str]], None]:
    height = 0

    def show(lines: list[str]) -> None:
        nonlocal height
        sys.stdout.write(f"\x1b[{height}F\x1b[J" if height else "")
        height = sum(say(line) for line in lines)

    return show
