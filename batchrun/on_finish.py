"""Who is told when a run has ended: the job's `on_finish`, a command or a URL.

Whatever goes wrong here is said, and changes neither answers nor the exit code.
"""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from batchrun.errors import BatchrunError, LockedError
from batchrun.job import Job, run_folder
from batchrun.pipeline import run_job
from batchrun.run_folder import RunFolder
from batchrun.summary import Summary
from batchrun.target import Target
from batchrun.wire.webhook import post_json

STDERR = 2
"""Standard output belongs to the JSON of --json."""


def run_and_tell(job: Job, target: Target, complain: Callable[[str], None], **options: Any) -> Summary:
    """`run_job`, and then `on_finish`; `complain` gets a line for each way that it went wrong.

    A fault is told of too, by its exit code and reason. Where another run holds the lock, that run tells; a
    run that was ended at once tells nobody.
    """
    try:
        summary = run_job(job, target, **options)
    except LockedError:
        raise
    except BatchrunError as error:
        fault = {"exit_code": error.exit_code, "reason": str(error), "go_on": None, "needs_person": True}
        _tell(job, fault, target.api_key, complain)
        raise
    if summary["output_written"]:
        _tell(job, summary, target.api_key, complain)
    return summary


def _tell(job: Job, summary: Summary, key: str | None, complain: Callable[[str], None]) -> None:
    for trouble in _troubles(job, summary, key):
        complain(f"on_finish {trouble}. The run's answers and its exit code stand.")


def _troubles(job: Job, summary: Summary, key: str | None) -> Iterator[str]:
    told = job.on_finish
    if told is None or (told.when == "trouble" and not summary["needs_person"]):
        return
    body = msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n"
    if told.command is not None:
        argv = ["/bin/sh", "-c", told.command] if isinstance(told.command, str) else list(told.command)
        trouble = _run(argv, body, job, _environment(job, summary, key), told.timeout_seconds)
        if trouble is not None:
            yield f"command {trouble}"
    if told.url is not None:
        trouble = post_json(told.url, body, told.timeout_seconds)
        if trouble is not None:
            yield f"url {trouble}"


def _environment(job: Job, summary: Summary, key: str | None) -> Mapping[str, str]:
    """This process's variables without the key, whatever variable holds it, and a few of the run's own."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name != job.endpoint.api_key_env and (not key or key not in value)
    }
    return kept | {
        "BATCHRUN_EXIT_CODE": str(summary["exit_code"]),
        "BATCHRUN_REASON": summary["reason"],
        "BATCHRUN_OUTPUT": summary.get("output") or "",
        "BATCHRUN_SUMMARY": str(RunFolder(run_folder(job)).summary),
    }


def _run(
    argv: list[str], body: bytes, job: Job, environment: Mapping[str, str], timeout: float
) -> str | None:
    """What went wrong with the command, None if nothing did."""
    try:
        # In a session of its own, so that all that it started can be ended with it.
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
