"""The live display of a run: three lines that stay on a terminal; elsewhere one a minute and at the end."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

from batchrun.amounts import usd_text
from batchrun.pipeline import View
from batchrun.plain_text import on_one_line

SECONDS_BETWEEN_LINES = 60.0
REFRESHES_PER_SECOND = 4


@contextmanager
def watching(view: View) -> Iterator[None]:
    """Shows the run's progress on stderr for as long as the block lasts."""
    show = _live if sys.stderr.isatty() and not _dumb() else _lines
    with show(view):
        yield


@contextmanager
def _live(view: View) -> Iterator[None]:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(stderr=True, markup=False, highlight=False)
    pace = Pace(view)
    with Live(
        console=console,
        get_renderable=lambda: Text(
            "\n".join(status_lines(view, pace, console.width)), no_wrap=True, overflow="ellipsis"
        ),
        refresh_per_second=REFRESHES_PER_SECOND,
        transient=True,
    ):
        yield


@contextmanager
def _lines(view: View) -> Iterator[None]:
    pace = Pace(view)
    ended = threading.Event()

    def tell() -> None:
        click.echo(" | ".join(status_lines(view, pace, 0)), err=True)

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


class Pace:
    """Rows and tokens per second over the last ten seconds, by looks at the counts."""

    def __init__(self, view: View) -> None:
        self._progress = view.progress
        self._looks = [(time.monotonic(), 0, 0)]

    def per_second(self) -> tuple[float, float]:
        progress = self._progress
        now = time.monotonic()
        self._looks.append((now, progress.answers + progress.failed, progress.tokens))
        while len(self._looks) > 2 and now - self._looks[0][0] > 10:
            del self._looks[0]
        then, rows, tokens = self._looks[0]
        seconds = max(now - then, 1e-9)
        _, rows_now, tokens_now = self._looks[-1]
        return (rows_now - rows) / seconds, (tokens_now - tokens) / seconds


def status_lines(view: View, pace: Pace, width: int) -> list[str]:
    """What the display says now; `width` in columns, 0 for no bar."""
    progress = view.progress
    if progress.writing:
        at_once = "; Ctrl-C ends at once, and leaves it as it was" if progress.stopping else ""
        return [f"writing {view.job.output.path} ...{at_once}"]
    if progress.stopping and progress.in_flight:
        waits = f"waiting for {progress.in_flight:,} in flight; Ctrl-C ends at once, and they may be billed"
        return [f"{progress.stopping} {waits}", _money_line(view)]
    rows_a_second, tokens_a_second = pace.per_second()
    speed = f"{rows_a_second:,.1f} rows/s, {tokens_a_second:,.0f} tokens/s"
    return [
        _rows_line(view, rows_a_second, width),
        f"{speed}, {view.progress.in_flight:,} in flight, {_troubles(view)}",
        _money_line(view),
    ]


def _rows_line(view: View, rows_a_second: float, width: int) -> str:
    progress = view.progress
    done, total = progress.done, progress.rows
    if not total:
        return f"{done:,} rows done"
    bar_width = min(30, width - 50)
    filled = bar_width * min(done, total) // total if bar_width > 5 else 0
    bar = f"[{'#' * filled}{'.' * (bar_width - filled)}] " if bar_width > 5 else ""
    left = total - done
    to_go = f", {_duration(left / rows_a_second)} to go" if rows_a_second > 0 and left > 0 else ""
    return f"{bar}{done:,} of {total:,} rows ({done / total:.0%}){to_go}"


def _troubles(view: View) -> str:
    progress = view.progress
    kinds = ", ".join(f"{code} x{n:,}" for code, n in progress.by_error.most_common(3))
    failed = f"{progress.failed:,} failed"
    waits = f", waiting for room under {progress.held_by}" if progress.held_by else ""
    last = f" (last: {on_one_line(progress.last_error)})" if progress.last_error else ""
    return failed + (f", errors: {kinds}{last}" if kinds else "") + waits


def _money_line(view: View) -> str:
    ledger, before = view.ledger, view.before.spend
    spent = before.committed.plus(ledger.settled).plus(ledger.uncertain)
    text = f"spent {usd_text(spent.nano_usd)} + {usd_text(ledger.reserved.nano_usd)} reserved"
    cap = view.job.budget.nano_usd
    if cap is not None:
        text += f" of {usd_text(cap)}"
    if ledger.remaining_credits is not None:
        text += f", {ledger.remaining_credits:,} credits left"
    return text + (" (sandbox: nothing is paid)" if view.target.sandbox else "")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _dumb() -> bool:
    import os

    return os.environ.get("TERM") in (None, "", "dumb")
