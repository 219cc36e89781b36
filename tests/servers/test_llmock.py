"""LLMock grades how a client copes with refusals and broken streams: not even a warning may come of it."""

import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.servers.conftest import SERVERS, Ran, reviews, run

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]

Behavior = dict[str, Any]


def run_against(llmock: str, folder: Path, behaviors: list[Behavior], *settings: str) -> Ran:
    """Runs a job over the scripted faults."""
    scripted = httpx.post(f"{llmock}/_llmock/scenario", json={"behaviors": behaviors})
    assert scripted.status_code == 201, scripted.text
    return run(folder, reviews(12), f"endpoint.base_url={llmock}/anthropic", "request.model=m", *settings)


def label_result(llmock: str) -> str:
    """What `llmock report` says; fails unless it found neither error nor warning."""
    report = subprocess.run(
        [SERVERS / "llmock", "report", "--strict", "--url", llmock], capture_output=True, text=True
    )
    assert report.returncode == 0, report.stdout + report.stderr
    return report.stdout


def test_refusals_that_pass_are_waited_out(llmock: str, tmp_path: Path) -> None:
    """Retry-After is kept, 5xx are retried with growing pauses, and every row gets its answer."""
    faults = [
        {"type": "fail", "status": 429, "retry_after": 1, "times": 2},
        {"type": "fail", "status": 500, "times": 2},
        {"type": "fail", "status": 503, "times": 1},
        {"type": "fail", "status": 529, "times": 3},
    ]
    ran = run_against(llmock, tmp_path, faults)
    assert ran.code == 0, ran.messages
    assert ran.summary["requests"]["retried"] == 8
    assert "PASS" in label_result(llmock)


@pytest.mark.parametrize("status", [400, 422])
def test_a_refused_row_is_not_asked_again(llmock: str, tmp_path: Path, status: int) -> None:
    ran = run_against(llmock, tmp_path, [{"type": "fail", "status": status, "times": 2}])
    assert ran.code == 3, ran.messages
    assert ran.summary["rows"]["failed"] == 2
    assert "PASS" in label_result(llmock)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refused_run_stops(llmock: str, tmp_path: Path, status: int) -> None:
    ran = run_against(llmock, tmp_path, [{"type": "fail", "status": status, "times": None}])
    assert ran.code == 5, ran.messages
    assert "PASS" in label_result(llmock)


def test_broken_streams_are_no_answers(llmock: str, tmp_path: Path) -> None:
    """Cut off, ended early without a word, corrupted, or silent: the row is asked again each time."""
    faults = [
        {"type": "stream_fault", "kind": "disconnect", "after_chunks": 3, "times": 2},
        {"type": "stream_fault", "kind": "truncate", "after_chunks": 3, "times": 2},
        # In a piece of the text. Two chunks earlier it would strike a ping, and nothing would be lost.
        {"type": "stream_fault", "kind": "malformed", "after_chunks": 4, "times": 2},
        {"type": "stream_fault", "kind": "stall", "stall_seconds": 20, "after_chunks": 2, "times": 2},
    ]
    ran = run_against(
        llmock,
        tmp_path,
        faults,
        "request.stream=true",
        "endpoint.idle_timeout_seconds=1",
        "retry.max_attempts=10",
    )
    assert ran.code == 0, ran.messages
    assert ran.summary["requests"]["retried"] == 8
    codes = {"broken_answer": 2, "connection_lost": 2, "idle_timeout": 2, "stream_ended_early": 2}
    assert ran.summary["requests"]["by_error"] == codes
    assert "PASS" in label_result(llmock)


def test_slow_answers_are_waited_for(llmock: str, tmp_path: Path) -> None:
    """A late beginning and a late first token are no reason to ask again."""
    faults = [
        {"type": "delay", "seconds": 1.5, "times": 3},
        {"type": "slow_first_token", "seconds": 1.5, "times": 3},
    ]
    ran = run_against(llmock, tmp_path, faults, "request.stream=true")
    assert ran.code == 0, ran.messages
    assert ran.summary["requests"]["retried"] == 0
    assert "PASS" in label_result(llmock)
