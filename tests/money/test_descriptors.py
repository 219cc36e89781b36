"""A process that may have few files open sends less at once, and says so."""

import resource

import pytest

from batchrun.client import descriptors
from batchrun.errors import StorageError


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[int, int]]:
    """The limits of a process that has 10 files open."""
    limits = {"now": (24, 24)}
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits["now"])
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.update(now=new))
    monkeypatch.setattr(descriptors, "_open_now", lambda: 10)
    return limits


def test_too_few_for_one_request_is_a_fault_that_names_the_limit(limits: dict[str, tuple[int, int]]) -> None:
    with pytest.raises(StorageError, match=r"24 files open \(RLIMIT_NOFILE\)"):
        descriptors.possible_concurrency(8, pytest.fail)


def test_fewer_requests_are_said(limits: dict[str, tuple[int, int]]) -> None:
    limits["now"] = (40, 40)
    told: list[str] = []
    assert descriptors.possible_concurrency(256, told.append) == 40 - 10 - descriptors.SPARE
    assert descriptors.possible_concurrency(256, told.append, each=2) == (40 - 10 - descriptors.SPARE) // 2
    assert all("limits.concurrency" in line and "40 files" in line for line in told)
    assert len(told) == 2


def test_the_soft_limit_is_raised_as_far_as_it_may_be(limits: dict[str, tuple[int, int]]) -> None:
    limits["now"] = (64, 4_096)
    assert descriptors.possible_concurrency(256, pytest.fail) == 256
    assert limits["now"] == (10 + descriptors.SPARE + 256, 4_096)
    limits["now"] = (64, resource.RLIM_INFINITY)
    assert descriptors.possible_concurrency(5_000, pytest.fail) == 5_000


def test_enough_changes_nothing(limits: dict[str, tuple[int, int]]) -> None:
    limits["now"] = (1_024, 4_096)
    assert descriptors.possible_concurrency(256, pytest.fail) == 256
    assert limits["now"] == (1_024, 4_096)
