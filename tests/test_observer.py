"""Observers: who hears of what, in which order, and what an event costs where nobody hears it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batchrun.client.request import Request
from batchrun.client.server import Server
from batchrun.engine.ledger import Cap
from batchrun.exchange import BillingStatus, Response, Waiting
from batchrun.job.file import make_job
from batchrun.rows.observer import EVENTS, AttemptFailed, Observer, RowsScanned, RunStarted, combined
from batchrun.rows.result import RowResult
from batchrun.runs.run import run_job
from batchrun.sandbox import Settings, background
from tests.money.dispatching import Desk
from tests.money.fanout import NANO_USD_PER_TOKEN, answer, failure

WORST_CASE = (100 + 20) * NANO_USD_PER_TOKEN


class Everything(Observer):
    """Keeps each event in a few words."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def run_started(self, event: RunStarted) -> None:
        self.events.append("run started")

    def output_begun(self) -> None:
        self.events.append("output begun")

    def run_ended(self, run: int, summary: Mapping[str, Any]) -> None:
        self.events.append(f"run ended {summary['exit_code']}")

    def close(self) -> None:
        self.events.append("close")

    def rows_scanned(self, event: RowsScanned) -> None:
        self.events.append(f"scanned {event.rows} {event.unsendable} {event.answered} {event.failed}")

    def rows_counted(self, rows: int) -> None:
        self.events.append(f"counted {rows}")

    def request_sent(self, number: int) -> None:
        self.events.append(f"sent {number}")

    def response_received(self, response: Response, tokens: int) -> None:
        self.events.append(f"response {tokens}")

    def attempt_failed(self, event: AttemptFailed) -> None:
        self.events.append(f"failed {event.attempt}{' finally' if event.final else ''}")

    def blocked(self, cap: str | None) -> None:
        self.events.append(f"blocked {cap}")

    def throttled(self, waiting: Waiting | None) -> None:
        self.events.append(f"throttled {None if waiting is None else waiting.by}")

    def stopping(self, reason: str) -> None:
        self.events.append("stopping")

    def row_ended(self, request: Request, result: RowResult) -> None:
        self.events.append(f"row {result.status}")

    def row_shared(self, request: Request, *, ended: bool) -> None:
        self.events.append(f"shared {ended}")


class Closed(Observer):
    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def test_an_event_is_told_to_those_that_override_it_and_calls_nobody_else() -> None:
    """With one of them, what is called is its own method, with no step in between."""
    one, other, all_of_them = Closed(), Closed(), Everything()
    whole = combined([one, combined([other, all_of_them])])
    whole.close()
    assert (one.closed, other.closed, all_of_them.events) == (1, 1, ["close"])
    assert whole.request_sent == all_of_them.request_sent
    silent = combined([one, combined([])])
    assert vars(silent) == {"close": one.close}


def test_nobody_has_to_hear_anything() -> None:
    assert vars(combined([])) == {}
    assert {"run_started", "attempt_failed", "row_ended", "close"} <= set(EVENTS)


def test_what_happens_to_requests_is_heard_in_order() -> None:
    heard = Everything()
    desk = Desk(rows=2, observer=heard, caps=[Cap("budget.usd", "nano_usd", 2 * WORST_CASE - 1)])
    desk.advance()
    desk.commit()
    desk.advance()
    desk.end(failure(billing=BillingStatus.NO), now=1.0)
    desk.advance(now=1.0)
    desk.commit(now=1.0)
    desk.end(answer(60, 15), now=1.0)
    desk.advance(now=9.0)
    desk.commit(now=9.0)
    desk.end(answer(60, 15), now=9.0)
    desk.advance(now=9.0)
    assert heard.events == [
        "blocked budget.usd",
        "blocked None",
        "sent 1",
        "blocked budget.usd",
        "failed 1",
        "blocked None",
        "sent 1",
        "response 75",
        "row ok",
        "sent 2",
        "response 75",
        "row ok",
    ]


def test_a_throttle_is_told_when_it_changes() -> None:
    heard = Everything()
    desk = Desk(rows=3, observer=heard, requests_per_minute=60)
    desk.advance()
    desk.commit()
    for _ in range(5):
        desk.dispatcher.hold(0.1)
    desk.send(desk.dispatcher.release(2.0))
    assert [event for event in heard.events if "throttled" in event] == [
        "throttled rate limit",
        "throttled None",
    ]


def test_a_run_is_heard_from_its_start_to_its_close(tmp_path: Path) -> None:
    """Of four rows one has no valid request, and two are the same."""
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n{"text": "b"}\n{"text": ""}\n')
    job = make_job(
        {
            "input": {"path": "in.jsonl"},
            "prompt": {"template": "{{ text }}"},
            "request": {"model": "abliterated-model", "max_tokens": 9},
            "output": {"path": "out.parquet", "accept": ["truncated"]},
        },
        tmp_path,
        sandbox=True,
    )
    heard = Everything()
    with background(Settings()) as sandbox:
        run_job(job, Server(sandbox.base_url, "key", sandbox=True), observers=[lambda _: heard])
    assert heard.events[:2] == ["run started", "scanned 4 1 0 0"]
    assert heard.events[-3:] == ["output begun", "run ended 3", "close"]
    between = heard.events[2:-3]
    for event, times in {"counted 4": 1, "sent 1": 2, "row ok": 2, "shared False": 1}.items():
        assert between.count(event) == times, event
