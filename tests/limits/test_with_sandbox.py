"""Limits of a real server, met by whole runs. What measures seconds is slow; each has a quicker sister."""

from pathlib import Path
from typing import Any

import pytest

from batchrun.sandbox import Settings, background
from tests.limits.whole_runs import arrivals, meanwhile, run, statuses

# Given limits.


def test_a_given_limit_is_kept_in_every_second(tmp_path: Path) -> None:
    """The server counts seconds and not minutes. It takes twice as much, since a busy machine wakes late."""
    with background(Settings(rpm=21_600, limit_window=1.0, limit_headers=False, latency=0.05)) as sandbox:
        run(tmp_path, sandbox, 540, limits={"requests_per_minute": 10_800})
    arrived = arrivals(sandbox)
    assert arrived.refused == 0
    assert 0.8 <= arrived.share_used(10_800) <= 1.05


def test_a_given_limit_is_kept_over_all_workers(tmp_path: Path) -> None:
    with background(Settings(rpm=21_600, limit_window=1.0, limit_headers=False, latency=0.05)) as sandbox:
        run(
            tmp_path,
            sandbox,
            540,
            limits={"requests_per_minute": 10_800},
            workers={"kind": "local", "count": 3},
        )
    arrived = arrivals(sandbox)
    assert arrived.refused == 0
    assert 0.8 <= arrived.share_used(10_800) <= 1.05


@pytest.mark.slow  # measures seconds: nothing else may take the processor
def test_a_given_limit_is_used_to_99_percent_without_a_429(tmp_path: Path) -> None:
    """For some seconds at 12,000 a minute."""
    with background(Settings(rpm=12_000, latency=0.05, latency_sigma=0.5)) as sandbox:
        run(tmp_path, sandbox, 1_400, limits={"requests_per_minute": 12_000})
    arrived = arrivals(sandbox)
    assert arrived.refused == 0
    assert arrived.share_used(12_000) >= 0.99


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_given_requests_are_kept_over_minutes(tmp_path: Path) -> None:
    """Over several of the server's windows; the limit on tokens is wide enough to make no difference."""
    with background(Settings(rpm=6_000, tpm=1_000_000, latency=0.5, latency_sigma=0.5)) as sandbox:
        limits = {"requests_per_minute": 6_000, "tokens_per_minute": 1_000_000}
        run(tmp_path, sandbox, 15_000, limits=limits)
    arrived = arrivals(sandbox)
    assert arrived.refused == 0
    assert 0.99 <= arrived.share_used(6_000) <= 1.005


@pytest.mark.slow  # a late wake-up is made good at once: nothing else may take the processor
@pytest.mark.timeout(400)
def test_given_tokens_are_kept_over_minutes(tmp_path: Path) -> None:
    """Answers have 8 to 64 tokens, and nobody knows beforehand how many."""
    limits = {"tokens_per_minute": 200_000}
    with background(Settings(tpm=200_000, limit_headers=False, latency=0.5, latency_sigma=0.5)) as sandbox:
        run(tmp_path, sandbox, 15_000, max_tokens=64, limits=limits)
    arrived = arrivals(sandbox)
    assert arrived.refused == 0
    assert 0.99 <= arrived.share_used(200_000, tokens=True) <= 1.005


# Limits that the job doesn't name.


@pytest.mark.slow  # measures seconds: nothing else may take the processor
def test_a_limit_in_headers_is_kept_without_a_429(tmp_path: Path) -> None:
    """The first answer's headers name it."""
    with background(Settings(rpm=6_000, latency=0.05)) as sandbox:
        run(tmp_path, sandbox, 250)
    arrived = arrivals(sandbox)
    assert arrived.refused == 0
    assert arrived.after(0.5).share_used(6_000) == pytest.approx(1.0, abs=0.02)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_an_unknown_limit_is_found(tmp_path: Path, seed: int) -> None:
    """No headers, only 429s: 97 % of the limit with at most 2 % of 429s, the start included."""
    settings = Settings(rpm=6_000, limit_headers=False, latency=0.2, latency_sigma=0.5, seed=seed)
    with background(settings) as sandbox:
        run(tmp_path, sandbox, 18_000)
    arrived = arrivals(sandbox)
    assert statuses(tmp_path) == {"ok": 18_000}
    assert arrived.refused <= 0.02 * len(arrived)
    assert arrived.share_used(6_000) >= 0.97


# Limits that change while the run goes on.


def test_a_limit_in_headers_is_followed_down_and_up(tmp_path: Path) -> None:
    """6,000 a minute, 2,400, 6,000: what the server takes is sent, once its window is no longer too full."""
    down, up = (2.0, "limits", {"rpm": 2_400}), (4.5, "limits", {"rpm": 6_000})
    settings = Settings(rpm=6_000, limit_window=2.0, latency=0.05)
    with background(settings) as sandbox, meanwhile(sandbox, down, up) as changed:
        run(tmp_path, sandbox, 500, limits={"requests_per_minute": 5_400})
    arrived = arrivals(sandbox)
    assert statuses(tmp_path) == {"ok": 500}
    assert arrived.refused <= 0.02 * len(arrived)
    assert 0.5 <= arrived.between(changed[0] + 2.5, changed[1]).share_used(2_400) <= 1.1
    assert arrived.between(changed[1] + 1.0, arrived[-1].at).share_used(5_400) >= 0.6


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("headers", [True, False])
def test_a_limit_that_drops_to_40_percent_and_comes_back_is_followed(tmp_path: Path, headers: bool) -> None:
    """The server's minute holds 3,000 when 1,200 become the limit: it takes nothing for 36 seconds.

    After that what it takes is used; the old limit is in use again half a minute after it is back.
    """
    down, up = (65.0, "limits", {"rpm": 1_200}), (100.0, "limits", {"rpm": 3_000})
    settings = Settings(rpm=3_000, limit_headers=headers, latency=0.2, latency_sigma=0.5, seed=1)
    with background(settings) as sandbox, meanwhile(sandbox, down, up) as changed:
        run(tmp_path, sandbox, 20_000, budget={"seconds": 260})
    arrived = arrivals(sandbox)
    lowered, raised = changed
    assert arrived.refused <= 0.02 * len(arrived)
    assert arrived.between(lowered, lowered + 36).refused <= 0.02 * 36 * 50
    assert 0.97 <= arrived.between(lowered + 60, raised).share_used(1_200) <= 1.05
    assert arrived.between(raised + 30, raised + 95).share_used(3_000) >= 0.97


# Bursts of 429s.


def test_a_burst_of_429s_causes_one_pause(tmp_path: Path) -> None:
    """For a moment all are refused, with `Retry-After: 1`: nobody sends for that second, then all go on."""
    burst, end = (1.0, "faults", {"429": 1.0}), (0.3, "faults", dict[str, Any]())
    with background(Settings(latency=0.3)) as sandbox, meanwhile(sandbox, burst, end):
        run(tmp_path, sandbox, 500, limits={"requests_per_minute": 12_000})
    arrived = arrivals(sandbox)
    first = next(each.at for each in arrived if each.status == 429)
    assert statuses(tmp_path) == {"ok": 500}
    assert arrived.refused == len(arrived) - 500
    assert arrived.between(first + 0.1, first + 0.95) == []
    assert arrived.between(first + 0.95, first + 60).refused == 0
    assert len(arrived.between(first + 1.0, first + 2.0)) > 10, "sending goes on"
