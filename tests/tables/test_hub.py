"""Datasets of Hugging Face's hub, through a file system in memory in the place of the hub's."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from batchrun.errors import InputError
from batchrun.tables.reader import open_table


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = pytest.importorskip("fsspec.implementations.memory")
    files = memory.MemoryFileSystem()
    for name, rows in (("a.csv", "id,text\n1,x\n"), ("b.csv", "id,text\n2,y\n")):
        files.pipe(f"/datasets/me/reviews/data/{name}", rows.encode())
    module = ModuleType("huggingface_hub")
    module.HfFileSystem = memory.MemoryFileSystem  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)


@pytest.mark.usefixtures("hub")
def test_files_of_a_dataset_are_read(tmp_path: Path) -> None:
    one = open_table("hf://datasets/me/reviews/data/a.csv", tmp_path)
    assert [batch.to_pydict() for batch in one.batches()] == [{"id": [1], "text": ["x"]}]
    both = open_table("hf://datasets/me/reviews/data/*.csv", tmp_path)
    assert [batch.to_pydict() for batch in both.batches()] == [
        {"id": [1], "text": ["x"]},
        {"id": [2], "text": ["y"]},
    ]


@pytest.mark.usefixtures("hub")
def test_a_file_that_the_hub_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file of the hub matches"):
        open_table("hf://datasets/me/reviews/data/x*.csv", tmp_path)
    with pytest.raises(InputError, match=r"^hf://datasets/me/reviews/data/aa\.csv: no such file on the hub"):
        open_table("hf://datasets/me/reviews/data/aa.csv", tmp_path)


def test_a_dataset_without_the_package_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"pip install 'batchrun-llm\[huggingface\]'"):
        open_table("hf://datasets/me/reviews/a.csv", tmp_path)
