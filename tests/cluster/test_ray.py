"""Runs on a Ray cluster: the bill and the journal agree, whatever dies."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.command import COMMAND, Done, Place, ended, until
from tests.acceptance.test_workers import (
    NANO_USD,
    TEXTS,
    check_books,
    check_rows,
    is_running,
    running,
    workers_of,
)

if TYPE_CHECKING:
    from tests.kill.ray_nodes import RayNodes

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(150),
    pytest.mark.filterwarnings("ignore"),  # of Ray
]
SOME = 16
"""Requests that have been sent when a test strikes."""


def until_sending(place: Place, run: "subprocess.Popen[str]") -> None:
    until(lambda: place.requests >= SOME or run.poll() is not None, 60)


def finished_whole(place: Place, run: "subprocess.Popen[str]") -> Done:
    """The end of a run that has to have an answer for each row."""
    done = ended(run)
    assert done.code == 0, done.err
    check_books(place, done)
    check_rows(place)
    return done


def finished_by_the_next_run(place: Place, *options: str) -> None:
    check_books(place, Done(-signal.SIGKILL, "", ""))
    done = place.run(options=options)
    assert done.code == 0, done.err
    check_books(place, done)
    check_rows(place)


def check_session(cluster: "RayNodes", *secrets: bytes) -> None:
    """Ray's own files have none of the secrets."""
    logs = [path for path in cluster.session.rglob("*") if path.is_file() and not path.is_symlink()]
    assert logs
    assert not [path for path in logs if any(secret in path.read_bytes() for secret in secrets)]


def test_a_run_is_as_without_workers_and_so_is_one_with_nothing_to_send(
    cluster: "RayNodes", place: Place
) -> None:
    place.texts(*TEXTS)
    done = place.run(options=["--workers", "ray:3", "--json"])
    assert done.summary["rows"]["ok"] == len(TEXTS)
    assert place.requests == len(TEXTS)
    assert workers_of(place)  # some may come when nothing is left
    check_rows(place)
    assert not any(map(is_running, workers_of(place)))
    again = place.run(options=["--workers", "ray:3", "--json"])
    assert again.code == 0, again.err
    assert again.summary["rows"]["ok"] == place.requests == len(TEXTS)
    assert "SendingActor" not in again.err  # as Ray warns of one that it is to start again


def test_a_killed_worker_is_started_again_and_ray_has_neither_key_nor_token(
    cluster: "RayNodes", slow_place: Place
) -> None:
    with running(slow_place, workers="ray:2") as run:
        until_sending(slow_place, run)
        token = (slow_place.folder / "out.run" / "workers.token").read_bytes().strip()
        secrets = (slow_place.key.encode(), token)
        for worker in cluster.workers():
            for name in ("cmdline", "environ"):
                assert not any(secret in Path(f"/proc/{worker}/{name}").read_bytes() for secret in secrets)
        os.kill(workers_of(slow_place)[0], signal.SIGKILL)
        finished_whole(slow_place, run)
    assert len(workers_of(slow_place)) >= 2
    check_session(cluster, *secrets)


def test_a_frozen_worker_is_noticed_by_its_silence(cluster: "RayNodes", slow_place: Place) -> None:
    with running(slow_place, workers="ray:2") as run:
        until_sending(slow_place, run)
        frozen = workers_of(slow_place)[0]
        os.kill(frozen, signal.SIGSTOP)
        finished_whole(slow_place, run)
    assert "has been silent" in (slow_place.folder / "out.run" / "log.jsonl").read_text()
    until(lambda: not is_running(frozen))


def test_a_node_that_is_removed_costs_what_it_was_sending(new_cluster: "RayNodes", slow_place: Place) -> None:
    with running(slow_place, workers="ray:2") as run:
        until_sending(slow_place, run)
        new_cluster.kill_node(new_cluster.others[0])
        finished_whole(slow_place, run)


def test_a_raylet_that_dies_takes_its_workers_only(new_cluster: "RayNodes", slow_place: Place) -> None:
    with running(slow_place, workers="ray:2") as run:
        until_sending(slow_place, run)
        new_cluster.kill_raylet(new_cluster.others[0])
        finished_whole(slow_place, run)


