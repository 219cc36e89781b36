"""What is wrong with --workers, [workers] or --connect is named before anything is sent or listened at."""

import sys

import pytest

from batchrun.errors import JobError, UsageError
from batchrun.job.workers import Workers, check_workers, split_address, split_option
from batchrun.sandbox import background
from batchrun.workers.ray_cluster import check_reachable, connected_cluster, why_it_cannot_run


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("local:-1", "expected a whole number behind the colon, got '-1'"),
        ("local:", "expected a whole number behind the colon, got ''"),
        ("ray:x", "expected a whole number behind the colon, got 'x'"),
        ("ray://10.0.0.5:10001", "can't be a client of Ray"),
        ("nonsense", "expected ray"),
        ("", "expected ray"),
    ],
)
def test_a_wrong_option_is_named(option: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        split_option(option)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (":99999", "expected a port of 65535 at most, got 99999"),
        ("10.0.0.5", "expected HOST:PORT, got '10.0.0.5'"),
        ("10.0.0.5:", "expected HOST:PORT"),
        ("tcp://10.0.0.5:7077", "expected HOST:PORT"),
    ],
)
def test_a_wrong_address_is_named(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        split_address(text)


@pytest.mark.parametrize(
    ("workers", "words"),
    [
        (Workers(kind="local", tls=True), "workers on this machine need neither"),
        (Workers(kind="listen", count=3), "start as many as you want"),
        (Workers(kind="listen", address=":70000"), "a port of 65535 at most"),
        (Workers(kind="ray", address="ray://10.0.0.5:10001"), "can't be a client of Ray"),
    ],
)
def test_keys_that_do_not_go_together_are_named(workers: Workers, words: str) -> None:
    with pytest.raises(JobError, match=words):
        check_workers(workers)


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'batchrun-llm\[ray\]'"), connected_cluster("auto"):
        pass


def test_what_is_no_ray_cluster_is_named_at_once() -> None:
    with pytest.raises(UsageError, match=r"http://10\.0\.0\.5:8265.*the dashboard's address"):
        check_reachable("http://10.0.0.5:8265")
    with background() as sandbox, pytest.raises(UsageError, match="a web server answers there"):
        check_reachable(sandbox.base_url.removeprefix("http://"))


def test_of_a_traceback_from_a_node_the_exception_is_told() -> None:
    raised = (
        "The actor died because of an error raised in its creation task, \x1b[36mray::SendingActor\x1b[39m\n"
        "RuntimeError: The actor failed to import.\n  ^^^^\nModuleNotFoundError: No module named 'batchrun'"
    )
    assert why_it_cannot_run(RuntimeError(raised)) == (
        "Ray can't run a worker: ModuleNotFoundError: No module named 'batchrun'\n"
        "Next: install the same version of batchrun on all nodes."
    )
    assert why_it_cannot_run(RuntimeError("The actor died.\n\tclass_name: x")) == (
        "Ray can't run a worker: The actor died."
    )
