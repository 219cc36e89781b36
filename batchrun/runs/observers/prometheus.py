"""A run's numbers in a file for Prometheus's textfile collector, replaced as a whole."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from batchrun.amounts import NANO
from batchrun.clock import milliseconds
from batchrun.errors import BatchrunError
from batchrun.job.spec import Job
from batchrun.rows.observer import Observer, RunStarted
from batchrun.runs.observers.view import View
from batchrun.tables.atomic import replace_file

SECONDS_BETWEEN_WRITES = 15.0

Metric = tuple[str, str, str, list[tuple[dict[str, str], float]]]
"""Name, kind, help, and samples: labels and value."""
_PLACES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


class PrometheusFile(Observer):
    """Writes the file when the run starts, every 15 s, and with the exit code at its end.

    A write that fails is left out: only the journal counts.
    """

    def __init__(self, view: View, path: Path) -> None:
        self._view = view
        self._path = path
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._end: Mapping[str, Any] = {}
        self._started_at = 0.0

    def run_started(self, event: RunStarted) -> None:
        self._started_at = milliseconds() / 1000
        self._thread = threading.Thread(target=self._write_now_and_then, name="prometheus", daemon=True)
        self._thread.start()

    def run_ended(self, run: int, summary: Mapping[str, Any]) -> None:
        self._end = summary

    def run_failed(self, run: int, error: BatchrunError) -> None:
        self._end = {"exit_code": error.exit_code, "needs_attention": True}

    def close(self) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._write()

    def _write_now_and_then(self) -> None:
        self._write()
        while not self._ended.wait(SECONDS_BETWEEN_WRITES):
            self._write()

    def _write(self) -> None:
        text = as_text(metrics(self._view, self._started_at, self._end), job_name(self._view.job))
        with suppress(OSError):
            replace_file(self._path, text.encode(), mode=0o644)


def job_name(job: Job) -> str:
    """Returns the output's name without its ending, by which monitors tell jobs apart."""
    return Path(job.output.path).stem


def metrics(view: View, started_at: float, end: Mapping[str, Any]) -> list[Metric]:
    """Returns the numbers as they are now. `end` is the summary after the run, or a fault's."""
    progress, ledger, before = view.progress, view.ledger, view.before.spend
    rows, cap = end.get("rows") or progress.rows_so_far(), view.job.budget.nano_usd
    spent = {
        "settled": before.settled.nano_usd + ledger.settled.nano_usd,
        "uncertain": before.uncertain.nano_usd + ledger.uncertain.nano_usd,
        "reserved": ledger.reserved.nano_usd,
    }
    by_status = {status: rows[status] for status in ("ok", "invalid", "failed", "pending")}
    found: list[Metric] = [
        (
            "rows",
            "gauge",
            "Rows by status, as far as the run knows them.",
            _by("status", by_status),
        ),
        ("spend_usd", "gauge", "USD over the life of the journal.", _by("state", spent, NANO)),
        ("requests_total", "counter", "Requests sent by this run.", [({}, progress.requests)]),
        ("retries_total", "counter", "Of these, requests sent again.", [({}, progress.retried)]),
        ("failed_attempts_total", "counter", "Attempts without an answer.", _by("code", progress.by_error)),
        (
            "tokens_total",
            "counter",
            "Tokens of this run's answers, input and output.",
            [({}, progress.tokens)],
        ),
        ("in_flight", "gauge", "Requests in flight.", [({}, progress.in_flight)]),
        ("started_timestamp_seconds", "gauge", "When the last run started.", [({}, started_at)]),
        ("running", "gauge", "1 while the run is going on.", [({}, not end)]),
    ]
    if cap is not None:
        found.append(("budget_usd", "gauge", "The cap budget.usd.", [({}, cap / NANO)]))
    if progress.scored:
        found.append(("score", "gauge", "Mean score so far.", [({}, progress.score_sum / progress.scored)]))
    texts = {"exit_code": "Exit code of the last run.", "needs_attention": "1 where a person has to act."}
    found += [(name, "gauge", texts[name], [({}, value)]) for name, value in end.items() if name in texts]
    return found


def _by(label: str, values: Mapping[str, int | None], unit: int = 1) -> list[tuple[dict[str, str], float]]:
    now = dict(values)  # in one step: the run's own thread adds to them
    return [({label: name}, value / unit) for name, value in now.items() if value is not None]


def as_text(found: list[Metric], output: str) -> str:
    """Returns metrics in Prometheus's text format, each labeled with the `output`: `job` is Prometheus's own.

    Source: https://prometheus.io/docs/instrumenting/exposition_formats/
    """
    return "".join(line for metric in found for line in _lines(*metric, output))


def _lines(
    name: str, kind: str, text: str, samples: list[tuple[dict[str, str], float]], output: str
) -> Iterator[str]:
    yield f"# HELP batchrun_{name} {text}\n# TYPE batchrun_{name} {kind}\n"
    for labels, value in samples:
        named = {"output": output, **labels}
        pairs = ",".join(f'{key}="{shown.translate(_PLACES)}"' for key, shown in named.items())
        yield f"batchrun_{name}{{{pairs}}} {float(value):.15g}\n"
