"""The server of a run: the job's endpoint, or a sandbox or a model on this machine in its place."""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from batchrun.errors import UsageError
from batchrun.job import Job
from batchrun.job.credentials import api_key

if TYPE_CHECKING:
    from batchrun.sandbox import Settings

SANDBOX_KEY = "sandbox-key"
LOCAL_MODEL = "SmolLM2-135M-Instruct"
# The model takes one request at a time: more than a few that wait for it would only time out.
LOCAL_OVERRIDES = (
    'endpoint={preset="local"}',
    "pricing={}",
    f"request.model={json.dumps(LOCAL_MODEL)}",
    "limits.concurrency=4",
)
"""What a job becomes for the model on this machine, as `--set` takes it."""


@dataclass(frozen=True, slots=True)
class Target:
    """The server of this run. `sandbox` says that no model answers there and nothing is paid."""

    base_url: str
    api_key: str | None = field(repr=False)
    sandbox: bool = False


def endpoint_of(job: Job, environ: Mapping[str, str], key: str | None = None) -> Target:
    """The job's endpoint, with the given key or the one that the job names. Raises JobError without one."""
    return Target(job.endpoint.base_url, api_key(job, environ, key))


@contextmanager
def sandbox_for(job: Job, settings: "Settings") -> Iterator[Target]:
    """A sandbox that lives as long as the block. Raises UsageError for a wrong reply file."""
    with _running(settings) as base_url:
        yield Target(base_url, None if job.request.free_tier else SANDBOX_KEY, sandbox=True)


@contextmanager
def local_model() -> Iterator[Target]:
    """The model on this machine, as long as the block lasts. Raises UsageError where it isn't installed."""
    from batchrun.sandbox import Settings

    # The sandbox's make-believe charges would stand in the journal as real ones.
    with _running(Settings(real=True, cost_fields="absent")) as base_url:
        yield Target(base_url, None)


@contextmanager
def _running(settings: "Settings") -> Iterator[str]:
    from batchrun.sandbox import SettingsError, background

    with ExitStack() as stack:
        try:
            sandbox = stack.enter_context(background(settings))
        except SettingsError as error:
            raise UsageError(str(error)) from None
        yield sandbox.base_url
