"""The imports of the command line."""

import os

import pytest

from batchrun.cli.imports import heavy_imports

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
