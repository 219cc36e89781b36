"""The display of a run in a notebook: a bar and the display's lines, updated in place."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

from batchrun.runs.observers.progress_lines import status_lines
from batchrun.runs.observers.rates import RateMeter
from batchrun.runs.observers.view import View

SECONDS_BETWEEN_UPDATES = 0.5


def in_notebook() -> bool:
    """Returns whether a notebook's kernel runs this process, so that HTML can be shown."""
    shell = sys.modules.get("IPython")
    return shell is not None and hasattr(shell.get_ipython(), "kernel")


@contextmanager
def bar(view: View) -> Iterator[None]:
    """Shows the bar for the duration of the block; its last state stays."""
    from IPython.display import HTML, display

    meter = RateMeter(view.progress, time.monotonic())
    handle: Any = display(HTML(bar_html(view, meter)), display_id=True)
    ended = threading.Event()

    def update_now_and_then() -> None:
        while not ended.wait(SECONDS_BETWEEN_UPDATES):
            handle.update(HTML(bar_html(view, meter)))

    thread = threading.Thread(target=update_now_and_then, name="display", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        handle.update(HTML(bar_html(view, meter)))


def bar_html(view: View, meter: RateMeter) -> str:
    """Returns the bar and the lines below it. Without a known length of the input the bar has no value."""
    progress = view.progress
    value = "" if progress.rows is None else f' value="{progress.done}" max="{max(progress.rows, 1)}"'
    lines = escape("\n".join(status_lines(view, meter, 0)))
    return f'<progress style="width:100%"{value}></progress><pre>{lines}</pre>'
