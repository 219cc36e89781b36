"""A Ray cluster of three nodes on this machine, and the acceptance tests' places."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.conftest import place, quick_sandbox, slow_place, slow_sandbox

__all__ = ["place", "quick_sandbox", "slow_place", "slow_sandbox"]

_QUICK_END = {"RAY_gcs_rpc_server_reconnect_timeout_s": "3", "RAY_USAGE_STATS_ENABLED": "0"}
"""A driver whose head has gone gives up after 3 s, in place of 60."""


@pytest.fixture
def new_cluster() -> Iterator[Any]:
    """A cluster of the test's own: a head without cores, and two nodes with two."""
    yield from _cluster()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster that tests share which leave it whole."""
    yield from _cluster()


def _cluster() -> Iterator[Any]:
    utils = pytest.importorskip("ray.cluster_utils", reason="needs `make .venv/cluster`")
    with pytest.MonkeyPatch.context() as environment:
        for name, value in _QUICK_END.items():
            environment.setenv(name, value)
        cluster = utils.Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
        )
        try:
            for _ in range(2):
                cluster.add_node(num_cpus=2)
            environment.setenv("RAY_ADDRESS", cluster.address)
            yield cluster
        finally:
            cluster.shutdown()
