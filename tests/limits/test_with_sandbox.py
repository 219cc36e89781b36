"""Limits of a real server, met by whole runs. What measures seconds is slow; each has a quicker sister.

The rates are such that a busy machine can send them, and a share is one of the time in which the process had
the processor. Higher rates are met in virtual time.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from batchrun.sandbox import Settings, background
from tests.limits.whole_runs import arrivals, meanwhile, run, stalls, statuses

# Given limits.


def test_a_given_limit_is_kept_in_every_second(tmp_path: Path) -> None:
    """The server counts seconds and not minutes. It takes twice as much, since a busy machine wakes late."""
    settings = Settings(rpm=7_200, limit_window=1.0, limit_headers=False, latency=0.05)
    with background(settings) as sandbox, stalls() as stalled:
        run(tmp_path, sandbox, 180, limits={"requests_per_minute": 3_600})
    arrived = arrivals(sandbox, stalled)
    assert arrived.refused == 0
    assert arrived.share_of_possible(3_600) >= 0.8
    assert arrived.share_used(3_600) <= 1.05


def test_a_given_limit_is_kept_over_all_workers(tmp_path: Path) -> None:
    settings = Settings(rpm=7_200, limit_window=1.0, limit_headers=False, latency=0.05)
    with background(settings) as sandbox, stalls() as stalled:
        run(
            tmp_path,
            sandbox,
            180,
            limits={"requests_per_minute": 3_600},
            workers={"kind": "local", "count": 3},
        )
    arrived = arrivals(sandbox, stalled)
    assert arrived.refused == 0
    assert arrived.share_of_possible(3_600) >= 0.8
    assert arrived.share_used(3_600) <= 1.05


@pytest.mark.slow  # measures seconds: nothing else may take the processor
def test_a_given_limit_is_used_to_99_percent_without_a_429(tmp_path: Path) -> None:
    """For some seconds at 1,800 a minute."""
    settings = Settings(rpm=1_800, latency=0.05, latency_sigma=0.5)
    with background(settings) as sandbox, stalls() as stalled:
        run(tmp_path, sandbox, 300, limits={"requests_per_minute": 1_800})
    arrived = arrivals(sandbox, stalled)
    assert arrived.refused == 0
    assert arrived.share_of_possible(1_800) >= 0.99


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_given_requests_are_kept_over_minutes(tmp_path: Path) -> None:
    """Over several of the server's windows; the limit on tokens is wide enough to make no difference."""
    limits = {"requests_per_minute": 1_200, "tokens_per_minute": 200_000}
    settings = Settings(rpm=1_200, tpm=200_000, latency=0.5, latency_sigma=0.5)
    with background(settings) as sandbox, stalls() as stalled:
        run(tmp_path, sandbox, 3_000, limits=limits)
    arrived = arrivals(sandbox, stalled)
    assert arrived.refused == 0
    assert arrived.share_of_possible(1_200) >= 0.99
    assert arrived.share_used(1_200) <= 1.005


@pytest.mark.slow  # a late wake-up is made good at once: nothing else may take the processor
@pytest.mark.timeout(400)
def test_given_tokens_are_kept_over_minutes(tmp_path: Path) -> None:
    """Answers have 8 to 64 tokens, and nobody knows beforehand how many."""
    limits = {"tokens_per_minute": 50_000}
    settings = Settings(tpm=50_000, limit_headers=False, latency=0.5, latency_sigma=0.5)
    with background(settings) as sandbox, stalls() as stalled:
        run(tmp_path, sandbox, 3_750, max_tokens=64, limits=limits)
    arrived = arrivals(sandbox, stalled)
    assert arrived.refused == 0
    assert arrived.share_of_possible(50_000, tokens=True) >= 0.99
    assert arrived.share_used(50_000, tokens=True) <= 1.005


# Limits that the job doesn't name.


