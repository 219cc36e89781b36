"""Sheets: what a spreadsheet must not run or spill, and what it may have made of a file."""

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.errors import InputError, OutputError
from batchrun.tables.sheet import MOST_CHARACTERS, read_sheet, write_sheet

HEADER = ("id", "text")
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)


def cells(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "-x", " =1"])
def test_a_cell_that_could_be_a_formula_is_none_and_reads_as_before(tmp_path: Path, cell: str) -> None:
    path = tmp_path / "s.csv"
    write_sheet(path, HEADER, [("1", cell)], replace=False)
    assert cells(path)[1][1] == f"'{cell}"
    assert read_sheet(path, HEADER) == [{"id": "1", "text": cell}]


@pytest.mark.parametrize("cell", ["-1", "-0.5", "'quoted'", "a=b", "", 'say "x", or\nnot', "ü日本"])
def test_other_cells_stay_as_they_are(tmp_path: Path, cell: str) -> None:
    path = tmp_path / "s.csv"
    write_sheet(path, HEADER, [("1", cell)], replace=False)
    assert cells(path)[1][1] == cell
    assert read_sheet(path, HEADER) == [{"id": "1", "text": cell}]


@given(st.lists(texts.map(str.strip).filter(lambda cell: not cell.startswith("'")), max_size=5))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, written: list[str]) -> None:
    path = tmp_path_factory.mktemp("sheet") / "s.csv"
    write_sheet(path, HEADER, [(str(n), cell) for n, cell in enumerate(written)], replace=False)
    assert [row["text"] for row in read_sheet(path, HEADER)] == written


def test_a_cell_that_no_spreadsheet_holds_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    write_sheet(path, HEADER, [("1", "x" * 40_000)], replace=False)
    assert cells(path)[1][1] == "x" * MOST_CHARACTERS + "\n[10000 more characters]"


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_any_spreadsheet_s_file_is_read(tmp_path: Path, delimiter: str, encoding: str) -> None:
    """Other columns, another order of them and empty lines are no matter."""
    path = tmp_path / "s.csv"
    lines = [["text", "more", "id"], ["ü, x; y", "", " 1 "], ["", "", ""], ["b", "z", "2"]]
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(lines)
    assert read_sheet(path, HEADER) == [{"id": "1", "text": "ü, x; y"}, {"id": "2", "text": "b"}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id,txt\n1,a\n", "lacks the columns 'text'"),
        (b"", "lacks the columns 'id', 'text'"),
        ("id,text\n1,ü\n".encode("cp1252"), "is not UTF-8"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "s.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_sheet(path, HEADER)


def test_a_file_that_is_there_is_left_alone_unless_it_is_to_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("edited")
    with pytest.raises(OutputError, match="may hold corrections"):
        write_sheet(path, HEADER, [], replace=False)
    assert path.read_text() == "edited"
    write_sheet(path, HEADER, [], replace=True)
    assert cells(path) == [list(HEADER)]
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No such file"):
        write_sheet(tmp_path / "none" / "s.csv", HEADER, [], replace=False)
