"""A sandbox in a process of its own for all tests of a worker, and a place for each test."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.command import JOB, Place, SandboxProcess, sandbox_process


@pytest.fixture(scope="session")
def quick_sandbox() -> Iterator[SandboxProcess]:
    with sandbox_process() as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def slow_sandbox() -> Iterator[SandboxProcess]:
    """Every answer takes 0.4 seconds: time to look at a run, or to interrupt it."""
    with sandbox_process("--latency", "0.4") as sandbox:
        yield sandbox


@pytest.fixture
def place(tmp_path: Path, quick_sandbox: SandboxProcess) -> Iterator[Place]:
    """A folder with a job for in.csv, which the test writes. Faults and credits end with the test."""
    yield _place(tmp_path, quick_sandbox)
    quick_sandbox.set("faults", {})
    quick_sandbox.set("credits", {"credits": None})


@pytest.fixture
def slow_place(tmp_path: Path, slow_sandbox: SandboxProcess) -> Place:
    return _place(tmp_path, slow_sandbox)


def _place(folder: Path, sandbox: SandboxProcess) -> Place:
    place = Place(folder, sandbox, f"sk-test-{uuid.uuid4().hex}")
    place.job_file.write_text(JOB.replace("BASE_URL", sandbox.base_url))
    return place
