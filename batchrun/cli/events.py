"""Who hears of a run's events: the file of --log-file, and stderr with --verbose."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchrun.plain_text import on_one_line

if TYPE_CHECKING:
    from batchrun.log import Listener


@contextmanager
def listening(log_file: Path | None, verbose: bool) -> Iterator["tuple[Listener, ...]"]:
    """The listeners that the options ask for. Raises OutputError where the log can't be written."""
    told: tuple[Listener, ...] = (_say,) if verbose else ()
    if log_file is None:
        yield told
        return
    from contextlib import closing

    from batchrun.log import RunLog, check_log

    check_log(log_file)
    with closing(RunLog(log_file)) as log:
        yield (*told, log.event)


def _say(event: str, **fields: Any) -> None:
    line = event_line(event, fields)
    if line is not None:
        click.echo(on_one_line(line), err=True)


def event_line(event: str, fields: dict[str, Any]) -> str | None:
    """An event for people; None for those that the run says anyway."""
    if event == "run started":
        return f"run {fields['run']} started"
    if event != "attempt failed":
        return None
    status = f", HTTP {fields['status']}" if fields["status"] else ""
    wait = f"; wait {fields['retry_after']:g} s" if fields["retry_after"] else ""
    billed = "; may be billed" if fields["billed"] == "unknown" else ""
    then = "its row has failed" if fields["final"] else "its row is asked again"
    return f"attempt {fields['attempt']}: {fields['code']}{status}: {fields['message']}{wait}{billed}; {then}"
