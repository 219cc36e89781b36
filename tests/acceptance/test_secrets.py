"""The key is nowhere but in the requests' header."""

import json
import signal
import socket
import time
from collections.abc import Mapping

import pytest

from tests.acceptance.answering import Reply, answering, error
from tests.acceptance.command import Done, Place, ended, until


def files_with_key(place: Place) -> list[str]:
    files = [path for path in place.folder.rglob("*") if path.is_file()]
    return [path.name for path in files if place.key.encode() in path.read_bytes()]


def key_of(headers: Mapping[str, str]) -> str:
    return headers.get("x-api-key") or headers["authorization"].removeprefix("Bearer ")


def check_no_key(place: Place, done: Done) -> None:
    assert place.key not in done.out
    assert place.key not in done.err
    names = {path.name for path in place.folder.rglob("*")}
    assert {"journal.sqlite", "log.jsonl", "summary.json", "out.parquet"} <= names
    assert files_with_key(place) == []


def test_the_key_is_nowhere_after_a_success(place: Place) -> None:
    place.texts("one", "two")
    done = place.run(options=["--json", "--preview", "2"])
    assert done.code == 0
    check_no_key(place, done)


@pytest.mark.parametrize("status", [401, 400, 500, 302])
def test_the_key_is_nowhere_after_a_refusal_that_echoes_it(place: Place, status: int) -> None:
    place.texts("one", "two")

    def echo(headers: Mapping[str, str]) -> Reply:
        key = key_of(headers)
        return error(status, f"key {key} is wrong", key, location=f"https://example.com/{key}?key={key}")

    with answering(echo) as base_url:
        settings = (f"endpoint.base_url={base_url}", "retry.max_wait_seconds=0.1", "retry.outage_seconds=0.5")
        done = place.run(*settings, options=["--json"])
    assert done.code == (3 if status == 400 else 5)
    assert "[key]" in json.dumps(done.summary) + json.dumps(place.rows(), default=str)
    check_no_key(place, done)


def test_the_key_is_nowhere_after_an_answer_that_is_none(place: Place) -> None:
    place.texts("one")

    def echo(headers: Mapping[str, str]) -> Reply:
        key = key_of(headers)
        return 200, {"content-type": "application/json"}, json.dumps({"type": key, "data": key}).encode()

    with answering(echo) as base_url:
        done = place.run(f"endpoint.base_url={base_url}", "retry.max_attempts=1")
    assert done.code == 3
    check_no_key(place, done)


def test_a_key_from_a_file_is_sent_and_kept_as_secret(place: Place) -> None:
    place.texts("one")
    (place.folder / "keys").mkdir()
    key_file = place.folder / "keys" / "key.txt"
    key_file.write_text(f"{place.key}\n")
    done = place.command(
        "run", "job.toml", "--set", "endpoint.api_key_file=keys/key.txt", environment={"ABLIT_KEY": ""}
    )
    assert done.code == 0
    assert place.requests == 1
    key_file.unlink()
    check_no_key(place, done)


def test_the_key_is_nowhere_while_a_run_goes_on_and_after_it_was_killed(slow_place: Place) -> None:
    """The write-ahead log and the temporary files are there then, and are searched too."""
    slow_place.texts(*map(str, range(40)))
    process = slow_place.start("run", "job.toml")
    try:
        until(lambda: slow_place.requests > 10)
        assert (slow_place.folder / "out.run" / "journal.sqlite-wal").stat().st_size > 0
        assert files_with_key(slow_place) == []
    finally:
        process.send_signal(signal.SIGKILL)
        done = ended(process)
    assert (slow_place.folder / "out.run" / "journal.sqlite-wal").stat().st_size > 0
    assert files_with_key(slow_place) == []
    assert slow_place.key not in done.out + done.err


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(place: Place, status: int) -> None:
    """The key would go along: the server that it points to hears nothing."""
    place.texts("one")
    heard = []

    def elsewhere(headers: Mapping[str, str]) -> Reply:
        heard.append(headers)
        return error(400, "it came here")

    with answering(elsewhere) as target:
        location = f"{target}/v1/messages"
        with answering(lambda _: error(status, "moved", location=location)) as base_url:
            done = place.run(f"endpoint.base_url={base_url}", "retry.max_attempts=2")
    assert heard == []
    assert done.code == 5
    assert "redirect" in done.err
    check_no_key(place, done)


