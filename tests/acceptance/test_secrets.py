"""The key is nowhere but in the requests' header."""

import json
from collections.abc import Mapping

import pytest

from tests.acceptance.answering import Reply, answering, error
from tests.acceptance.command import Done, Place


def check_no_key(place: Place, done: Done) -> None:
    key = place.key.encode()
    assert place.key not in done.out
    assert place.key not in done.err
    files = [path for path in place.folder.rglob("*") if path.is_file()]
    assert {"journal.sqlite", "summary.json", "out.parquet"} <= {path.name for path in files}
    assert [path.name for path in files if key in path.read_bytes()] == []


def test_the_key_is_nowhere_after_a_success(place: Place) -> None:
    place.texts("one", "two")
    done = place.run(options=["--json", "--preview", "2"])
    assert done.code == 0
    check_no_key(place, done)


@pytest.mark.parametrize("status", [401, 400, 500, 302])
def test_the_key_is_nowhere_after_a_refusal_that_echoes_it(place: Place, status: int) -> None:
    place.texts("one", "two")

    def echo(headers: Mapping[str, str]) -> Reply:
        key = headers["authorization"].removeprefix("Bearer ")
        return error(status, f"key {key} is wrong", key, location=f"https://example.com/?key={key}")

    with answering(echo) as base_url:
        settings = (f"endpoint.base_url={base_url}", "retry.max_attempts=2", "retry.max_wait_seconds=0.1")
        done = place.run(*settings, options=["--json"])
    assert done.code == (3 if status in (400, 500) else 5)
    assert "[key]" in json.dumps(done.summary) + json.dumps(place.rows(), default=str)
    check_no_key(place, done)


def test_the_key_is_nowhere_after_an_answer_that_is_none(place: Place) -> None:
    place.texts("one")

    def echo(headers: Mapping[str, str]) -> Reply:
        key = headers["authorization"].removeprefix("Bearer ")
        return 200, {"content-type": "application/json"}, json.dumps({"type": key, "content": key}).encode()

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
