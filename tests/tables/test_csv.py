"""CSV and TSV: strict, exact, and checked to the last line before the first row is handed out."""

import csv
import gzip
import io
import tempfile
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrun.errors import InputError, JobError
from batchrun.tables.options import ReadOptions
from batchrun.tables.reader import open_table
from tests.tables.tables import read_all


def types_of(tmp_path: Path, *values: str) -> str:
    path = tmp_path / "column.csv"
    path.write_text("\n".join(["x,y", *(f"{value},t" for value in values), ""]))
    return str(open_table("column.csv", tmp_path).schema.field("x").type)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1", "-20", "0", ""], "int64"),
        (["9223372036854775807", "-9223372036854775808"], "int64"),
        (["9223372036854775808"], "string"),
        (["007"], "string"),
        (["+1"], "string"),
        (["-0"], "string"),
        ([" 1"], "string"),
        (["1", "2.5"], "string"),
        (["1.0", "2.5", "-0.25", ""], "double"),
        (["3.9", "3.10"], "string"),
        (["1e5"], "string"),
        (["1.5e-7", "1e+300", "-0.0"], "double"),
        (["1.5E-7"], "string"),
        (["0.30000000000000004", "1.7976931348623157e+308"], "double"),
        (["123456789.12345678901"], "string"),
        (["0.300000000000000000001"], "string"),
        (["1e999"], "string"),
        (["1.5", "12345678901234567"], "string"),
        (["1.5", "nan"], "string"),
        (["1,5".replace(",", ";")], "string"),
        (["true", "false"], "bool"),
        (["True", "False", ""], "string"),
        (["TRUE"], "string"),
        (["true", "False"], "string"),
        (["1", "true"], "string"),
        (["2024-01-31", "1000-01-01"], "date32[day]"),
        (["2024-02-30"], "string"),
        (["0000-01-01"], "string"),
        (["2024-1-31"], "string"),
        (['""', "1"], "string"),
        (["", ""], "string"),
        (['"12"', "3"], "int64"),
    ],
)
def test_a_column_gets_a_type_only_where_no_value_loses_anything(
    tmp_path: Path, values: list[str], expected: str
) -> None:
    assert types_of(tmp_path, *values) == expected


def test_the_last_row_of_a_long_file_decides_the_type_too(tmp_path: Path) -> None:
    assert types_of(tmp_path, *map(str, range(200_000)), "n/a") == "string"


def test_typed_values_come_through(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('n,f,b,t\n-1,0.1,true,007\n,,,\n9223372036854775807,1e-7,false,""\n')
    assert read_all(path).to_pydict() == {
        "n": [-1, None, 2**63 - 1],
        "f": [0.1, None, 1e-7],
        "b": [True, None, False],
        "t": ["007", None, ""],
    }


@pytest.mark.parametrize(
    ("content", "line", "problem"),
    [
        (b"a,b\n1,2\n3\n", 3, "1 field, the header has 2"),
        (b"a,b\n1,2\n3,4,5\n", 3, "3 fields, the header has 2"),
        (b'a,b\n"x\ny",2\n3\n', 4, "1 field, the header has 2"),
        (b'a,b\r\n"x\r\n\r\ny",2\r\n\r\n3,4,5\r\n', 6, "3 fields, the header has 2"),
        (b'a,b\n1,2\n1,"x\n2,3\n', 3, "never closed"),
        (b'a,b\n1,2\n1,"x', 3, "never closed"),
        (b'a,b\n1,"u\n2,"v\n', 2, "text after a closing quote"),
        (b'a\nok\n"the "best" one"\n', 3, "text after a closing quote"),
        (
            b"a,b\n1,2\n1,\xff\n",
            3,
            "byte 3 (0xff) is not UTF-8. Convert the file, for example: iconv -f cp1252",
        ),
        (b"a,\xe9\n1,2\n", 1, "byte 3 (0xe9) is not UTF-8"),
        ("a,b\n1,ü\n".encode("utf-16"), 1, "iconv -f utf-16 -t utf-8"),
        (b"a,b\n1,2\n1,\0\n", 3, "NUL byte at byte 3"),
    ],
)
def test_a_fault_is_named_with_its_line(tmp_path: Path, content: bytes, line: int, problem: str) -> None:
    (tmp_path / "bad.csv").write_bytes(content)
    with pytest.raises(InputError) as caught:
        open_table("bad.csv", tmp_path)
    assert f"bad.csv: line {line}" in str(caught.value)
    assert problem in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2


@pytest.mark.parametrize("fault", [b"1\n", b"1,2,3\n", b"1,\xff\n", b'1,"x\n'])
def test_a_fault_in_the_last_line_of_a_long_file_is_found_at_opening(tmp_path: Path, fault: bytes) -> None:
    (tmp_path / "long.csv").write_bytes(b"a,b\n" + b"1,some text\n" * 250_000 + fault)
    with pytest.raises(InputError, match="line 250002"):
        open_table("long.csv", tmp_path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"a,b,a\n1,2,3\n", "columns 1 and 3 are both named 'a'"),
        (b"a,,b\n1,2,3\n", "column 2 has no name"),
        (b"\n\r\n", "no header"),
        (b"", "is empty"),
    ],
)
def test_a_header_that_names_no_columns_is_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "bad.csv").write_bytes(content)
    with pytest.raises(InputError, match=problem):
        open_table("bad.csv", tmp_path)