@pytest.mark.parametrize("header", ["x-request-id", "retry-after", "www-authenticate", "set-cookie"])
def test_a_key_in_a_header_of_the_answer_is_not_kept(place: Place, header: str) -> None:
    place.texts("one")
    with answering(lambda headers: error(400, "no", **{header: key_of(headers)})) as base_url:
        settings = ("retry.max_attempts=1", "endpoint.auth=x-api-key")
        done = place.run(f"endpoint.base_url={base_url}", *settings)
    assert done.code == 3
    check_no_key(place, done)


@pytest.mark.parametrize(
    "event",
    [
        b'event: error\ndata: {"type": "error", "error": {"type": "KEY", "message": "not KEY"}}\n\n',
        b"event: KEY\ndata: KEY\n\n",
        b"data: {KEY\n\n",
    ],
)
def test_a_key_in_a_stream_that_breaks_is_not_kept(place: Place, event: bytes) -> None:
    place.texts("one")

    def stream(headers: Mapping[str, str]) -> Reply:
        body = event.replace(b"KEY", key_of(headers).encode())
        return 200, {"content-type": "text/event-stream"}, body

    with answering(stream) as base_url:
        settings = (f"endpoint.base_url={base_url}", "request.stream=true", "retry.max_attempts=1")
        done = place.run(*settings)
    assert done.code == 3
    check_no_key(place, done)


def test_the_key_is_nowhere_after_a_time_out(place: Place) -> None:
    place.texts("one")

    def late(headers: Mapping[str, str]) -> Reply:
        time.sleep(0.6)
        return error(500, "too late")

    with answering(late) as base_url:
        settings = ("endpoint.timeout_seconds=0.2", "retry.max_attempts=1")
        done = place.run(f"endpoint.base_url={base_url}", *settings)
    assert (done.code, place.column("error_code")) == (3, ["timeout"])
    check_no_key(place, done)


def test_the_key_is_nowhere_where_nobody_listens(place: Place) -> None:
    place.texts("one")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        settings = ("retry.max_attempts=2", "retry.max_wait_seconds=0.1", "retry.outage_seconds=0.5")
        done = place.run(f"endpoint.base_url={url}", *settings)
    assert done.code in (3, 5)
    check_no_key(place, done)


def test_the_key_is_nowhere_in_what_shows_a_job(place: Place) -> None:
    """plan, status and export have the key in their environment, and no use for it."""
    place.texts("one")
    place.run()
    for command in (("plan", "job.toml", "--json"), ("status", "job.toml"), ("export", "job.toml")):
        done = place.command(*command)
        assert done.code == 0
        check_no_key(place, done)


def test_the_key_is_nowhere_after_a_fault(place: Place) -> None:
    place.texts("one")
    place.run()
    journal = place.folder / "out.run" / "journal.sqlite"
    journal.write_bytes(b"no database" * 1000)
    done = place.run()
    assert done.code == 1
    assert "Traceback" not in done.err
    check_no_key(place, done)


@pytest.mark.parametrize("key", ["sk-s3cret with a space", "sk-s3cret\u00fc", "Bearer sk-s3cret"])
def test_a_key_that_can_t_be_sent_is_refused_and_not_shown(place: Place, key: str) -> None:
    place.texts("one")
    done = place.command("run", "job.toml", environment={"ABLIT_KEY": key})
    assert done.code == 2
    assert "ABLIT_KEY" in done.err
    assert "s3cret" not in done.err + done.out
    assert place.requests == 0


@pytest.mark.parametrize(
    "setting", ["endpoint.api_key=KEY", "endpoint.api_key_env=KEY", "endpoint.headers.authorization=KEY"]
)
def test_a_key_in_the_job_is_refused_and_not_shown(place: Place, setting: str) -> None:
    place.texts("one")
    done = place.run(setting.replace("KEY", place.key))
    assert done.code == 2
    assert place.key not in done.err + done.out
    assert files_with_key(place) == []


@pytest.mark.parametrize("spaces", [9_970, 9_990])
def test_a_long_page_that_is_cut_inside_the_key_shows_no_part_of_it(place: Place, spaces: int) -> None:
    """Only the beginning of a page is read, and white space is taken out of it."""
    place.texts("one")

    def page(headers: Mapping[str, str]) -> Reply:
        return 400, {"content-type": "text/plain"}, b" " * spaces + key_of(headers).encode()

    with answering(page) as base_url:
        done = place.run(f"endpoint.base_url={base_url}", options=["--json"])
    assert done.code == 3
    assert place.key[:10] not in json.dumps(done.summary) + json.dumps(place.rows(), default=str)
    check_no_key(place, done)
