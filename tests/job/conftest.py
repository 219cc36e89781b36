import re
from collections.abc import Callable
from pathlib import Path

import pytest

from batchrun.errors import JobError
from batchrun.job.file import load_job

MINIMAL = """
[input]
path = "reviews.csv"
[prompt]
template = "{{ text }}"
[output]
path = "labels.parquet"
[request]
model = "abliterated-model"
"""

Refusal = Callable[..., str]


@pytest.fixture
def minimal(tmp_path: Path) -> Path:
    """A job file with nothing but what every job needs; it ends inside [request]."""
    path = tmp_path / "job.toml"
    path.write_text(MINIMAL)
    return path


@pytest.fixture
def refusal(minimal: Path) -> Refusal:
    """The error text of the minimal job with lines added at its end, and with overrides."""

    def refuse(added: str = "", *overrides: str, sandbox: bool = False) -> str:
        minimal.write_text(MINIMAL + added)
        with pytest.raises(JobError) as caught:
            load_job(minimal, overrides, sandbox=sandbox)
        assert caught.value.exit_code == 2
        text = str(caught.value)
        assert text.startswith(str(minimal))
        assert len(text.splitlines()) <= 2
        return re.sub(r"^(:\d+| with the options given)?: ", "", text.removeprefix(str(minimal)))

    return refuse
