"""The imports of the command line."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrun.cli.imports import heavy_imports
from batchrun.journal import create_or_open
from batchrun.runs.run_folder import make_run_folder
from batchrun.sandbox import Settings, background

THREADS = "OPENBLAS_NUM_THREADS"


def test_numpy_is_imported_without_threads_and_the_environment_is_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(THREADS, raising=False)
    with heavy_imports():
        assert os.environ[THREADS] == "1"
    assert THREADS not in os.environ


def test_a_number_of_threads_that_the_user_gives_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(THREADS, "3")
    with heavy_imports():
        assert os.environ[THREADS] == "3"
    assert os.environ[THREADS] == "3"


def imported_by(folder: Path, *arguments: str) -> set[str]:
    """The packages that a command has imported by its end."""
    code = (
        "import atexit, sys; atexit.register(lambda: print(*sys.modules)); sys.argv[0] = 'batchrun';"
        "from batchrun.cli import main; main()"
    )
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}


def test_help_imports_nothing_that_takes_long(tmp_path: Path) -> None:
    assert not imported_by(tmp_path, "--help") & {"msgspec", "polars", "pyarrow", "numpy", "anyio", "rich"}


def test_status_reads_the_journal_alone(tmp_path: Path) -> None:
    job = "input.path = 'in.csv'\nprompt.template = 'x'\nrequest.model = 'm'\noutput.path = 'out.csv'\n"
    (tmp_path / "job.toml").write_text(job)
    journal = make_run_folder(tmp_path / "out.run").journal
    create_or_open(journal).close()
    assert not imported_by(tmp_path, "status", "job.toml") & {"polars", "pyarrow", "numpy", "anyio", "email"}


def test_a_run_of_a_small_table_does_without_what_takes_longest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY_OF_TEST_IMPORTS", "a-key")
    pq.write_table(pa.table({"text": ["a", "b"], "n": [1, 2]}), tmp_path / "in.parquet")
    options = ("--input", "in.parquet", "--prompt", "{{ text }}{{ n }}", "--output", "out.parquet")
    request = ("--model", "abliterated-model", "--max-tokens", "16")
    with background(Settings()) as server:
        address = ("--base-url", server.base_url, "--set", "endpoint.api_key_env=KEY_OF_TEST_IMPORTS")
        imported = imported_by(tmp_path, "run", *options, *request, *address)
    assert (tmp_path / "out.parquet").exists()
    assert not imported & {"polars", "scipy", "httpx", "pyreqwest", "rich", "starlette"}
