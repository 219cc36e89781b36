"""The servers of others that batchrun is run against, and a job over part of the sample data."""

import csv
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from batchrun.sandbox import SettingsError
from batchrun.sandbox.model import weights_file

ROOT = Path(__file__).parent.parent.parent
SERVERS = ROOT / ".venv-servers" / "bin"
SECONDS_TO_START = 60
_KEPT: list[Any] = []  # a server that is collected ends

LITELLM_MODELS = """
model_list:
  - model_name: mock
    litellm_params: {model: anthropic/mock, api_key: none, mock_response: positive}
  - model_name: limited
    litellm_params: {model: anthropic/mock, api_key: none, mock_response: litellm.RateLimitError}
  - model_name: smollm2
    litellm_params: {model: openai/smollm2, api_key: none, api_base: LLAMA_CPP/v1}
litellm_settings: {num_retries: 0}
router_settings: {num_retries: 0, disable_cooldowns: true}
general_settings: {telemetry: false}
"""


class Ran:
    """How `batchrun run` ended, and its output."""

    def __init__(self, folder: Path, done: "subprocess.CompletedProcess[str]") -> None:
        self.code = done.returncode
        self.messages = done.stderr
        self.summary: dict[str, Any] = json.loads(done.stdout) if done.stdout else {}
        output = folder / "out.parquet"
        self.rows = pl.read_parquet(output) if output.exists() else pl.DataFrame()


def run(folder: Path, texts: list[str], *settings: str, options: tuple[str, ...] = ()) -> Ran:
    """Runs a job over `texts` as a process, its keys set as `--set` takes them."""
    with (folder / "in.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("id", "text"), *enumerate(texts)])
    defaults = {
        "input.path": "in.csv",
        "output.path": "out.parquet",
        "prompt.template": "Sentiment of this review, one word: {{ text }}",
        "request.max_tokens": "8",
        "output.accept": '["truncated"]',  # these models say more
        "request.temperature": "0",
        "endpoint.preset": "local",
        "limits.concurrency": "4",
    }
    given = [part for key, value in defaults.items() for part in ("--set", f"{key}={value}")]
    given += [part for setting in settings for part in ("--set", setting)]
    command = [sys.executable, "-m", "batchrun", "run", "--json", *given, *options]
    return Ran(folder, subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60))


def reviews(count: int) -> list[str]:
    """The first texts of the sample reviews."""
    with (ROOT / "sample_data" / "reviews.csv").open(encoding="utf-8", newline="") as file:
        return [row["text"] for _, row in zip(range(count), csv.DictReader(file), strict=False)]


@pytest.fixture(scope="session")
def llama_cpp() -> str:
    """The address of llama.cpp's own server, in this process, on one thread and with a short context."""
    try:
        weights = weights_file()
    except SettingsError as error:
        pytest.skip(f"make test-servers: {error}")
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(weights)
    parameters.n_ctx = 2048
    parameters.n_parallel = 1
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    parameters.verbosity = -1
    server = xllamacpp.Server(parameters)
    _KEPT.append(server)
    return str(server.listening_address)


@pytest.fixture(scope="session")
def litellm(llama_cpp: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of LiteLLM's proxy: mock models, and llama.cpp's server behind its own translation."""
    folder = tmp_path_factory.mktemp("litellm")
    (folder / "models.yaml").write_text(LITELLM_MODELS.replace("LLAMA_CPP", llama_cpp))
    with serving("litellm", "--config", "models.yaml", folder=folder, health="/health/liveliness") as address:
        yield address


@pytest.fixture
def llmock(tmp_path: Path) -> Iterator[str]:
    """The address of a fresh LLMock, which breaks requests and judges what the client makes of it.

    Its streams take a while, so that it notices a client that hangs up at a broken chunk before the last one.
    """
    command = ("llmock", "serve", "--stream-chunk-delay-ms", "100")
    with serving(*command, folder=tmp_path, health="/health") as address:
        yield address


@contextmanager
def serving(*command: str, folder: Path, health: str) -> Iterator[str]:
    """A server from .venv-servers on a free port, from when it is healthy until the block ends."""
    program = SERVERS / command[0]
    if not program.exists():
        pytest.skip("make test-servers installs it")
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    arguments = [str(program), *command[1:], "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(arguments, cwd=folder, stdout=log, stderr=log, env=environment)
        try:
            await_health(process, address + health)
            yield address
        finally:
            process.terminate()
            process.wait(timeout=20)


def await_health(process: "subprocess.Popen[bytes]", url: str) -> None:
    """Returns when the server answers; fails where it ends first or takes too long."""
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server ended at its start; see server.log"
        try:
            if httpx.get(url, timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    pytest.fail(f"no answer from {url} within {SECONDS_TO_START} s")


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
