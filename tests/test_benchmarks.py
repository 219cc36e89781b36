"""The benchmark's server and tables; what they measure is measured by `make bench`."""

import json
import shutil
import time
import urllib.request
from pathlib import Path

import pytest

from batchrun import plan
from batchrun.client.messages.response import read_message
from benchmarks.compare import Pair, comparison
from benchmarks.jobs import Jobs
from benchmarks.peers import PEERS, SCRIPTS, Loop, Peer, version_of
from benchmarks.processes import Usage, measure, python_module
from benchmarks.render import render_all
from benchmarks.rows import text, write_rows
from benchmarks.server import BenchmarkError, Server, compile_server, serving
from benchmarks.tables import Goal, goals_table, peers_table

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_server(tmp_path_factory.mktemp("server"))


def post(server: Server, path: str) -> bytes:
    url = f"http://127.0.0.1:{server.port}{path}"
    with urllib.request.urlopen(urllib.request.Request(url, b'{"any": "body"}'), timeout=10) as response:
        body: bytes = response.read()
        return body


def test_comparison_has_medians_ranges_and_the_ratios_of_pairs() -> None:
    pairs = [Pair(Usage(2.0, 4.0, 100), Usage(1.0, 4.0, 50)), Pair(Usage(4.0, 4.0, 100), Usage(3.0, 4.0, 50))]
    rows = comparison(["a", "b"], pairs, 10_000).splitlines()
    assert rows[0] == "| 10,000 rows | a | b | ratio |"
    assert rows[2] == "| CPU per row, us | 300 (200-400) | 200 (100-300) | 0.62 (0.50-0.75) |"


@needs_compiler
def test_server_answers_messages_with_ids_of_their_own(program: Path) -> None:
    with serving(program) as server:
        first, second = (read_message(post(server, "/v1/messages"))[0] for _ in range(2))
        assert server.counts().requests == server.counts().answers == 2
    assert first.id != second.id
    assert first.usage is not None
    assert first.usage.input_tokens == 14


@needs_compiler
def test_server_speaks_openais_protocol_where_it_is_asked_to(program: Path) -> None:
    with serving(program) as server:
        answer = json.loads(post(server, "/v1/chat/completions"))
    assert answer["choices"][0]["finish_reason"] == "stop"


@needs_compiler
@pytest.mark.parametrize("sigma", [0.0, 0.1])
def test_server_waits_before_it_answers(program: Path, sigma: float) -> None:
    with serving(program, delay=0.2, sigma=sigma) as server:
        started = time.perf_counter()
        post(server, "/v1/messages")
        assert 0.1 < time.perf_counter() - started < 2


def test_without_a_compiler_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(BenchmarkError, match="gcc or clang"):
        compile_server(tmp_path)


def test_command_that_fails_or_hangs_is_no_measurement(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="Exit code 2"):
        measure(python_module("batchrun", "run", "missing.toml"), tmp_path / "log")
    with pytest.raises(BenchmarkError, match="Not finished"):
        measure(["sleep", "60"], tmp_path / "log", most_seconds=0.1)


def test_goal_says_by_how_much_it_is_missed() -> None:
    assert Goal("", "", 3.0, most=3.0).verdict == "met"
    assert Goal("", "", 4.5, most=3.0).verdict == "missed by 50%"
    assert Goal("", "", 0.5, least=1.0).verdict == "missed by 50%"
    assert "| at least 1 | missed by 50% |" in goals_table([Goal("rate", "", 0.5, least=1.0)])


def test_peer_that_could_not_be_measured_is_named_with_the_reason() -> None:
    loop = Loop(rows=1_000, wall=2.0, cpu=0.1, peak_mb=50)
    table = peers_table({"ours": loop}, {PEERS[0]: "it has no wheel"}, version_of)
    assert "| ours | 100 | 500 | 50 (1,000 rows) |" in table
    assert "not measured: it has no wheel" in table


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.script)
def test_every_peer_has_a_script_and_a_pinned_version(peer: Peer) -> None:
    assert (SCRIPTS / peer.script).exists()
    assert "==" in version_of(peer)


def test_a_plan_and_its_yardstick_make_the_same_prompts(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows5.csv", 5)
    prompts = [f"Sentiment of this review, one word: {text(row)}" for row in range(5)]
    assert render_all(str(tmp_path / "rows5.csv")) == sum(map(len, prompts))
    jobs = Jobs(tmp_path)
    planned = plan(jobs.to_plan(jobs.input(5, "csv")).file)
    assert planned["rows"]["total"] == 5
    assert planned["first_request"]["messages"][0]["content"] == prompts[0]
