"""A Ray cluster of three nodes on this machine, whose processes can be killed and are replaced."""

import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_ENVIRONMENT = {
    "RAY_gcs_rpc_server_reconnect_timeout_s": "3",  # in place of 60: then Ray ends a driver without a head
    "RAY_USAGE_STATS_ENABLED": "0",
}
_NODES = 2
_CORES = 2
"""Of each node beside the head, which has none."""


def is_installed() -> bool:
    try:
        import ray  # noqa: F401
    except ImportError:
        return False
    return True


class RayNodes:
    """The cluster as it stands. A process that connects to Ray finds it by the environment."""

    def __init__(self, *, dashboard: bool = False) -> None:
        self._with_dashboard = dashboard
        self.start()

    def start(self) -> None:
        from ray.cluster_utils import Cluster

        arguments: dict[str, Any] = {"num_cpus": 0, "include_dashboard": self._with_dashboard}
        if self._with_dashboard:
            arguments |= {"dashboard_port": _free_port(), "dashboard_agent_listen_port": _free_port()}
        self.cluster = _started(lambda: Cluster(initialize_head=True, head_node_args=arguments))
        os.environ["RAY_ADDRESS"] = self.cluster.address
        self.mend()

    def mend(self) -> None:
        """Adds the nodes that have gone."""
        while len(self.others) < _NODES:
            _started(lambda: self.cluster.add_node(num_cpus=_CORES))

    def stop(self) -> None:
        """Ends all processes of the cluster."""
        children = [pid for node in self.cluster.list_all_nodes() for pid in _below(_raylet(node))]
        self.cluster.shutdown()
        for pid in children:
            _kill(pid, signal.SIGKILL)  # one that is frozen doesn't see that its raylet has gone

    @property
    def session(self) -> Path:
        """The folder with the logs and sockets of all nodes."""
        return Path(self.cluster.head_node.get_session_dir_path())

    @property
    def dashboard(self) -> str:
        """Where jobs are submitted."""
        return f"http://{self.cluster.webui_url}"

    @property
    def others(self) -> list[Any]:
        """The nodes beside the head."""
        return sorted(self.cluster.worker_nodes, key=lambda node: str(node.unique_id))

    def workers(self) -> list[int]:
        """The processes that send, as Ray has named them."""
        below = [pid for node in self.others for pid in _below(_raylet(node))]
        return [pid for pid in below if _command(pid).startswith(b"ray::SendingActor")]

    def kill_raylet(self, node: Any) -> None:
        """Its workers end by themselves."""
        node.kill_raylet()
        self.cluster.remove_node(node, allow_graceful=False)

    def kill_node(self, node: Any) -> None:
        """All that runs there, at once."""
        for pid in _below(_raylet(node)):
            _kill(pid, signal.SIGKILL)
        self.cluster.remove_node(node, allow_graceful=False)

    def kill_head(self) -> None:
        """A run, whose own node this is, is ended by Ray soon afterwards; the other nodes end too."""
        self.cluster.head_node.kill_gcs_server()


@contextmanager
def ray_nodes(*, dashboard: bool = False) -> Iterator[RayNodes]:
    """The cluster, with a temporary folder of its own. Needs Ray, a dashboard also its extra `default`."""
    before = dict(os.environ)
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # short: the paths of sockets have 107 bytes
    os.environ.update(_ENVIRONMENT, RAY_TMPDIR=str(folder))
    try:
        nodes = RayNodes(dashboard=dashboard)
        try:
            yield nodes
        finally:
            nodes.stop()
    finally:
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _started(start: Callable[[], Any]) -> Any:
    """Ray gives a node up that is not there after 30 s, and leaves what it has started: then try again."""
    for tries_left in (2, 1, 0):
        before = set(_below(os.getpid()))
        try:
            return start()
        except Exception:
            for pid in set(_below(os.getpid())) - before:
                _kill(pid, signal.SIGKILL)
            if not tries_left:
                raise
    return None


def _raylet(node: Any) -> int:
    """0 if it has been killed."""
    from ray._private.ray_constants import PROCESS_TYPE_RAYLET

    processes = node.all_processes.get(PROCESS_TYPE_RAYLET)
    return int(processes[0].process.pid) if processes else 0


def _below(process: int) -> list[int]:
    """The process and all that it has started, so far as they are still its own."""
    found = [process] if process else []
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            with suppress(OSError):
                found += map(int, children.read_text().split())
    return found


def _command(process: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_bytes()
    return b""


def _kill(process: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, number)
