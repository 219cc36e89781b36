"""What follows a run: the page about the job, and `on_finish`, a command or a URL that is notified.

Any failure here is reported, and changes neither answers nor the exit code.
"""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from socket import gethostname
from typing import Any

import msgspec

from batchrun.client.server import Server
from batchrun.client.webhook import post_json
from batchrun.errors import EXIT_DONE, BatchrunError, LockedError
from batchrun.job.credentials import without_key
from batchrun.job.spec import Job, run_folder
from batchrun.runs.observers.prometheus import job_name
from batchrun.runs.paths import check_side_files, report_file
from batchrun.runs.run import run_job
from batchrun.runs.run_folder import RunFolder
from batchrun.runs.summary import FORMER_KEYS, Summary, with_former_keys
from batchrun.tables.reader import Table

STDERR = 2
"""Standard output belongs to the JSON of --json."""


def run_and_notify(job: Job, server: Server, warn: Callable[[str], None], **options: Any) -> Summary:
    """Calls `run_job`, writes the report, calls `on_finish`; `warn` gets a line if one of the two last fails.

    A fault is notified too, by its exit code and reason. If another run holds the lock, that run notifies; a
    run that was ended at once doesn't.
    """
    check_side_files(job)
    path = report_file(job)
    try:
        summary = run_job(job, server, warn=warn, **options)
    except LockedError:
        raise
    except BatchrunError as error:
        fault = {
            "exit_code": error.exit_code,
            "reason": str(error),
            "next_step": None,
            "needs_attention": True,
        }
        _tell(job, with_former_keys(fault), server.api_key, warn)
        raise
    if summary["output_written"]:
        if path is not None and _report(path, job, server, warn, options.get("table")):
            summary |= {"report": str(path)}
        _tell(job, summary, server.api_key, warn)
    return summary


def exit_code_of(job: Job, summary: Summary) -> int:
    """Returns the exit code of the process: 0 where no person is needed, if the job wants that."""
    code: int = summary["exit_code"]
    wants_zero = job.on_finish is not None and job.on_finish.exit_zero_unless_person
    return EXIT_DONE if wants_zero and not summary["needs_attention"] else code


def _report(path: Path, job: Job, server: Server, warn: Callable[[str], None], table: Table | None) -> bool:
    """Writes the page that the job wants; returns whether that succeeded."""
    from batchrun.runs.report.write import write_report

    try:
        write_report(job, path, sandbox=server.sandbox, table=table)
    except BatchrunError as error:
        warn(f"{error}. The run's answers and its exit code stand.")
        return False
    return True


def _tell(job: Job, summary: Summary, key: str | None, warn: Callable[[str], None]) -> None:
    for trouble in _troubles(job, summary, key):
        warn(f"on_finish {trouble}. The run's answers and its exit code stand.")


def _troubles(job: Job, summary: Summary, key: str | None) -> Iterator[str]:
    told = job.on_finish
    if told is None or (told.when == "trouble" and not summary["needs_attention"]):
        return
    body = msgspec.json.format(msgspec.json.encode(payload(job, summary)), indent=2) + b"\n"
    if told.command is not None:
        argv = ["/bin/sh", "-c", told.command] if isinstance(told.command, str) else list(told.command)
        trouble = _run(argv, body, job, _environment(job, summary, key), told.timeout_seconds)
        if trouble is not None:
            yield f"command {trouble}"
    if told.url is not None:
        trouble = post_json(told.url, body, told.timeout_seconds)
        if trouble is not None:
            yield f"url {trouble}"


_KEYS = (
    *("exit_code", "reason", "next_step", "rows", "requests", "tokens", "usd", "credits", "seconds"),
    *("started_at", "finished_at", "this_run", "output", "output_written", "output_unchanged"),
    *("needs_attention", "sandbox"),
    *("abandoned_requests", "last_error", "uncertain_credits_used", "uncertain_freed_usd", "overruns"),
    "adjustments",
    *("reasons", "caching", "labels", "evaluation", "report", *FORMER_KEYS.values()),
)


def payload(job: Job, summary: Summary) -> dict[str, Any]:
    """Returns the summary with the job's name, this machine's name, and a text for chat tools.

    It has the same keys however the run ended: None for what is unknown.
    """
    known = {**dict.fromkeys(_KEYS), **summary}
    return {**known, "job": job_name(job), "host": gethostname(), "text": _text(job_name(job), summary)}


def _text(name: str, summary: Summary) -> str:
    """Returns the reason with the counts of rows and the spend."""
    parts = [f"{name}: {summary['reason']}"]
    if (rows := summary.get("rows")) is not None and rows["ok"] is not None:
        parts.append(f"{rows['ok']:,} of {rows['total']:,} rows ok.")
    if (usd := summary.get("usd")) is not None:
        cap = "" if usd["budget"] is None else f" of {usd['budget']:g}"
        parts.append(f"Spent {usd['settled']:.4g}{cap} USD.")
    if summary["next_step"]:
        parts.append(f"To go on: {summary['next_step']}.")
    return " ".join(parts)


def _environment(job: Job, summary: Summary, key: str | None) -> Mapping[str, str]:
    """Returns this process's variables without the key, whichever holds it, plus a few of the run's own."""
    return without_key(os.environ, job, key) | {
        "BATCHRUN_EXIT_CODE": str(summary["exit_code"]),
        "BATCHRUN_REASON": summary["reason"],
        "BATCHRUN_OUTPUT": summary.get("output") or "",
        "BATCHRUN_SUMMARY": str(RunFolder(run_folder(job)).summary),
    }


def _run(
    argv: list[str], body: bytes, job: Job, environment: Mapping[str, str], timeout: float
) -> str | None:
    """Runs the command; returns what went wrong, None if nothing did."""
    try:
        # In its own session, so that all processes that it started can be ended with it.
        process = subprocess.Popen(  # noqa: S603  # the job's own command
            argv,  # the job's own command
            stdin=subprocess.PIPE,
            stdout=STDERR,
            cwd=job.base,
            env=dict(environment),
            start_new_session=True,
        )
    except OSError as error:
        return f"can't be started: {error.strerror}"
    with process:
        try:
            process.communicate(body, timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return f"took longer than {timeout:g} s and was ended"
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return None if process.returncode == 0 else f"failed with exit code {process.returncode}"
