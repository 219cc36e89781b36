"""Runs, plans with a sample, exports and reviews that end within one of their system calls on files."""

from dataclasses import replace
from pathlib import Path

import pytest

from proofs.kills import AT_SYSTEM_CALLS, IN_THE_JOURNAL
from tests.kill.audit import audit
from tests.kill.campaign import run_campaign
from tests.kill.system_calls import compiled

AMPLE = 10 * 10**9


@pytest.fixture
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = compiled(tmp_path_factory.mktemp("library"))
    if library is None:
        pytest.skip("needs gcc on Linux")
    return library


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(2))
def test_a_death_at_any_system_call_breaks_no_promise(tmp_path: Path, library: Path, seed: int) -> None:
    plan = replace(AT_SYSTEM_CALLS, stages=((AMPLE, 12),), seed=seed, library=library)
    found = audit(run_campaign(plan, tmp_path))
    assert found.broken == ()
    assert found.kills > 3


@pytest.mark.timeout(120)
@pytest.mark.parametrize("moment", IN_THE_JOURNAL)
@pytest.mark.parametrize("kills", [2, pytest.param(12, marks=(pytest.mark.slow, pytest.mark.timeout(300)))])
def test_a_death_within_a_commit_an_indexing_or_an_upgrade_breaks_no_promise(
    tmp_path: Path, library: Path, moment: str, kills: int
) -> None:
    """SIGKILL at that moment, twice at least; bill, journal and output are right after each."""
    plan = replace(IN_THE_JOURNAL[moment], stages=((AMPLE, kills),), seed=kills, library=library)
    found = audit(run_campaign(plan, tmp_path))
    assert found.broken == ()
    assert found.kills >= 2
