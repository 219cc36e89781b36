"""The live pages over HTTP: for one browser that has the token, and inert whatever the texts are."""

import csv
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from batchrun.client.server import Server
from batchrun.job.file import load_job
from batchrun.runs.run import run_job
from batchrun.runs.view.app import POLICY, Pages, _plain_name, application
from batchrun.runs.view.jobs import FoundJob, find_jobs
from batchrun.sandbox import Settings, background
from tests.looking.conftest import HOSTILE_ANSWER, HOSTILE_PROMPT, ROWS, Finished, write_job
from tests.looking.test_report import Elements

PORT = 8123
HOST = f"127.0.0.1:{PORT}"
OWN = {"origin": f"http://{HOST}"}

ClientOf = Callable[[list[FoundJob]], TestClient]


@pytest.fixture(scope="module")
def client_of() -> Iterator[ClientOf]:
    """Opens pages, which are closed at the end."""
    with ExitStack() as opened:

        def made(found: list[FoundJob]) -> TestClient:
            shown = opened.enter_context(closing(Pages(found, "token", sandbox=False)))
            return TestClient(application(shown, PORT), base_url=f"http://{HOST}", follow_redirects=False)

        yield made


@pytest.fixture(scope="module")
def client(finished: Finished, tmp_path_factory: pytest.TempPathFactory, client_of: ClientOf) -> TestClient:
    folder = tmp_path_factory.mktemp("others")
    write_job(folder)
    found = [
        *find_jobs([finished.folder], load_job),
        *find_jobs([folder], load_job),
        FoundJob("broken.toml", None, "why <b>"),
    ]
    return client_of(found)


def html(client: TestClient, path: str, status: int = 200) -> str:
    """The page, once it has been made."""
    until = time.monotonic() + 20
    while True:
        answer = client.get(f"/token/{path}")
        assert answer.status_code == status, answer.text
        if "are being read" not in answer.text or time.monotonic() > until:
            return str(answer.text)


PAGES = ("", "job/1/", "job/1/live", "job/1/rows", "job/1/row/21", "job/2/")


@pytest.mark.parametrize("path", PAGES)
def test_a_page_loads_only_its_own_files_and_has_no_script_in_it(client: TestClient, path: str) -> None:
    elements = Elements(html(client, path))
    for name, attributes in elements.found:
        assert not [key for key in attributes if key.startswith("on") or key == "style"], name
        for key in ("href", "src", "action"):
            assert (attributes.get(key) or "#").startswith(("#", "/token/")), attributes
    assert elements.inside == {"script": [], "style": []}
    assert not {"img", "iframe", "object", "embed", "base"} & {name for name, _ in elements.found}


@pytest.mark.parametrize("path", ["job/1/", "job/1/rows", "job/1/rows?text=script", "job/1/row/21"])
def test_hostile_texts_are_shown_and_are_no_markup(client: TestClient, path: str) -> None:
    page = html(client, path)
    assert HOSTILE_ANSWER not in page
    assert HOSTILE_PROMPT[:20] not in page
    assert "<script>alert(1)" in Elements(page).text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", page)


def test_a_choice_in_the_url_is_no_markup(client: TestClient) -> None:
    for query in (
        "text=%22><script>alert(1)</script>",
        "label=<b>&column=id&value=<script>",
        "column=<script>",
    ):
        answer = client.get(f"/token/job/1/rows?{query}")
        assert "<script>" not in answer.text.replace('<script src="/token/view.js"></script>', "")


def test_every_answer_has_the_strict_headers(client: TestClient) -> None:
    for path in ("/token/", "/token/view.js", "/token/job/9/", "/", "/token/job/1/rows?column=nope"):
        headers = client.get(path).headers
        assert headers["content-security-policy"] == POLICY
        assert "unsafe" not in POLICY
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "set-cookie" not in headers


@pytest.mark.parametrize("path", ["/", "/token", "/tokem/", "/tokenx/", "/view.js", "//token/"])
def test_nothing_is_shown_without_the_token(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert "out.parquet" not in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "example.org"},
        {"host": f"example.org:{PORT}"},
        {"host": "127.0.0.1:1"},
        {"host": ""},
        {"origin": "http://example.org"},
        {"origin": "null"},
        {"origin": f"https://{HOST}"},
    ],
)
def test_a_foreign_host_or_origin_is_refused(client: TestClient, headers: dict[str, str]) -> None:
    assert client.get("/token/", headers=headers).status_code == 403


