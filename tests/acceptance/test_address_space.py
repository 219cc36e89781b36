"""A limit on the address space is named, and no library fails under it."""

import resource
import subprocess
import sys

import pytest

from batchrun.cli.imports import LEAST_ADDRESS_SPACE, heavy_imports
from batchrun.errors import StorageError
from tests.acceptance.command import Place


def test_too_little_address_space_is_told_in_two_lines(place: Place) -> None:
    place.texts("one")
    run = [sys.executable, "-m", "batchrun", "run", str(place.job_file)]
    done = subprocess.run(
        ["/bin/sh", "-c", 'ulimit -v 600000; exec "$@"', "sh", *run],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 2
    assert "600,000 KB of address space (RLIMIT_AS)" in done.stderr
    assert place.requests == 0


@pytest.mark.parametrize("limit", [LEAST_ADDRESS_SPACE, resource.RLIM_INFINITY])
def test_enough_address_space_is_no_matter(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    with heavy_imports():
        pass


def test_a_byte_too_little_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (LEAST_ADDRESS_SPACE - 1, 0))
    with pytest.raises(StorageError, match="ulimit -v"), heavy_imports():
        pass