@pytest.mark.parametrize("content", [b"a,b", b"a,b\n", b"\xef\xbb\xbfa,b\r\n\r\n"])
def test_a_header_alone_is_a_table_without_rows(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "header.csv").write_bytes(content)
    table = open_table("header.csv", tmp_path)
    assert (table.schema.names, table.row_count, list(table.batches())) == (["a", "b"], 0, [])


@pytest.mark.parametrize(
    "content", [b"\xef\xbb\xbfa,b\r\n1,x\r\n\r\n2,y", b"a,b\r1,x\r2,y\r", b"\n\na,b\n1,x\n2,y\n"]
)
def test_byte_order_mark_line_ends_and_blank_lines_are_no_data(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    assert read_all(tmp_path / "a.csv").to_pydict() == {"a": [1, 2], "b": ["x", "y"]}


def test_a_quote_inside_an_unquoted_field_is_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'a,b\n5" screen,x\n')
    assert read_all(tmp_path / "a.csv").to_pydict() == {"a": ['5" screen'], "b": ["x"]}


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_a_header_without_commas_names_its_separator(tmp_path: Path, separator: str) -> None:
    (tmp_path / "a.csv").write_text(f'a{separator}"b, c"\n1{separator}x, y\n')
    assert read_all(tmp_path / "a.csv").to_pydict() == {"a": [1], "b, c": ["x, y"]}


def test_tsv_is_separated_by_tabs_only(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("a,b\tc\n1,5\tx\n")
    assert read_all(tmp_path / "a.tsv").to_pydict() == {"a,b": ["1,5"], "c": ["x"]}


def test_a_field_of_several_megabytes_is_read(tmp_path: Path) -> None:
    text = "long, " * 700_000
    (tmp_path / "a.csv").write_text(f'a,b\n1,"{text}"\n2,short\n')
    assert read_all(tmp_path / "a.csv").to_pydict() == {"a": [1, 2], "b": [text, "short"]}


def test_a_file_that_changes_after_opening_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    table = open_table("a.csv", tmp_path)
    (tmp_path / "a.csv").write_text("a,b\nx,2\n")
    with pytest.raises(InputError, match=r"a\.csv"):
        list(table.batches())


def test_a_cut_off_gzip_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"a,b\n" + b"1,x\n" * 1000)[:-20])
    with pytest.raises(InputError, match=r"a\.csv\.gz"):
        open_table("a.csv.gz", tmp_path)


def test_files_of_a_glob_share_the_type_that_fits_them_all(tmp_path: Path) -> None:
    """A column is float64 or text in all files where one of them needs it; one without values follows."""
    (tmp_path / "1.csv").write_text("n,t,e\n1.5,1,\n")
    (tmp_path / "2.csv").write_text("n,t,e\n2.5,x,7\n")
    assert read_all(tmp_path / "*.csv").to_pydict() == {"n": [1.5, 2.5], "t": ["1", "x"], "e": [None, 7]}


