"""The live display of a run: three lines that stay on a terminal; elsewhere one a minute and at the end."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import click

from batchrun.cli.status_lines import Speedometer, status_lines
from batchrun.pipeline import View

SECONDS_BETWEEN_LINES = 60.0
REFRESHES_PER_SECOND = 2


@contextmanager
def watching(view: View) -> Iterator[None]:
    """Shows the run's progress on stderr for as long as the block lasts.

    A terminal that goes away meanwhile is no reason for the run to end otherwise than it would have.
    """
    show = _live if sys.stderr.isatty() and not _dumb() else watching_by_lines
    display = show(view)
    with suppress(OSError):
        display.__enter__()
    try:
        yield
    finally:
        with suppress(OSError):
            display.__exit__(None, None, None)


@contextmanager
def _live(view: View) -> Iterator[None]:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(stderr=True, markup=False, highlight=False)
    speedometer = Speedometer(view)
    with Live(
        console=console,
        get_renderable=lambda: Text(
            "\n".join(status_lines(view, speedometer, console.width)), no_wrap=True, overflow="ellipsis"
        ),
        refresh_per_second=REFRESHES_PER_SECOND,
        transient=True,
    ):
        yield


@contextmanager
def watching_by_lines(view: View) -> Iterator[None]:
    speedometer = Speedometer(view)
    ended = threading.Event()

    def tell() -> None:
        click.echo(" | ".join(status_lines(view, speedometer, 0)), err=True)

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


def _dumb() -> bool:
    return os.environ.get("TERM") in (None, "", "dumb")
