"""The table [on_finish] of a job file."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from msgspec import Meta, Struct

from batchrun.errors import JobError


class OnFinish(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whom to notify when a run has ended; see [on_finish](#being-told)."""

    command: Annotated[
        str | tuple[str, ...] | None,
        Meta(
            description="Gets `summary.json` on its standard input. A list is run as it is, a text through "
            "`/bin/sh -c`. Runs in the job file's folder."
        ),
    ] = None
    url: Annotated[
        str | None, Meta(description="http(s) URL that gets `summary.json` in a POST, without the API key.")
    ] = None
    when: Annotated[
        Literal["always", "trouble"],
        Meta(description="`trouble`: only where a person is needed; see [what needs a person](cli.md#cron)."),
    ] = "always"
    timeout_seconds: Annotated[
        float,
        Meta(
            gt=0,
            le=3600,
            description="A command that takes longer is ended with all its processes, a POST is abandoned.",
        ),
    ] = 30.0

    exit_zero_unless_person: Annotated[
        bool,
        Meta(
            description="`batchrun run` exits with 0 where no person is needed, so that the alarms of cron "
            "and systemd mean something. The summary keeps the exit code."
        ),
    ] = False

    def __repr__(self) -> str:
        return f"OnFinish(when={self.when!r})"


def check_on_finish(table: OnFinish) -> None:
    """Raises JobError, whose text shows neither command nor URL, since they may hold a secret."""
    if table.command is None and table.url is None and not table.exit_zero_unless_person:
        raise JobError("[on_finish]: give command or url, or exit_zero_unless_person = true")
    words = (table.command,) if isinstance(table.command, str) else table.command
    if words is not None and not (words and words[0].strip()):
        raise JobError("[on_finish] command: must not be empty; leave the table out")
    if any("\0" in word for word in words or ()):
        raise JobError("[on_finish] command: holds a null character")
    if table.url is not None and not _is_http(table.url):
        raise JobError("[on_finish] url: expected an http or https URL")


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
