"""A Ray cluster of three nodes on this machine, and the acceptance tests' places."""

from collections.abc import Iterator

import pytest

from tests.acceptance.conftest import place, quick_sandbox, slow_place, slow_sandbox
from tests.kill.ray_nodes import RayNodes, ray_nodes

__all__ = ["place", "quick_sandbox", "slow_place", "slow_sandbox"]


@pytest.fixture
def new_cluster() -> Iterator[RayNodes]:
    """A cluster of the test's own."""
    yield from _cluster(dashboard=False)


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayNodes]:
    """A cluster that tests share which leave it whole."""
    yield from _cluster(dashboard=False)


@pytest.fixture
def cluster_with_dashboard() -> Iterator[RayNodes]:
    """A cluster to which jobs can be submitted."""
    yield from _cluster(dashboard=True)


def _cluster(*, dashboard: bool) -> Iterator[RayNodes]:
    pytest.importorskip("ray.cluster_utils", reason="needs `make .venv/cluster`")
    with ray_nodes(dashboard=dashboard) as nodes:
        yield nodes
