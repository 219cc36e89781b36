"""The live display of a run: three updated lines on a terminal, a bar in a notebook; else one a minute."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
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


class Display(Observer):
    """Shows a run's progress: on a terminal as three updated lines unless `by_lines`, in a notebook as a bar.

    A terminal that closes meanwhile doesn't change how the run ends.
    """

    def __init__(self, view: View, *, by_lines: bool = False) -> None:
        self._view = view
        live = sys.stderr.isatty() and not _dumb()
        self._show = bar if in_notebook() else _live if live and not by_lines else _lines
        self._shown = ExitStack()
        self._say: Callable[[str], None] = _echo

    def run_started(self, event: RunStarted) -> None:
        with suppress(OSError):
            self._say = self._shown.enter_context(self._show(self._view)) or _echo

    def adjusted(self, event: RunAdjusted) -> None:
        with suppress(OSError):
            self._say(single_line(adjusted_text(event)))

    def close(self) -> None:
        with suppress(OSError):
            self._shown.close()


@contextmanager
def _live(view: View) -> Iterator[Callable[[str], None]]:
    """Shows the live lines; yields what prints a line above them. Another writer would tear them."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(stderr=True, markup=False, highlight=False)
    meter = RateMeter(view.progress, time.monotonic())
    with Live(
        console=console,
        get_renderable=lambda: Text(
            "\n".join(status_lines(view, meter, console.width)), no_wrap=True, overflow="ellipsis"
        ),
        refresh_per_second=REFRESHES_PER_SECOND,
        transient=True,
    ) as live:
        yield partial(live.console.print, soft_wrap=True)


@contextmanager
def _lines(view: View) -> Iterator[None]:
    meter = RateMeter(view.progress, time.monotonic())
    ended = threading.Event()

    def tell() -> None:
        click.echo(" | ".join(status_lines(view, meter, 0)), err=True)

    def tell_now_and_then() -> None:
        while not ended.wait(SECONDS_BETWEEN_LINES):
            tell()

    thread = threading.Thread(target=tell_now_and_then, name="display", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        tell()


def _echo(line: str) -> None:
    click.echo(line, err=True)


def _dumb() -> bool:
    return os.environ.get("TERM") in (None, "", "dumb")
