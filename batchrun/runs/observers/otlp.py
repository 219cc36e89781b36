"""A run's metrics and spans for a collector, by OTLP over HTTP. All that knows OpenTelemetry is here.

The names are those that opentelemetry-util-genai 1.3 uses. Attempts are counted in buckets of this module,
since the SDK's instruments cost as much as the rest of a row; the official exporter encodes and sends them.
"""

import logging
import secrets
import threading
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from itertools import chain, islice
from typing import Any
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from batchrun.client.messages.response import read_completion
from batchrun.clock import milliseconds
from batchrun.errors import BatchrunError
from batchrun.exchange import Response
from batchrun.job.spec import run_folder
from batchrun.journal import open_for_reading
from batchrun.journal.records import AttemptRow
from batchrun.journal.traced import failures_of, some_answers_of
from batchrun.rows.observer import AttemptFailed, Observer, RunStarted
from batchrun.runs.observers.prometheus import job_name, metrics
from batchrun.runs.observers.view import View
from batchrun.runs.run_folder import RunFolder
from batchrun.version import __version__

SECONDS_BETWEEN_EXPORTS = 15.0
SECONDS_TO_EXPORT = 3.0
"""A collector that takes longer misses that export."""
SECONDS_AT_THE_END = 10.0
"""For the last metrics and all spans: after that the run ends without them."""
EVERY = 100
"""One answer of so many becomes a span."""
SPANS_IN_A_REQUEST = 512
MOST_SERIES = 100
"""Series of one metric: error codes and names of models come from the server."""

SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
"""Bounds of the buckets of the conventions."""
OPERATION = "chat"
PROVIDER = "anthropic"
"""Whose format is spoken; who answers is in server.address."""
OTHER = "_OTHER"

_SCOPE = InstrumentationScope("batchrun", __version__)
_MILLISECOND = 10**6  # nanoseconds

logging.getLogger("opentelemetry").addHandler(logging.NullHandler())  # else its errors disturb the display


