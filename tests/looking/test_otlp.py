"""Metrics and spans for a collector, which is a small HTTP server here."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import batchrun
from batchrun.errors import JobError, UsageError
from batchrun.exchange import Completion, Response
from batchrun.job.file import make_job
from batchrun.rows.observer import RunStarted
from batchrun.runs.observers import telemetry
from tests.looking.conftest import TABLES

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs batchrun-llm[otel]")

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from batchrun.runs.observers import otlp
from batchrun.runs.observers.otlp import Buckets, Series


@dataclass
class Collector:
    """What a collector was sent, decoded; `delay` is how long it takes for an answer, in seconds."""

    address: str = ""
    delay: float = 0.0
    metrics: list[Any] = field(default_factory=list)
    spans: list[Any] = field(default_factory=list)

    def last(self, name: str) -> Any:
        """A metric as it was sent last."""
        return next(each for each in reversed(self.metrics) if each.name == name)

    def take(self, path: str, body: bytes) -> None:
        time.sleep(self.delay)
        if path.endswith("/v1/metrics"):
            sent = ExportMetricsServiceRequest.FromString(body)
            scopes = [scope for resource in sent.resource_metrics for scope in resource.scope_metrics]
            self.metrics += [metric for scope in scopes for metric in scope.metrics]
        elif path.endswith("/v1/traces"):
            traced = ExportTraceServiceRequest.FromString(body)
            spans = [scope for resource in traced.resource_spans for scope in resource.scope_spans]
            self.spans += [span for scope in spans for span in scope.spans]


@pytest.fixture
def collector() -> Iterator[Collector]:
    taken = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken.take(self.path, self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    taken.address = f"http://127.0.0.1:{server.server_address[1]}"
    yield taken
    server.shutdown()
    thread.join()
    server.server_close()


def values(attributes: Any) -> dict[str, Any]:
    """The attributes of a protobuf message, as plain values."""
    found = {}
    for each in attributes:
        kind = each.value.WhichOneof("value")
        value = getattr(each.value, kind)
        found[each.key] = [item.string_value for item in value.values] if kind == "array_value" else value
    return found


def run(folder: Path, address: str, rows: int = 0) -> dict[str, Any]:
    texts = ["one", "two", "three", "[sandbox:flag hate]", *(f"more {row}" for row in range(rows))]
    given = {name: table for name, table in TABLES.items() if name not in ("input", "evaluation", "labels")}
    job = given | {"output": {"path": str(folder / "out.parquet")}, "telemetry": {"otlp": address}}
    result = batchrun.run(job, input=pl.DataFrame({"text": texts}), sandbox=True)
    return dict(result.summary)


def test_a_collector_gets_the_numbers_of_the_summary(tmp_path: Path, collector: Collector) -> None:
    summary = run(tmp_path, collector.address, rows=20)
    duration, usage = (
        collector.last(f"gen_ai.client.{name}").histogram for name in ("operation.duration", "token.usage")
    )
    by_error = {values(point.attributes).get("error.type"): point.count for point in duration.data_points}
    assert by_error == {None: 23, "content_flagged": 1}
    common = values(duration.data_points[0].attributes)
    assert common["gen_ai.operation.name"] == "chat"
    assert common["gen_ai.provider.name"] == "anthropic"
    assert common["gen_ai.request.model"] == "abliterated-model"
    assert (common["server.address"], common["server.port"] > 0) == ("127.0.0.1", True)
    tokens = {values(point.attributes)["gen_ai.token.type"]: point for point in usage.data_points}
    assert {kind: point.sum for kind, point in tokens.items()} == summary["tokens"]
    assert all(sum(point.bucket_counts) == point.count == 23 for point in tokens.values())
    rows = {
        values(each.attributes)["status"]: each.as_double
        for each in collector.last("batchrun.rows").gauge.data_points
    }
    assert rows == {status: summary["rows"][status] for status in ("ok", "invalid", "failed", "pending")}
    (code,) = collector.last("batchrun.exit_code").gauge.data_points
    assert code.as_double == summary["exit_code"] == 3


def test_every_failure_and_one_answer_in_a_hundred_are_spans_with_the_journals_times(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otlp, "EVERY", 10)
    run(tmp_path, collector.address, rows=36)
    (whole,) = (span for span in collector.spans if span.name == "batchrun run")
    attempts = [span for span in collector.spans if span.name == "chat abliterated-model"]
    assert {span.trace_id for span in collector.spans} == {whole.trace_id}
    assert {span.parent_span_id for span in attempts} == {whole.span_id}
    by_outcome: dict[str, list[Any]] = {}
    for span in attempts:
        by_outcome.setdefault(values(span.attributes)["batchrun.outcome"], []).append(span)
        assert whole.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
    (failed,) = by_outcome["refused"]
    assert (values(failed.attributes)["error.type"], failed.status.code) == ("content_flagged", 2)
    assert len(by_outcome["answered"]) in (4, 5), "40 attempts, one of each ten numbers"
    known = values(by_outcome["answered"][0].attributes)
    assert known["gen_ai.response.finish_reasons"] == ["end_turn"]
    assert known["gen_ai.usage.input_tokens"] > 0
    assert known["gen_ai.response.id"].startswith("msg_")


def test_no_prompt_and_no_answer_is_sent(tmp_path: Path, collector: Collector) -> None:
    run(tmp_path, collector.address)
    sent = str([*collector.spans, *collector.metrics])
    assert "[sandbox:flag" not in sent
    answers = pl.read_parquet(tmp_path / "out.parquet")["output"].drop_nulls()
    assert len(answers) == 3
    assert not any(answer in sent for answer in answers)


def test_metrics_are_sent_while_the_run_is_going_on(
    collector: Collector, view: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otlp, "SECONDS_BETWEEN_EXPORTS", 0.01)
    observer = otlp.OtlpExport(view, collector.address)
    observer.response_received(Response(b"", 10, 20, latency=0.5, completion=Completion("x")), 30)
    observer.run_started(RunStarted(1, sandbox=True, rows=3))
    until = time.monotonic() + 10
    while not any(each.name == "gen_ai.client.operation.duration" for each in collector.metrics):
        assert time.monotonic() < until
        time.sleep(0.01)
    observer.close()


@pytest.mark.parametrize("trouble", ["nobody listens", "never answers"])
def test_a_dead_collector_changes_nothing_but_seconds_at_the_end(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch, trouble: str, capfd: Any
) -> None:
    monkeypatch.setattr(otlp, "SECONDS_TO_EXPORT", 0.2)
    monkeypatch.setattr(otlp, "SECONDS_AT_THE_END", 1.0)
    address = "http://127.0.0.1:9" if trouble == "nobody listens" else collector.address
    collector.delay = 3.0
    began = time.monotonic()
    summary = run(tmp_path, address)
    assert summary["rows"]["ok"] == 3
    assert time.monotonic() - began < 30
    assert "telemetry" not in capfd.readouterr().err.lower()


def test_a_value_on_a_bound_is_in_the_bucket_below_it() -> None:
    buckets = Buckets((1, 4, 16))
    for value in (0, 1, 2, 4, 5, 100):
        buckets.add(value)
    assert buckets.counts == [2, 2, 1, 1]
    assert (buckets.total, buckets.lowest, buckets.highest) == (112, 0, 100)


def test_names_that_a_server_makes_up_do_not_make_series_without_end() -> None:
    series = Series((1,), ("error.type",))
    for number in range(10_000):
        series.add(1.0, f"code {number}")
    points = series.points({}, 0, 1)
    assert len(points) == otlp.MOST_SERIES + 1
    assert sum(point.count for point in points) == 10_000


def test_without_the_packages_the_run_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telemetry, "_is_installed", lambda: False)
    with pytest.raises(UsageError, match=r"pip install 'batchrun-llm\[otel\]'"):
        run(tmp_path, "http://127.0.0.1:9")


@pytest.mark.parametrize("address", ["localhost:4318", "http://user:secret@host", "http://a.test/?key=1"])
def test_an_address_that_can_not_be_used_or_holds_a_secret_is_refused(address: str) -> None:
    with pytest.raises(JobError, match="otlp"):
        make_job(TABLES | {"telemetry": {"otlp": address}}, Path("/tmp"))
