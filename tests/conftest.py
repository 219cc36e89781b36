"""What holds for all tests."""

import gc
import os
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st

from batchrun.journal import Journal, create_or_open
from tests.money.journals import start_run

# More workers than cores: how long an example takes says nothing about the code.
settings.register_profile("batchrun", deadline=None)
settings.load_profile("batchrun")

# Also where the environment says no: else each of the processes that tests start compiles batchrun again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """All that is collected stays: a third of the time went into looking for what doesn't."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _table_of_characters() -> None:
    """In a fresh clone Hypothesis makes one, for seconds that no test is to be blamed for."""
    st.text().validate()


@pytest.fixture(scope="session", autouse=True)
def _sighup_ends_a_process() -> None:
    """Under `nohup` it is ignored, also in the processes that tests start, and a run leaves it so."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """A journal in which run 1 has begun."""
    opened = create_or_open(tmp_path / "journal.sqlite")
    start_run(opened)
    yield opened
    opened.close()