class Buckets:
    """A histogram: `counts` has one number more than `bounds`; a value on a bound is below it."""

    __slots__ = ("bounds", "counts", "highest", "lowest", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        self.lowest, self.highest = float("inf"), float("-inf")

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value
        if value < self.lowest:
            self.lowest = value
        if value > self.highest:
            self.highest = value


class Series:
    """Buckets by the values of the attributes `names`."""

    def __init__(self, bounds: Sequence[float], names: tuple[str, ...]) -> None:
        self._bounds = bounds
        self._names = names
        self._buckets: dict[tuple[str | None, ...], Buckets] = {}

    def add(self, value: float, *attributes: str | None) -> None:
        buckets = self._buckets.get(attributes)
        if buckets is None:
            if len(self._buckets) >= MOST_SERIES:
                attributes = tuple(None if each is None else OTHER for each in attributes)
            buckets = self._buckets.setdefault(attributes, Buckets(self._bounds))
        buckets.add(value)

    def points(self, common: Mapping[str, Any], start: int, now: int) -> list[HistogramDataPoint]:
        found = []
        for attributes, buckets in list(self._buckets.items()):
            counts = buckets.counts.copy()  # the run's thread goes on counting
            named = zip(self._names, attributes, strict=True)
            found.append(
                HistogramDataPoint(
                    {**common, **{name: value for name, value in named if value is not None}},
                    start,
                    now,
                    sum(counts),
                    buckets.total,
                    counts,
                    self._bounds,
                    buckets.lowest,
                    buckets.highest,
                )
            )
        return found


class OtlpExport(Observer):
    """Sends metrics every 15 s and at the end, then the spans. What can't be sent is left out."""

    def __init__(self, view: View, address: str) -> None:
        self._view = view
        base = address.rstrip("/")
        self._metrics = OTLPMetricExporter(f"{base}/v1/metrics", timeout=SECONDS_TO_EXPORT)
        self._spans = OTLPSpanExporter(f"{base}/v1/traces", timeout=SECONDS_TO_EXPORT)
        self._durations = Series(SECONDS, ("gen_ai.response.model", "error.type"))
        self._first_chunks = Series(SECONDS, ("gen_ai.response.model",))
        self._tokens = Series(TOKENS, ("gen_ai.response.model", "gen_ai.token.type"))
        self._common = _common_attributes(view)
        self._resource = _resource(view)
        self._run = 0
        self._started_at = milliseconds()
        self._end: Mapping[str, Any] = {}
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def run_started(self, event: RunStarted) -> None:
        self._run = event.run
        self._started_at = milliseconds()
        self._thread = threading.Thread(target=self._export_now_and_then, name="otlp", daemon=True)
        self._thread.start()

    def response_received(self, response: Response, tokens: int) -> None:
        model = response.completion.response_model
        self._durations.add(response.latency, model, None)
        if response.first_token_latency is not None:
            self._first_chunks.add(response.first_token_latency, model)
        if response.input_tokens is not None and response.output_tokens is not None:
            self._tokens.add(response.input_tokens, model, "input")
            self._tokens.add(response.output_tokens, model, "output")

    def attempt_failed(self, event: AttemptFailed) -> None:
        self._durations.add(event.failure.latency, None, event.failure.code)

    def run_ended(self, run: int, summary: Mapping[str, Any]) -> None:
        self._end = summary

    def run_failed(self, run: int, error: BatchrunError) -> None:
        self._end = {"exit_code": error.exit_code, "needs_attention": True, "reason": str(error)}

    def close(self) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join(SECONDS_AT_THE_END)

    def _export_now_and_then(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN_EXPORTS):
            self._export_metrics()
        if self._export_metrics():
            self._export_spans()
        self._metrics.shutdown()
        self._spans.shutdown()

    def _export_metrics(self) -> bool:
        """Returns whether the collector took them."""
        start, now = self._started_at * _MILLISECOND, milliseconds() * _MILLISECOND
        found = [*self._client_metrics(start, now), *self._run_metrics(start, now)]
        scoped = ResourceMetrics(self._resource, [ScopeMetrics(_SCOPE, found, "")], "")
        return self._metrics.export(MetricsData([scoped])) is MetricExportResult.SUCCESS

    def _client_metrics(self, start: int, now: int) -> list[Metric]:
        found = (
            ("operation.duration", "s", "Duration of GenAI client operation", self._durations),
            ("token.usage", "{token}", "Number of input and output tokens used", self._tokens),
            ("operation.time_to_first_chunk", "s", "Time to receive the first chunk", self._first_chunks),
        )
        return [
            Metric(f"gen_ai.client.{name}", text, unit, _cumulative(points))
            for name, unit, text, series in found
            if (points := series.points(self._common, start, now))
        ]

    def _run_metrics(self, start: int, now: int) -> list[Metric]:
        """Returns what the file for Prometheus has, by OpenTelemetry's rules for names."""
        found = []
        for name, kind, text, samples in metrics(self._view, self._started_at / 1000, self._end):
            points = [NumberDataPoint(labels, start, now, float(value)) for labels, value in samples]
            unit = "USD" if name.endswith("_usd") else "s" if name.endswith("_seconds") else "1"
            data = (
                Sum(points, AggregationTemporality.CUMULATIVE, is_monotonic=True)
                if kind == "counter"
                else Gauge(points)
            )
            found.append(Metric(f"batchrun.{name.removesuffix('_total')}", text, unit, data))
        return found

    def _export_spans(self) -> None:
        try:
            made = self._made_spans()
            while spans := list(islice(made, SPANS_IN_A_REQUEST)):
                if self._spans.export(spans) is not SpanExportResult.SUCCESS:
                    return
        except BatchrunError:  # the journal is damaged: the run itself says so
            return

    def _made_spans(self) -> Iterator[ReadableSpan]:
        """Yields the run's span and, as its children, those of its attempts."""
        trace = secrets.randbits(128) or 1
        run = _context(trace)
        code = self._end.get("exit_code")
        status = Status(StatusCode.ERROR, self._end.get("reason")) if code else Status(StatusCode.OK)
        attributes = {"batchrun.run": self._run, **({} if code is None else {"batchrun.exit_code": code})}
        yield self._span("batchrun run", run, None, attributes, status, (self._started_at, milliseconds()))
        with closing(open_for_reading(RunFolder(run_folder(self._view.job)).journal)) as journal:
            rows = chain(failures_of(journal, self._run), some_answers_of(journal, self._run, EVERY))
            for row in rows:
                yield self._attempt_span(row, trace, run)

    def _attempt_span(self, row: AttemptRow, trace: int, run: SpanContext) -> ReadableSpan:
        attributes = self._common | _attempt_attributes(row)
        failed = row.response is None
        status = Status(StatusCode.ERROR, row.error) if failed else Status(StatusCode.UNSET)
        sent_at = row.started_at if row.latency_ms is None else row.finished_at - row.latency_ms
        name = f"{OPERATION} {self._common['gen_ai.request.model']}"
        times = (max(sent_at, row.started_at), row.finished_at)
        return self._span(name, _context(trace), run, attributes, status, times, SpanKind.CLIENT)

    def _span(
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        attributes: Mapping[str, Any],
        status: Status,
        times: tuple[float, float],
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> ReadableSpan:
        """`times` are milliseconds since 1970 UTC."""
        start, end = (round(time * _MILLISECOND) for time in times)
        return ReadableSpan(
            name,
            context,
            parent,
            self._resource,
            attributes,
            kind=kind,
            status=status,
            start_time=start,
            end_time=end,
            instrumentation_scope=_SCOPE,
        )


def _resource(view: View) -> Resource:
    """Returns the run's resource; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win."""
    own: dict[str, Any] = {
        "service.name": "batchrun",
        "service.version": __version__,
        "batchrun.output": job_name(view.job),
        "batchrun.sandbox": view.server.sandbox,
    }
    return Resource(own).merge(OTELResourceDetector().detect())


def _common_attributes(view: View) -> dict[str, Any]:
    server = urlsplit(view.server.base_url)
    return {
        "gen_ai.operation.name": OPERATION,
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": view.job.request.model,
        "server.address": server.hostname or "",
        "server.port": server.port or (443 if server.scheme == "https" else 80),
    }


def _attempt_attributes(row: AttemptRow) -> dict[str, Any]:
    """Returns what is known of an attempt, without prompt and answer."""
    known: dict[str, Any] = {
        "batchrun.run": row.run,
        "batchrun.attempt": row.attempt,
        "batchrun.outcome": row.outcome,
        "gen_ai.usage.input_tokens": row.input_tokens,
        "gen_ai.usage.output_tokens": row.output_tokens,
        "http.response.status_code": row.http_status,
        "error.type": row.error_code,
    }
    if row.first_token_ms is not None:
        known["gen_ai.response.time_to_first_chunk"] = row.first_token_ms / 1000
    if row.response is not None:
        completion = read_completion(row.response, row.run)
        known["gen_ai.response.id"] = completion.response_id
        known["gen_ai.response.model"] = completion.response_model
        if completion.stop_reason is not None:
            known["gen_ai.response.finish_reasons"] = [completion.stop_reason]
        known["gen_ai.usage.cache_read.input_tokens"] = completion.cache.read or None
    return {name: value for name, value in known.items() if value is not None}


def _context(trace: int) -> SpanContext:
    return SpanContext(trace, secrets.randbits(64) or 1, is_remote=False, trace_flags=TraceFlags(1))


def _cumulative(points: Sequence[HistogramDataPoint]) -> Histogram:
    return Histogram(points, AggregationTemporality.CUMULATIVE)
