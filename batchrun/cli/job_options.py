"""The options that several commands share: a job file, or options that replace it, and overrides."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchrun.cli.completion import complete_key
from batchrun.tables.endings import WRITTEN_IN_WORDS

if TYPE_CHECKING:
    from batchrun.client.server import Server
    from batchrun.job.spec import Job
    from batchrun.sandbox import Settings

# option, key of the job file, whether its value is text, help
_SHORTCUTS = (
    ("--input", "input.path", True, "FILE", "Table of prompts, instead of input.path."),
    ("--prompt", "prompt.template", True, "TEXT", "Template of the prompt, such as 'Translate: {{ text }}'."),
    ("--system", "prompt.system", True, "TEXT", "System prompt, a template too."),
    ("--output", "output.path", True, "FILE", f"Where the answers go: {WRITTEN_IN_WORDS}."),
    ("--model", "request.model", True, "NAME", "Model id."),
    ("--max-tokens", "request.max_tokens", False, "N", "Most tokens of one answer."),
    ("--max-usd", "budget.usd", False, "USD", "Cap over the life of the output's journal."),
    ("--max-rows", "budget.rows", False, "N", "Most rows that this run sends for."),
    ("--concurrency", "limits.concurrency", False, "N", "Most requests in flight."),
    ("--rpm", "limits.requests_per_minute", False, "N", "Requests per minute."),
    ("--tpm", "limits.tokens_per_minute", False, "N", "Tokens per minute."),
    ("--base-url", "endpoint.base_url", True, "URL", "Address of the endpoint."),
)
_PATHS = ("input.path", "output.path")
LOCAL_HELP = (
    "A small model on this machine answers: nothing is paid. Needs: pip install 'batchrun-llm[local]'"
)


def job_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds JOB.toml (`job_file`), --set (`settings`) and the shortcuts, by their own names."""
    return click.argument("job_file", metavar="[JOB.toml]", required=False, type=click.Path(path_type=Path))(
        override_options(command)
    )


def override_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --set (`settings`), --profile and the shortcuts, by their own names."""
    command = click.option(
        "--profile",
        metavar="NAME",
        envvar="BATCHRUN_PROFILE",
        help="Put [profiles.NAME.*] of the job file in place of its own keys.",
    )(command)
    command = click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="KEY=VALUE",
        shell_complete=complete_key,
        help="Any key of the job file, such as budget.usd=2.5; budget.usd=null removes it. Repeatable.",
    )(command)
    for option, _key, _text, metavar, text in reversed(_SHORTCUTS):
        command = click.option(option, metavar=metavar, help=text)(command)
    return command


def load(
    job_file: Path | None,
    settings: tuple[str, ...],
    shortcuts: dict[str, Any],
    sandbox: bool,
    local: bool = False,
) -> "Job":
    """Returns the job that the command line describes. Raises UsageError."""
    from batchrun.client.server import LOCAL_OVERRIDES
    from batchrun.errors import JobError, UsageError
    from batchrun.job.file import load_job

    profile = shortcuts["profile"]
    overrides = [*_overrides(shortcuts), *settings]
    if job_file is None and not overrides:
        raise JobError(
            "name a job file, or give at least --input, --prompt, --output, --model and --max-tokens.\n"
            "`batchrun init TABLE` writes a job file for a table."
        )
    if sandbox and local:
        raise UsageError("give --sandbox or --local, not both")
    overrides = [*(LOCAL_OVERRIDES if local else ()), *overrides]
    return load_job(job_file, overrides, sandbox=sandbox, profile=profile, environ=os.environ)


@contextmanager
def target_of(
    job: "Job", environ: dict[str, str], sandbox: bool, replies: Path | None, latency: float, local: bool
) -> "Iterator[Server]":
    """Yields the run's server: the job's endpoint, or a sandbox or a model for the duration of the block.

    Raises JobError without a key, UsageError for wrong settings or without a model.
    """
    from batchrun.client.server import endpoint_of, local_model, sandbox_for

    if local:
        with local_model() as server:
            yield server
    elif sandbox:
        with sandbox_for(job, _sandbox_settings(replies, latency)) as server:
            yield server
    else:
        yield endpoint_of(job, environ)


def _sandbox_settings(replies: Path | None, latency: float) -> "Settings":
    from batchrun.errors import UsageError
    from batchrun.sandbox import Settings, SettingsError

    try:
        return Settings(replies=replies, latency=latency, latency_sigma=0.3 if latency else 0.0)
    except SettingsError as error:
        raise UsageError(str(error)) from None


def _overrides(shortcuts: dict[str, Any]) -> Iterator[str]:
    for option, key, is_text, _metavar, _help in _SHORTCUTS:
        value = shortcuts[option.removeprefix("--").replace("-", "_")]
        if value is None:
            continue
        if key in _PATHS and "://" not in value:
            value = str(Path(value).absolute())
        yield f"{key}={json.dumps(value, ensure_ascii=False) if is_text else value}"
