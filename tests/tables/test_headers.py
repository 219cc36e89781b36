"""Where a CSV file's header is, and how its columns are named."""

from pathlib import Path
from typing import Any

import pytest

from batchrun.client.builder import RequestBuilder
from batchrun.errors import InputError, JobError
from batchrun.job.file import make_job
from batchrun.tables.options import ReadOptions
from batchrun.tables.reader import Table, open_table

DECOMPOSED = "cafe\N{COMBINING ACUTE ACCENT}"


def opened(folder: Path, text: str, **options: Any) -> Table:
    (folder / "in.csv").write_bytes(text.encode())
    return open_table("in.csv", folder, ReadOptions(**options))


def rows(table: Table) -> list[dict[str, Any]]:
    return [row for batch in table.batches() for row in batch.to_pylist()]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("Sales of May\nby me\n\nid,text\n1,x\n", 3),
        ("Sales of May\nby me\n\nid,text\n1,x\n", 2),
        ("Sales of May\r\nid,text\r\n1,x\r\n", 1),
        ("Sales of May\rid,text\r1,x\r", 1),
        ('12" records\nid,text\n1,x\n', 1),
        ("\N{ZERO WIDTH NO-BREAK SPACE}Sales;of;May\nid;text\n1;x\n", 1),
        ("Sales of May\nsep=;\nid;text\n1;x\n", 1),
    ],
)
def test_lines_before_the_header_are_left_out(tmp_path: Path, text: str, lines: int) -> None:
    assert rows(opened(tmp_path, text, skip_lines=lines)) == [{"id": 1, "text": "x"}]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Sales of May\nby me\n\nid,text\n1,x\n", 4),
        ("Sales of May,,\nid,text,n\n1,x,2\n", 2),
        ("Sales of May;;\n;;\nid;text;n\n1;x;2\n", 3),
        ("Sales, May\nid,text,n\n1,x,2\n", 2),
    ],
)
def test_a_title_is_told_with_the_setting_that_leaves_it_out(tmp_path: Path, text: str, line: int) -> None:
    with pytest.raises(InputError) as error:
        opened(tmp_path, text)
    assert str(error.value).endswith(
        f"If the header is line {line}, set input.skip_lines = {line - 1} (init: --skip-lines {line - 1})"
    )
    assert rows(opened(tmp_path, text, skip_lines=line - 1))


def test_a_record_with_too_many_fields_is_not_taken_for_a_header(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"line 3 has 3 fields.*Put quotes"):
        opened(tmp_path, "id,text\n1,x\n2,y,z\n3,w\n")


def test_a_fault_after_skipped_lines_is_told_by_the_line_in_the_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="line 5 has 1 field"):
        opened(tmp_path, "A title\n\nid,text\n1,x\n2\n", skip_lines=2)
    with pytest.raises(InputError, match="no header and no rows after 9 lines"):
        opened(tmp_path, "A title\nid,text\n1,x\n", skip_lines=9)


def test_only_csv_has_lines_before_a_header(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"id": 1}\n')
    with pytest.raises(JobError, match="skip_lines"):
        open_table("in.jsonl", tmp_path, ReadOptions(skip_lines=1))


def test_a_blank_before_a_quote_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"line 2 .*A blank stands before a quote"):
        opened(tmp_path, 'id,text\n1, "a, b"\n')


def test_the_same_word_in_another_form_of_unicode_is_told(tmp_path: Path) -> None:
    table = opened(tmp_path, f"{DECOMPOSED}\nx\n")
    job = {
        "input": {"path": "in.csv"},
        "prompt": {"template": "{{ caf\N{LATIN SMALL LETTER E WITH ACUTE} }}"},
        "request": {"model": "m", "max_tokens": 5},
        "output": {"path": "out.csv"},
    }
    with pytest.raises(JobError, match=r"NFC and NFD.*\n.*'cafe\\u0301'"):
        RequestBuilder(make_job(job, tmp_path, sandbox=True), table.schema.names, "s")
    with pytest.raises(JobError, match=r"another Unicode form: 'cafe\\u0301'"):
        opened(tmp_path, f"{DECOMPOSED}\nx\n", types={"caf\N{LATIN SMALL LETTER E WITH ACUTE}": "int"})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("id,text,,\n1,x,,\n2,y,,\n", [{"id": 1, "text": "x"}, {"id": 2, "text": "y"}]),
        ("id;text;\r\n1;x;\r\n", [{"id": 1, "text": "x"}]),
        (",text,\n1,x,\n", [{"index": 1, "text": "x"}]),
        ("\n\n,text\n1,x\n", [{"index": 1, "text": "x"}]),
    ],
)
def test_columns_at_the_right_without_names_and_values_are_left_out(
    tmp_path: Path, text: str, found: list[dict[str, Any]]
) -> None:
    assert rows(opened(tmp_path, text)) == found


def test_columns_left_out_are_told(tmp_path: Path) -> None:
    (note,) = opened(tmp_path, "id,text,,\n1,x,,\n").notes
    assert note.endswith("in.csv: 2 columns at the right without names or values left out")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("id,text,\n1,x,y\n", "column 3 has no name, but values"),
        (",,\n1,x,y\n", "column 1 has no name"),
        ("id,text,,\n1,x,,\n2,y,\n", "line 3 has 3 fields, the header has 4"),
        ("\n\nid,text\n1,x,2\n", "line 4 has 3 fields"),
    ],
)
def test_other_columns_without_names_are_refused(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        opened(tmp_path, text)
