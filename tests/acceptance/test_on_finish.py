"""`on_finish` tells a command or a URL of a run's end, and harms neither answers nor exit code."""

import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from batchrun.client.webhook import post_json
from tests.acceptance.command import Done, Place, until

TELL = "cat > told.json; env > environment; echo from the hook"


def run(place: Place, *more: str, options: tuple[str, ...] = (), **on_finish: Any) -> Done:
    settings = [f"on_finish.{key}={json.dumps(value)}" for key, value in on_finish.items()]
    return place.run(*settings, *more, options=options)


def told(place: Place) -> Any:
    return json.loads((place.folder / "told.json").read_text())


def test_a_command_gets_the_summary_and_the_exit_code_but_no_key(place: Place) -> None:
    place.texts("one", "two")
    done = run(place, "endpoint.api_key_env=ABLIT_KEY", command=TELL, options=("--json",))
    assert done.code == 0
    more = {key: value for key, value in told(place).items() if key in ("job", "host", "text")}
    assert more == {
        "job": "out",
        "host": socket.gethostname(),
        "text": "out: Every row has an answer (2 rows). 2 of 2 rows ok. "
        f"Spent {done.summary['usd']['settled']:.4g} USD.",
    }
    known = {key: value for key, value in told(place).items() if key not in more and value is not None}
    assert known == {key: value for key, value in done.summary.items() if value is not None}
    assert done.summary == place.summary()
    environment = (place.folder / "environment").read_text()
    assert "BATCHRUN_EXIT_CODE=0\n" in environment
    assert "BATCHRUN_REASON=Every row has an answer (2 rows).\n" in environment
    assert f"BATCHRUN_OUTPUT={place.output}\n" in environment
    assert f"BATCHRUN_SUMMARY={place.folder}/out.run/summary.json\n" in environment
    assert place.key not in environment
    assert "from the hook" in done.err


def test_the_key_is_kept_from_it_whatever_variable_holds_it(place: Place) -> None:
    place.texts("one")
    (place.folder / "key").write_text(place.key)
    command = ["run", "job.toml", "--set", f"on_finish.command={json.dumps(TELL)}"]
    command += ["--set", "endpoint.api_key_file=key", "--set", "endpoint.api_key_env=OTHER"]
    assert place.command(*command, environment={"COPY": f"Bearer {place.key}"}).code == 0
    assert place.key not in (place.folder / "environment").read_text()


@pytest.mark.parametrize("given", [{}, {"OPENBLAS_NUM_THREADS": "3"}])
def test_what_batchrun_sets_for_itself_alone_does_not_reach_it(place: Place, given: dict[str, str]) -> None:
    place.texts("one")
    command = ["run", "job.toml", "--set", f"on_finish.command={json.dumps(TELL)}"]
    assert place.command(*command, environment=given).code == 0
    lines = (place.folder / "environment").read_text().splitlines()
    expected = [f"{name}={value}" for name, value in given.items()]
    assert [line for line in lines if line.startswith("OPENBLAS_NUM_THREADS=")] == expected


def test_a_list_is_run_as_it_is(place: Place) -> None:
    place.texts("one")
    write = "import sys; open('told.json', 'w').write(sys.stdin.read() if sys.argv[1] == '$HOME *' else '')"
    assert run(place, command=[sys.executable, "-c", write, "$HOME *"]).code == 0
    assert told(place)["exit_code"] == 0


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("exit 7", "on_finish command failed with exit code 7"),
        (["/no/such/program"], "on_finish command can't be started: No such file or directory"),
    ],
)
def test_a_command_that_fails_is_said_and_changes_nothing(place: Place, command: Any, says: str) -> None:
    place.texts("one")
    done = run(place, command=command, options=("-q", "--json"))
    assert (done.code, place.column("status")) == (0, ["ok"])
    assert done.summary["exit_code"] == 0
    assert done.err == f"batchrun: {says}. The run's answers and its exit code stand.\n"


def test_a_command_that_takes_too_long_is_ended_with_its_children(place: Place) -> None:
    place.texts("one")
    started = time.monotonic()
    done = run(place, command="sleep 30 & echo $! > child; wait", timeout_seconds=0.5)
    assert time.monotonic() - started < 20
    assert done.code == 0
    assert "took longer than 0.5 s" in done.err
    child = int((place.folder / "child").read_text())
    until(
        lambda: not Path(f"/proc/{child}").exists() or "(sleep) Z" in Path(f"/proc/{child}/stat").read_text()
    )


@pytest.mark.parametrize("when", ["always", "trouble"])
def test_trouble_is_what_needs_a_person(place: Place, when: str) -> None:
    place.texts("one", "two", "three")
    assert run(place, "budget.rows=1", "limits.concurrency=1", command=TELL, when=when).code == 4
    assert (place.folder / "told.json").exists() == (when == "always")
    assert run(place, "budget.usd=0.0000001", command=TELL, when=when).code == 4
    assert told(place)["needs_person"] is True


def test_a_fault_is_told_of_too_and_a_held_lock_is_not(place: Place) -> None:
    done = run(place, command=TELL)
    assert done.code == 2
    assert told(place)["exit_code"] == 2
    assert "in.csv: no such file" in told(place)["reason"]
    (place.folder / "told.json").unlink()
    place.texts("one")
    place.sandbox.set("faults", {"429": 1})
    with place.start("run", "job.toml") as first:
        until(lambda: place.requests >= 1)
        assert run(place, command=TELL).code == 75
        first.kill()
    assert not (place.folder / "told.json").exists()


@contextmanager
def webhook(
    status: int = 200, delay: float = 0.0
) -> Iterator[tuple[str, list[tuple[dict[str, str], bytes]]]]:
    got: list[tuple[dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            got.append((dict(self.headers), body))
            time.sleep(delay)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/T0KEN", got
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_url_gets_the_summary_without_the_key(place: Place) -> None:
    place.texts("one")
    with webhook() as (url, got):
        done = run(place, url=url, options=("--json",))
    ((headers, body),) = got
    assert done.code == 0
    assert done.summary.items() <= json.loads(body).items()
    assert headers["content-type"] == "application/json"
    assert place.key not in str(headers) + body.decode()
    assert "T0KEN" not in str(place.journal("SELECT * FROM runs"))


@pytest.mark.parametrize(
    ("status", "delay", "says"),
    [(500, 0, "answered with status 500"), (200, 5, "took longer than 0.5 s"), (None, 0, "can't be reached")],
)
def test_a_url_that_fails_is_said_without_itself(
    place: Place, status: int | None, delay: float, says: str
) -> None:
    place.texts("one")
    with webhook(status or 200, delay) as (url, _):
        pass_on = url if status else "http://127.0.0.1:9/T0KEN"
        done = run(place, url=pass_on, timeout_seconds=0.5 if delay else 20, options=("-q",))
    assert (done.code, place.column("status")) == (0, ["ok"])
    assert says in done.err
    assert "T0KEN" not in done.err


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "foo://127.0.0.1:9"])
def test_a_proxy_that_cannot_be_used_is_said_too(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    trouble = post_json("https://example.com/hook?token=s3cret", b"{}", 1.0)
    assert trouble is not None
    assert "s3cret" not in trouble
