"""A run whose requests workers send has the rows, the spend and the ending of the same run without them."""

import csv
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.acceptance.answering import answering
from tests.acceptance.command import JOB, Place, SandboxProcess, as_options, ended
from tests.endpoint.cases import PLAIN
from tests.sandbox.conftest import png

OF_ONE_RUN = {"latency_ms", "first_token_ms", "answered_at", "response_id"}
TIMES = {"seconds", "started_at", "finished_at"}
REPLIES = """
[[reply]]
pattern = "text [36]$"
fault = "500"
[[reply]]
pattern = "not a valid answer"
text = "no"
[[reply]]
pattern = "text 7"
text = "yes and no"
[[reply]]
pattern = "text"
choices = [{text = "yes"}, {text = "no"}]
"""


class Kind(NamedTuple):
    """A job over rows with the columns id, text, gold and photo, and how its run ends."""

    rows: int
    settings: tuple[str, ...]
    code: int
    options: tuple[str, ...] = ()


KINDS = {
    "streams of images, with another server's headers and a key from a file": Kind(
        20,
        (
            "request.stream=true",
            'prompt.image="photo"',
            'endpoint={preset="anthropic", base_url="SANDBOX", api_key_file="key.txt"}',
        ),
        0,
    ),
    "votes and repairs, with rows that fail": Kind(
        20,
        (
            'labels={choices=["yes", "no"], votes=3, repair=1}',
            "request.temperature=1.0",
            "retry.max_attempts=2",
            "retry.max_wait_seconds=0.05",
            "limits.concurrency=1",
        ),
        3,
        options=("--sandbox", "--sandbox-replies", "../replies.toml"),
    ),
    "an evaluation that stops early": Kind(
        300,
        (
            'evaluation={expected="gold", metric="exact", stop={half_width=0.25}}',
            'output.accept=["truncated"]',
            "limits.concurrency=1",
        ),
        0,
    ),
    "a cap, through a proxy": Kind(
        40,
        (
            "budget.usd=0.0015",
            "limits.concurrency=1",
            'endpoint={base_url="http://model.test", auth="none"}',
        ),
        4,
    ),
}


@pytest.fixture(scope="module")
def proxy() -> Iterator[str]:
    """Answers whatever is asked of any server."""
    with answering(lambda _: (200, {"content-type": "application/json"}, json.dumps(PLAIN).encode())) as url:
        yield url


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_workers_change_nothing_but_who_sends(
    kind: Kind, tmp_path: Path, quick_sandbox: SandboxProcess, proxy: str
) -> None:
    (tmp_path / "replies.toml").write_text(REPLIES)
    (tmp_path / "a.png").write_bytes(png(4, 4))
    with (tmp_path / "in.csv").open("w", newline="") as file:
        rows = ((n, f"text {n}", "no", "../a.png") for n in range(kind.rows))
        csv.writer(file).writerows([("id", "text", "gold", "photo"), *rows])
    alone = facts_of(kind, tmp_path / "alone", quick_sandbox, proxy)
    assert alone == facts_of(kind, tmp_path / "workers", quick_sandbox, proxy, "--workers", "local:2")


def facts_of(kind: Kind, folder: Path, sandbox: SandboxProcess, proxy: str, *options: str) -> dict[str, Any]:
    """Runs the job; returns what is to be the same."""
    folder.mkdir()
    place = Place(folder, sandbox, f"sk-test-{uuid.uuid4().hex}")
    place.job_file.write_text(JOB.replace("in.csv", "../in.csv").replace("BASE_URL", sandbox.base_url))
    (folder / "key.txt").write_text(place.key)
    settings = as_options([each.replace("SANDBOX", sandbox.base_url) for each in kind.settings])
    command = ("run", "job.toml", *kind.options, *options, *settings)
    with place.start(*command, environment={"HTTP_PROXY": proxy}) as process:
        done = ended(process)
    assert done.code == kind.code, done.err
    summary = place.summary()
    return {
        "last line": done.last_line,
        "rows": [{key: value for key, value in row.items() if key not in OF_ONE_RUN} for row in place.rows()],
        "summary": {key: value for key, value in summary.items() if key not in TIMES | {"output"}},
        "bill": place.bill(),
    }
