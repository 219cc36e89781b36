"""The examples of the Python API, in docstrings and on its page, print what they say."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "python.md"


@pytest.fixture(autouse=True)
def folder_with_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ABLIT_KEY", raising=False)
    Path("reviews.csv").write_text("id,text\n1,Broke at once.\n2,Lovely.\n3,It holds the phone.\n")


@pytest.mark.parametrize("module", ["batchrun.api", "batchrun.runs.result"])
def test_docstrings(module: str) -> None:
    failed, tried = doctest.testmod(import_module(module))
    assert failed == 0
    assert tried > 0


def test_the_page() -> None:
    failed, tried = doctest.testfile(str(PAGE), module_relative=False)
    assert (failed, tried > 10) == (0, True)
