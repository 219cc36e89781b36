"""A campaign of kills on a Ray cluster, as `make prove` has it for longer."""

from pathlib import Path

import pytest

from tests.kill.audit import audit
from tests.kill.campaign import run_campaign
from tests.kill.ray_kills import WhileTheClusterDies, ray_plan
from tests.kill.ray_nodes import RayNodes

AMPLE = 10 * 10**9


@pytest.mark.cluster
@pytest.mark.timeout(400)
@pytest.mark.filterwarnings("ignore")  # of Ray
def test_kills_of_a_cluster_and_of_its_run_break_no_promise(new_cluster: RayNodes, tmp_path: Path) -> None:
    moment = WhileTheClusterDies(new_cluster, AMPLE)
    evidence = run_campaign(ray_plan(moment, runs=1, seed=4, cap_nano_usd=AMPLE), tmp_path)
    moment.check_end(tmp_path / "answers.parquet")
    found = audit(moment.as_seen(evidence))
    assert (*found.broken, *moment.broken) == ()
    assert moment.kills.total() >= 2