def test_workers_end_with_a_killed_driver_and_the_next_run_finishes(
    cluster: "RayNodes", slow_place: Place
) -> None:
    with running(slow_place, workers="ray:2") as run:
        until_sending(slow_place, run)
        workers = workers_of(slow_place)
        run.kill()
        run.wait()
        until(lambda: not any(map(is_running, workers)))
    sent = slow_place.requests
    finished_by_the_next_run(slow_place, "--workers", "ray:2")
    assert sent < slow_place.requests


def test_the_next_run_finishes_what_a_dead_head_has_ended(new_cluster: "RayNodes", slow_place: Place) -> None:
    with running(slow_place, workers="ray:2") as run:
        until_sending(slow_place, run)
        new_cluster.kill_head()
        ended(run)
    finished_by_the_next_run(slow_place)


def test_a_cap_holds_over_the_cluster(cluster: "RayNodes", place: Place) -> None:
    place.texts(*TEXTS)
    done = place.run("budget.usd=0.006", options=["--workers", "ray:3"])
    assert done.code == 4, done.err
    assert 0 < place.requests < len(TEXTS)
    assert place.column("text") == TEXTS
    check_books(place, done, cap=6 * NANO_USD // 1_000)


def test_a_signal_drains_what_the_cluster_is_sending(cluster: "RayNodes", slow_place: Place) -> None:
    with running(slow_place, workers="ray:2") as run:
        until_sending(slow_place, run)
        run.send_signal(signal.SIGTERM)
        done = ended(run)
    assert done.code == 143, done.err
    outcomes = slow_place.journal("SELECT outcome, count(*) FROM attempts GROUP BY 1")
    assert outcomes == [("answered", slow_place.requests)]
    check_books(slow_place, done)


def test_a_limit_is_kept_over_all_workers(cluster: "RayNodes", place: Place) -> None:
    """120 requests a minute, two of them at once: 12 rows take five seconds, and none is refused."""
    place.texts(*TEXTS[:12])
    place.sandbox.set("limits", {"rpm": 120})
    try:
        done = place.run("limits.requests_per_minute=120", options=["--workers", "ray:4", "--json"])
    finally:
        place.sandbox.set("limits", {"rpm": None})
    assert done.code == 0, done.err
    assert done.summary["requests"]["by_error"] == {}
    assert done.summary["seconds"] >= 4.5


@pytest.mark.timeout(300)
def test_a_submitted_run_ends_and_goes_on_as_rays_job(
    cluster_with_dashboard: "RayNodes", place: Place
) -> None:
    cluster = cluster_with_dashboard
    place.texts(*TEXTS)
    (place.folder / "key").write_text(place.key)
    command = [
        *COMMAND,
        "run",
        str(place.job_file),
        "--workers",
        "ray:2",
        "--set",
        "endpoint.api_key_file=key",
    ]
    submit = [
        sys.executable,
        "-m",
        "ray.scripts.scripts",
        "job",
        "submit",
        "--address",
        cluster.dashboard,
        "--",
    ]

    def submitted(*options: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([*submit, *command, *options], capture_output=True, text=True, timeout=120)

    first = submitted("--set", "budget.usd=0.006")
    assert first.returncode == 1
    assert "command failed with exit code 4" in first.stdout + first.stderr
    assert 0 < place.requests < len(TEXTS)
    second = submitted()
    assert second.returncode == 0, second.stdout + second.stderr
    assert place.requests == len(TEXTS)
    check_rows(place)
    check_books(place, Done(0, second.stdout, second.stderr))
    check_session(cluster, place.key.encode())


@pytest.mark.parametrize("address", ["127.0.0.1:1", "a web server's"])
def test_without_a_cluster_nothing_is_sent(place: Place, address: str) -> None:
    pytest.importorskip("ray")
    place.texts(*TEXTS)
    if address != "127.0.0.1:1":
        address = place.sandbox.base_url.removeprefix("http://")
    done = place.run(options=["--workers", "ray", "--set", f"workers.address={address}"])
    assert done.code == 2, done.err
    assert "no Ray cluster" in done.err
    assert place.requests == 0
