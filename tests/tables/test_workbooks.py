"""Workbooks of other programs than Excel 2007 and later, and sheets with a title."""

import datetime as dt
import zipfile
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import openpyxl
import pytest

from batchrun.errors import InputError
from batchrun.tables.options import ReadOptions
from batchrun.tables.reader import Table, open_table

ROWS: list[dict[str, Any]] = [
    {"id": 1, "text": "schön\nzwei", "price": "3.1", "day": dt.date(2024, 2, 29), "good": True},
    {"id": 12345678901, "text": None, "price": "2", "day": None, "good": False},
]


def rows_of(table: Table) -> list[dict[str, Any]]:
    return [row for batch in table.batches() for row in batch.to_pylist()]


def test_a_workbook_of_excel_97_is_read() -> None:
    """The file was written by xlwt: two sheets, an empty row at the end, two empty columns at the right."""
    table = open_table("reviews.xls", Path(__file__).with_name("data"))
    assert rows_of(table) == ROWS
    assert table.notes[1].endswith("left out as empty: 1 row at the end and 2 columns at the right")


def cell(kind: str = "", text: str = "", value: str = "") -> str:
    given = "".join(f"<text:p>{escape(line)}</text:p>" for line in text.splitlines())
    attributes = f' office:value-type="{kind}"' if kind else ""
    return f"<table:table-cell{attributes} {value}>{given}</table:table-cell>"


def write_ods(path: Path) -> None:
    """A spreadsheet as LibreOffice stores it: repeated empty cells and rows go on to the sheet's end."""
    lines = [
        "".join(cell("string", name) for name in ROWS[0]),
        cell("float", "1", 'office:value="1"')
        + cell("string", "schön\nzwei")
        + cell("float", "3.10 €", 'office:value="3.1"')
        + cell("date", "29.02.24", 'office:date-value="2024-02-29"')
        + cell("boolean", "WAHR", 'office:boolean-value="true"'),
        cell("float", "1,23E+10", 'office:value="12345678901"')
        + cell()
        + cell("float", "2", 'office:value="2"')
        + cell()
        + cell("boolean", "FALSCH", 'office:boolean-value="false"')
        + cell(value='table:number-columns-repeated="1000"'),
    ]
    rows = "".join(f"<table:table-row>{line}</table:table-row>" for line in lines)
    rows += f'<table:table-row table:number-rows-repeated="1000">{cell()}</table:table-row>'
    names = "".join(
        f' xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"'
        for name in ("office", "table", "text")
    )
    content = (
        f"<office:document-content{names}><office:body><office:spreadsheet>"
        f'<table:table table:name="Reviews">{rows}</table:table>'
        "</office:spreadsheet></office:body></office:document-content>"
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        archive.writestr("content.xml", content)
        archive.writestr("META-INF/manifest.xml", "<manifest/>")


def test_a_workbook_of_libreoffice_is_read(tmp_path: Path) -> None:
    write_ods(tmp_path / "a.ods")
    assert rows_of(open_table("a.ods", tmp_path)) == ROWS


def test_a_sheet_may_have_a_title(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    assert book.active is not None
    for line in (["Reviews of May"], [], ["id", "text"], [1, "x"]):
        book.active.append(line)
    book.save(tmp_path / "a.xlsx")
    with pytest.raises(InputError, match=r"If the header is line 3, set input\.skip_lines = 2"):
        open_table("a.xlsx", tmp_path)
    assert rows_of(open_table("a.xlsx", tmp_path, ReadOptions(skip_lines=2))) == [{"id": 1, "text": "x"}]
