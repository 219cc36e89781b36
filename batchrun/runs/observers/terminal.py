"""The live display of a run: three updated lines on a terminal, a bar in a notebook; else one a minute."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial

import click

from batchrun.rows.observer import Observer, RunAdjusted, RunStarted
from batchrun.runs.observers.adjusted_text import adjusted_text
from batchrun.runs.observers.notebook import bar, in_notebook
from batchrun.runs.observers.progress_lines import status_lines
from batchrun.runs.observers.rates import RateMeter
from batchrun.runs.observers.view import View
from batchrun.text import single_line

SECONDS_BETWEEN_LINES = 60.0
REFRESHES_PER_SECOND = 2

Lines = Callable[[int], list[str]]
"""Returns the lines to show, for a width in columns; 0 is any."""
Say = Callable[[str], None]


class Display(Observer):
    """Shows a run's progress: on a terminal as three updated lines unless `by_lines`, in a notebook as a bar.

    A terminal that closes meanwhile doesn't change how the run ends.
    """

    def __init__(self, view: View, *, by_lines: bool = False) -> None:
        self._view = view
        self._by_lines = by_lines
        self._shown = ExitStack()
        self._say: Say = _echo

    def run_started(self, event: RunStarted) -> None:
        with suppress(OSError):
            self._say = self._shown.enter_context(self._show()) or _echo

    def _show(self) -> AbstractContextManager[Say | None]:
        if in_notebook():
            return bar(self._view)
        meter = RateMeter(self._view.progress, time.monotonic())
        lines = partial(status_lines, self._view, meter)
        return live(lines) if is_live() and not self._by_lines else plain(lines)

    def adjusted(self, event: RunAdjusted) -> None:
        with suppress(OSError):
            self._say(single_line(adjusted_text(event)))

    def close(self) -> None:
        with suppress(OSError):
            self._shown.close()


def is_live() -> bool:
    """Returns whether lines on stderr can be replaced: it is a terminal that knows how."""
    return sys.stderr.isatty() and os.environ.get("TERM") not in (None, "", "dumb")


@contextmanager
def live(lines: Lines) -> Iterator[Say]:
    """Shows the lines in their place, again and again; yields what prints a line above them.

    Another writer would tear them.
    """
    from batchrun.runs.observers.in_place import InPlace

    place = InPlace(sys.stderr)
    try:
        with _repeating(lambda: place.show(lines(place.columns)), 1 / REFRESHES_PER_SECOND):
            place.show(lines(place.columns))
            yield place.say
    finally:
        with suppress(OSError):
            place.clear()


@contextmanager
def plain(lines: Lines, *, at_end: bool = True) -> Iterator[None]:
    """Prints the lines as one, now and then, and `at_end`."""

    def tell() -> None:
        click.echo(" | ".join(lines(0)), err=True)

    try:
        with _repeating(tell, SECONDS_BETWEEN_LINES):
            yield
    finally:
        if at_end:
            tell()


@contextmanager
def _repeating(act: Callable[[], None], seconds: float) -> Iterator[None]:
    """Does something every so many seconds during the block, in a thread. A closed terminal stops nothing."""
    ended = threading.Event()

    def act_now_and_then() -> None:
        while not ended.wait(seconds):
            with suppress(OSError):
                act()

    thread = threading.Thread(target=act_now_and_then, name="display", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _echo(line: str) -> None:
    click.echo(line, err=True)
