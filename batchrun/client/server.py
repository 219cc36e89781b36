"""Opens a run's server: the job's endpoint, or a sandbox or a model on this machine in its place."""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from batchrun.errors import UsageError
from batchrun.job.credentials import api_key
from batchrun.job.presets import SANDBOX_KEY
from batchrun.job.spec import Job
from batchrun.labels.examples import example_labels

if TYPE_CHECKING:
    from batchrun.sandbox import Settings

LOCAL_MODEL = "SmolLM2-135M-Instruct"
# The model takes one request at a time: with more than a few waiting, the rest would time out.
LOCAL_OVERRIDES = (
    'endpoint={preset="local"}',
    "pricing={}",
    f"request.model={json.dumps(LOCAL_MODEL)}",
    "limits.concurrency=4",
)
"""The overrides, as `--set` takes them, that adapt a job to the model on this machine."""


@dataclass(frozen=True, slots=True)
class Server:
    """The server of a run. `sandbox`: no model responds there and nothing is paid."""

    base_url: str
    api_key: str | None = field(repr=False)
    sandbox: bool = False


def endpoint_of(job: Job, environ: Mapping[str, str], key: str | None = None) -> Server:
    """Returns the job's endpoint, with the given key or the job's. Raises JobError without one."""
    return Server(job.endpoint.base_url, api_key(job, environ, key))


@contextmanager
def sandbox_for(job: Job, settings: "Settings") -> Iterator[Server]:
    """Runs a sandbox during the block. Raises UsageError for a wrong reply file.

    Without a reply file it answers a job that has labels with made-up labels.
    """
    if job.labels is not None and not settings.replies and not settings.real and not settings.answers:
        settings = replace(settings, answers=example_labels(job.labels))
    with _running(settings) as base_url:
        yield Server(base_url, None if job.request.free_tier else SANDBOX_KEY, sandbox=True)


@contextmanager
def local_model() -> Iterator[Server]:
    """Runs the model on this machine during the block. Raises UsageError where it isn't installed."""
    from batchrun.sandbox import Settings

    # The journal would count the sandbox's invented charges as real ones.
    with _running(Settings(real=True, cost_fields="absent")) as base_url:
        yield Server(base_url, None)


@contextmanager
def _running(settings: "Settings") -> Iterator[str]:
    from batchrun.sandbox import SettingsError, background

    with ExitStack() as stack:
        try:
            sandbox = stack.enter_context(background(settings))
        except SettingsError as error:
            raise UsageError(str(error)) from None
        yield sandbox.base_url