def test_a_change_needs_an_origin(client: TestClient) -> None:
    for path in ("set", "row/1"):
        assert client.post(f"/token/job/1/{path}", data={"stop": "true"}).status_code == 403
        foreign = {"origin": "http://example.org"}
        assert client.post(f"/token/job/1/{path}", data={"stop": "true"}, headers=foreign).status_code == 403
    assert client.post("/token/job/1/", headers=OWN).status_code == 405
    assert client.post("/tokem/job/1/set", data={"stop": "true"}, headers=OWN).status_code == 404


def test_the_name_localhost_is_as_good(client: TestClient) -> None:
    headers = {"host": f"localhost:{PORT}", "origin": f"http://localhost:{PORT}"}
    assert client.get("/token/", headers=headers).status_code == 200


def test_the_table_of_jobs_names_each_with_its_state_or_fault(client: TestClient) -> None:
    page = Elements(html(client, "")).text
    assert "ended with 3" in page
    assert "not run yet" in page
    assert "why <b>" in page


def test_a_job_file_that_changes_is_read_again(
    finished: Finished, tmp_path: Path, client_of: ClientOf
) -> None:
    for name in ("job.toml", "in.parquet", "out.parquet"):
        shutil.copy(finished.folder / name, tmp_path / name)
    shutil.copytree(finished.folder / "out.run", tmp_path / "out.run")
    client = client_of(find_jobs([tmp_path], load_job))
    text = (tmp_path / "job.toml").read_text()
    for change, shown, status in [
        (text, "settled of 1", 200),
        (text.replace("usd = 1.0", "usdd = 1.0"), "usdd", 400),
        (text.replace("usd = 1.0", "usd = 7.5"), "settled of 7.5", 200),
    ]:
        (tmp_path / "job.toml").write_text(change)
        os.utime(tmp_path / "job.toml", ns=(0, time.time_ns()))  # however coarse the file system's clock
        assert shown in Elements(html(client, "job/1/", status)).text


def test_one_job_is_shown_at_once(finished: Finished, tmp_path: Path, client_of: ClientOf) -> None:
    client = client_of(find_jobs([finished.folder / "job.toml"], load_job))
    assert client.get("/token/").headers["location"] == "/token/job/1/"


def test_a_job_s_page_has_all_parts_of_the_report(client: TestClient) -> None:
    elements = Elements(html(client, "job/1/"))
    parts = [attributes["id"] for name, attributes in elements.found if attributes.get("class") == "part"]
    assert parts == ["run", "answers", "evaluation", "runs", "read"]
    live = Elements(html(client, "job/1/live"))
    parts = [attributes["id"] for name, attributes in live.found if attributes.get("class") == "part"]
    assert parts == ["run"]


def test_groups_by_a_column_are_shown_on_request(client: TestClient) -> None:
    assert "Cost by language" in html(client, "job/1/?by=language")
    page = Elements(html(client, "job/1/?by=nope")).text
    assert "'nope'" in page


def test_a_job_that_was_never_run_says_so(client: TestClient) -> None:
    assert "Nothing has been run yet" in html(client, "job/2/")
    assert "First: batchrun run" in html(client, "job/2/rows", 400)
    assert "why <b>" in Elements(html(client, "job/3/", 400)).text
    assert client.get("/token/job/4/").status_code == 404
    assert "no row 61" in html(client, f"job/1/row/{ROWS + 1}", 400)
    assert "no row 0" in html(client, "job/1/row/0", 400)


def test_the_rows_of_a_page_are_those_of_the_url(client: TestClient) -> None:
    page = html(client, "job/1/rows?column=language&value=de&sort=id&descending=1&page=1")
    numbers = [int(number) for number in re.findall(r"/row/(\d+)\?", page)]
    assert numbers == [
        row + 1 for row in sorted(range(0, ROWS, 4), key=lambda row: f"id-{row}", reverse=True)
    ]
    assert len(re.findall(r"/row/\d+\?", html(client, "job/1/rows"))) == 50
    assert len(re.findall(r"/row/\d+\?", html(client, "job/1/rows?page=2"))) == 10
    assert len(re.findall(r"/row/\d+\?", html(client, "job/1/rows?page=9999"))) == 10


def test_what_is_chosen_can_be_downloaded(client: TestClient) -> None:
    html(client, "job/1/rows")
    answer = client.get("/token/job/1/rows.csv?status=ok&column=language&value=de")
    assert answer.headers["content-type"].startswith("text/csv")
    assert "attachment" in answer.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert rows
    assert {row["language"] for row in rows} == {"de"}
    assert {row["status"] for row in rows} == {"ok"}