@pytest.mark.slow  # measures seconds: nothing else may take the processor
def test_a_limit_in_headers_is_kept_without_a_429(tmp_path: Path) -> None:
    """The first answer's headers name it."""
    with background(Settings(rpm=1_800, latency=0.05)) as sandbox, stalls() as stalled:
        run(tmp_path, sandbox, 150)
    arrived = arrivals(sandbox, stalled)
    assert arrived.refused == 0
    assert arrived.after(0.5).share_of_possible(1_800) >= 0.98
    assert arrived.after(0.5).share_used(1_800) <= 1.02


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_an_unknown_limit_is_found(tmp_path: Path, seed: int) -> None:
    """No headers, only 429s: 97 % of the limit with at most 2 % of 429s, the start included."""
    settings = Settings(rpm=2_400, limit_headers=False, latency=0.2, latency_sigma=0.5, seed=seed)
    with background(settings) as sandbox, stalls() as stalled:
        run(tmp_path, sandbox, 7_200)
    arrived = arrivals(sandbox, stalled)
    assert statuses(tmp_path) == {"ok": 7_200}
    assert arrived.refused <= 0.02 * len(arrived)
    assert arrived.share_of_possible(2_400) >= 0.97


# Limits that change while the run goes on.


def test_a_limit_in_headers_is_followed_down_and_up(tmp_path: Path) -> None:
    """3,000 a minute, 1,200, 3,000: what the server takes is sent, once its window is no longer too full."""
    down, up = (2.0, "limits", {"rpm": 1_200}), (4.5, "limits", {"rpm": 3_000})
    settings = Settings(rpm=3_000, limit_window=2.0, latency=0.05)
    with background(settings) as sandbox, meanwhile(sandbox, down, up) as changed, stalls() as stalled:
        run(tmp_path, sandbox, 250, limits={"requests_per_minute": 2_700})
    arrived = arrivals(sandbox, stalled)
    assert statuses(tmp_path) == {"ok": 250}
    assert arrived.refused <= 0.02 * len(arrived)
    lower = arrived.between(changed[0] + 2.5, changed[1])
    assert lower.share_of_possible(1_200) >= 0.5
    assert lower.share_used(1_200) <= 1.1
    assert arrived.between(changed[1] + 1.0, arrived[-1].at).share_of_possible(2_700) >= 0.6


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("headers", [True, False])
def test_a_limit_that_drops_to_40_percent_and_comes_back_is_followed(tmp_path: Path, headers: bool) -> None:
    """The server's minute holds 1,500 when 600 become the limit: it takes nothing for 36 seconds.

    After that what it takes is used; the old limit is in use again half a minute after it is back.
    """
    down, up = (65.0, "limits", {"rpm": 600}), (100.0, "limits", {"rpm": 1_500})
    settings = Settings(rpm=1_500, limit_headers=headers, latency=0.2, latency_sigma=0.5, seed=1)
    with background(settings) as sandbox, meanwhile(sandbox, down, up) as changed, stalls() as stalled:
        run(tmp_path, sandbox, 10_000, budget={"seconds": 260})
    arrived = arrivals(sandbox, stalled)
    lowered, raised = changed
    assert arrived.refused <= 0.02 * len(arrived)
    assert arrived.between(lowered, lowered + 36).refused <= 0.02 * 36 * 25
    lower = arrived.between(lowered + 60, raised)
    assert lower.share_of_possible(600) >= 0.97
    assert lower.share_used(600) <= 1.05
    assert arrived.between(raised + 30, raised + 95).share_of_possible(1_500) >= 0.97


# Bursts of 429s.


def test_a_burst_of_429s_causes_one_pause(tmp_path: Path) -> None:
    """For a moment all are refused, with `Retry-After: 1`: nobody sends for that second, then all go on."""
    burst, end = (1.0, "faults", {"429": 1.0}), (0.3, "faults", dict[str, Any]())
    settings = Settings(latency=0.3)
    with background(settings) as sandbox, meanwhile(sandbox, burst, end) as changed, stalls() as stalled:
        run(tmp_path, sandbox, 200, limits={"requests_per_minute": 3_000})
    arrived = arrivals(sandbox, stalled)
    assert statuses(tmp_path) == {"ok": 200}
    assert arrived.refused == len(arrived) - 200
    # How late the first refusal is read, and the burst ends, depends on the machine; the silence doesn't.
    pauses = [after.at - before.at for before, after in pairwise(arrived) if after.at - before.at > 0.7]
    assert len(pauses) <= (1 if changed[1] - changed[0] < 0.8 else 2)
    assert pauses[0] >= 0.9
    last = [each.at for each in arrived if each.status == 429][-1]
    assert last < changed[1] + 0.5
    rest = arrived.between(last + 1.0, last + 60)
    assert len(rest) >= 90
    assert rest.share_of_possible(3_000) >= 0.5, "sending goes on"