def test_a_given_type_counts_whatever_the_texts_are(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("price,zip,day\n3.10,12345,2024-01-31\n7,01234,\n")
    table = open_table("a.csv", tmp_path, ReadOptions({"price": "float", "zip": "string", "day": "string"}))
    assert [str(kind) for kind in table.schema.types] == ["double", "string", "string"]
    (batch,) = table.batches()
    assert table.template_rows(batch, table.schema.names) == [
        (3.1, "12345", "2024-01-31"),
        (7.0, "01234", None),
    ]


def test_a_cell_that_cannot_have_the_type_given_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('sep=,\n\nprice,text\n3.10,"two\n\nlines"\n\nn/a,x\n')
    with pytest.raises(InputError, match=r"a\.csv: line 8: column 'price' holds a value .* type float"):
        open_table("a.csv", tmp_path, ReadOptions({"price": "float"}))
    with pytest.raises(JobError, match="did you mean 'price'"):
        open_table("a.csv", tmp_path, ReadOptions({"pric": "float"}))


def test_types_are_for_csv(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"price": 1}\n')
    with pytest.raises(JobError, match="only CSV columns"):
        open_table("a.jsonl", tmp_path, ReadOptions({"price": "float"}))


cells = st.sampled_from(
    ["", "5", "-7", "3.10", "1.5", "1e5", "true", "True", "2024-02-29", "007", "n/a", "NaN", "1e-7"]
)


@settings(max_examples=100, deadline=None)
@given(column=st.lists(cells, min_size=1, max_size=6))
def test_a_template_gets_the_text_that_stands_in_the_file(column: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "a.csv").write_text("\n".join(["x,y", *(f"{cell},t" for cell in column), ""]))
        table = open_table("a.csv", Path(folder))
        (batch,) = table.batches()
        assert [text or "" for text in table.template_values("x", batch)] == column


# NUL is refused, and lone surrogates can't be encoded. A number would be typed, so texts begin with a letter.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12).map(
    lambda text: f"t{text}"
)


def read_bytes(content: bytes) -> list[tuple[object, ...]]:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "a.csv").write_bytes(content)
        return [tuple(row.values()) for row in read_all(Path(folder) / "a.csv").to_pylist()]


@settings(max_examples=100, deadline=None)
@given(
    rows=st.lists(st.tuples(texts | st.just(""), texts), min_size=1, max_size=12),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_what_the_csv_module_writes_is_read_back(rows: list[tuple[str, str]], quoting: Literal[0, 1]) -> None:
    """Any text comes back; an empty field is null where the writer left its quotes out."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, quoting=quoting)
    writer.writerows([("a", "b"), *rows])
    empty = "" if quoting == csv.QUOTE_ALL else None
    assert read_bytes(file.getvalue().encode()) == [(first or empty, second) for first, second in rows]


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(st.tuples(st.none() | st.just("") | texts, texts), min_size=1, max_size=12))
def test_nulls_and_empty_strings_stay_apart(rows: list[tuple[str | None, str]]) -> None:
    """Nothing at all is null, two quotes are the empty string, in any mixture."""
    lines = [",".join("" if f is None else '"' + f.replace('"', '""') + '"' for f in row) for row in rows]
    assert read_bytes("\n".join(["a,b", *lines, ""]).encode()) == rows


@pytest.mark.parametrize(
    ("content", "names", "rows"),
    [
        (b",a,b\n0,x,1\n1,y,2\n", ["index", "a", "b"], [(0, "x", 1), (1, "y", 2)]),
        (b'\xef\xbb\xbf"","a\nb",index\n0,"x\ny",1\n', ["unnamed_index", "a\nb", "index"], [(0, "x\ny", 1)]),
        (b"sep=;\nid;text\n1;a, b\n", ["id", "text"], [(1, "a, b")]),
        (b'"SEP=;"\nid;text\n1;a, b\n', ["id", "text"], [(1, "a, b")]),
        (b'sep=\t\r\nid\ttext\r\n1\t"a\r\nb"\r\n', ["id", "text"], [(1, "a\r\nb")]),
    ],
)
def test_headers_of_pandas_and_excel_are_read(
    tmp_path: Path, content: bytes, names: list[str], rows: list[tuple[object, ...]]
) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    table = read_all(tmp_path / "a.csv")
    assert table.column_names == names
    assert [tuple(row.values()) for row in table.to_pylist()] == rows


def test_lines_are_counted_from_the_top_of_a_file_with_a_sep_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"sep=;\nid;text\n1;a\n2;b;c\n")
    with pytest.raises(InputError, match="line 4 has 3 fields"):
        open_table("a.csv", tmp_path)