@pytest.mark.parametrize(
    ("job", "name"), [("été.toml", "_t_"), ('a"\r\nX: y.toml', "a___X: y"), ("\x7f\\b.toml", "__b")]
)
def test_a_download_s_name_has_only_what_a_header_may_have(job: str, name: str) -> None:
    assert _plain_name(job) == name


def test_a_row_s_page_has_its_texts_its_attempts_and_the_rows_beside_it(client: TestClient) -> None:
    page = Elements(html(client, "job/1/row/11?status=failed"))
    assert "[sandbox:flag hate] ten" in page.text
    assert "content_flagged" in page.text or "refused" in page.text
    links = [attributes.get("rel") for name, attributes in page.found if name == "a"]
    assert not {"prev", "next"} & set(links)
    links = [attributes.get("rel") for _, attributes in Elements(html(client, "job/1/row/11")).found]
    assert {"prev", "next"} <= set(links)


def test_a_correction_is_saved_and_shown(finished: Finished, tmp_path: Path, client_of: ClientOf) -> None:
    for name in ("job.toml", "in.parquet", "out.parquet"):
        shutil.copy(finished.folder / name, tmp_path / name)
    shutil.copytree(finished.folder / "out.run", tmp_path / "out.run")
    client = client_of(find_jobs([tmp_path / "job.toml"], load_job))
    said = {"correct": "no", "note": '"><script>'}
    answer = client.post("/token/job/1/row/2?status=ok", data=said, headers=OWN)
    assert (answer.status_code, answer.headers["location"]) == (303, "/token/job/1/row/2?status=ok")
    page = html(client, "job/1/row/2")
    assert 'value="no"' in page
    assert "&quot;&gt;&lt;script&gt;" in page
    answer = client.post("/token/job/1/row/2", data={"correct": "perhaps"}, headers=OWN)
    assert (answer.status_code, "not a valid label" in answer.text) == (400, True)
    assert client.post("/token/job/1/row/2", content=b"x" * 1_000_001, headers=OWN).status_code == 413
    assert client.post("/token/job/1/row/2", content=b"\xff", headers=OWN).status_code == 400


def test_a_run_takes_a_new_limit_and_a_stop_from_its_page(tmp_path: Path, client_of: ClientOf) -> None:
    job = write_job(tmp_path, limits={"concurrency": 1}, evaluation=None)
    summaries: list[dict[str, Any]] = []
    with background(Settings(latency=0.5)) as slow:
        server = Server(slow.base_url, "key", sandbox=True)
        run = threading.Thread(target=lambda: summaries.append(dict(run_job(job, server, quiet=True))))
        run.start()
        client = client_of(find_jobs([tmp_path / "job.toml"], load_job))
        until = time.monotonic() + 30
        while "A run is going on" not in client.get("/token/job/1/").text:
            assert time.monotonic() < until
        form = {"was.limits.concurrency": "1", "limits.concurrency": "2"}
        answer = client.post("/token/job/1/set", data=form, headers=OWN)
        assert (answer.status_code, answer.headers["location"]) == (303, "/token/job/1/")
        assert "limits.concurrency" in Elements(client.get("/token/job/1/live").text).text
        assert "Read all rows again" in html(client, "job/1/rows")
        answer = client.post("/token/job/1/again?text=a", data={"page": "rows"}, headers=OWN)
        assert (answer.status_code, answer.headers["location"]) == (303, "/token/job/1/rows?text=a")
        assert client.post("/token/job/1/set", data={"stop": "true"}, headers=OWN).status_code == 303
        run.join(30)
        assert "Stopped by" in summaries[0]["reason"] or "stop" in summaries[0]["reason"].lower()
    answer = client.post("/token/job/1/set", data={"stop": "true"}, headers=OWN)
    assert (answer.status_code, "No run is going on" in answer.text) == (400, True)


def test_the_command_prints_the_address_and_ends_with_ctrl_c(finished: Finished) -> None:
    command = [sys.executable, "-m", "batchrun", "view", str(finished.folder), "--no-browser"]
    lowest = min(19, os.getpriority(os.PRIO_PROCESS, 0) + 19)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{32}/", address)
            # At the lowest priority a machine that is busy lets it wait.
            answer: Any = httpx.get(address, follow_redirects=True, trust_env=False, timeout=25)
            assert (answer.status_code, os.getpriority(os.PRIO_PROCESS, process.pid)) == (200, lowest)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=25)
        finally:
            process.kill()
    assert (process.returncode, "Traceback" in said) == (0, False)
