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
from batchrun.sandbox.model import Model

ROOT = Path(__file__).parent.parent.parent
SERVERS = ROOT / ".venv-servers" / "bin"
SECONDS_TO_START = 90

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


def run(folder: Path, texts: list[str], *settings: str) -> Ran:
    """Runs a job over `texts` as a process, its keys set as `--set` takes them."""
    with (folder / "in.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("id", "text"), *enumerate(texts)])
    defaults = {
        "input.path": "in.csv",
        "output.path": "out.parquet",
        "prompt.template": "Sentiment of this review, one word: {{ text }}",
        "request.max_tokens": "8",
        "request.temperature": "0",
        "endpoint.preset": "local",
        "limits.concurrency": "4",
    }
    given = [part for key, value in defaults.items() for part in ("--set", f"{key}={value}")]
    given += [part for setting in settings for part in ("--set", setting)]
    command = [sys.executable, "-m", "batchrun", "run", "--json", *given]
    return Ran(folder, subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=150))


def reviews(count: int) -> list[str]:
    """The first texts of the sample reviews."""
    with (ROOT / "sample_data" / "reviews.csv").open(encoding="utf-8", newline="") as file:
        return [row["text"] for _, row in zip(range(count), csv.DictReader(file), strict=False)]


@pytest.fixture(scope="session")
def llama_cpp() -> str:
    """The address of llama.cpp's own server with SmolLM2, on one thread of this process."""
    xllamacpp = pytest.importorskip("xllamacpp", reason="make test-servers installs it")
