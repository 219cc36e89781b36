"""The table [telemetry] of a job file."""

from typing import Annotated

from msgspec import Meta, Struct


class Telemetry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Numbers of runs for monitors."""

    prometheus: Annotated[
        Annotated[str, Meta(pattern=r"\.prom$")] | None,
        Meta(
            description="A file for the textfile collector of Prometheus's node exporter, replaced every "
            "15 s of a run and at its end; see docs/looking.md. Relative to the job file."
        ),
    ] = None
    otlp: Annotated[
        Annotated[str, Meta(pattern=r"^https?://[^\s/?#@]+(/[^\s?#@]*)?$")] | None,
        Meta(
            description="The address of a collector that takes OTLP over HTTP, such as "
            "`http://localhost:4318`: metrics every 15 s of a run, spans at its end; see docs/looking.md."
        ),
    ] = None
