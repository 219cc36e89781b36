"""The observers that a job's table [telemetry] wants."""

from importlib.util import find_spec
from typing import TYPE_CHECKING

from batchrun.errors import UsageError
from batchrun.job.spec import Job
from batchrun.runs.observers.prometheus import PrometheusFile
from batchrun.runs.observers.view import MakeObserver, View
from batchrun.runs.paths import prometheus_file

if TYPE_CHECKING:
    from batchrun.runs.observers.otlp import OtlpExport


def telemetry_observers(job: Job) -> list[MakeObserver]:
    """Returns what the job's [telemetry] wants."""
    wanted: list[MakeObserver] = []
    if (path := prometheus_file(job)) is not None:
        wanted.append(lambda view: PrometheusFile(view, path))
    if (address := job.telemetry.otlp) is not None:

        def export(view: View) -> "OtlpExport":
            from batchrun.runs.observers.otlp import OtlpExport  # needs packages that most have not

            return OtlpExport(view, address)

        wanted.append(export)
    return wanted


def check_telemetry(job: Job) -> None:
    """Raises UsageError if the packages are missing that [telemetry] otlp needs."""
    if job.telemetry.otlp is not None and not _is_installed():
        raise UsageError(
            "[telemetry] otlp: sent by OpenTelemetry's exporter. Install it: pip install 'batchrun-llm[otel]'"
        )


def _is_installed() -> bool:
    try:
        return find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:  # a package above it is missing
        return False
