"""JSON Lines: one schema over the whole file, and the line of every fault."""

import gzip
from pathlib import Path

import pyarrow as pa
import pytest

from batchrun.errors import InputError
from batchrun.tables.reader import open_table
from tests.tables.tables import read_all


def test_keys_become_columns_in_the_order_in_which_they_come(tmp_path: Path) -> None:
    """Missing keys are null, integers stay integers, what looks like a date stays text."""
    (tmp_path / "a.jsonl").write_text(
        '{"id": 9007199254740993, "day": "2024-01-31 00:00:00"}\r\n\n'
        '{"x": true, "id": null, "f": 1}\n{"f": 0.5}'
    )
    table = read_all(tmp_path / "a.jsonl")
    assert table.schema == pa.schema(
        [("id", pa.int64()), ("day", pa.string()), ("x", pa.bool_()), ("f", pa.float64())]
    )
    assert table.to_pydict() == {
        "id": [9007199254740993, None, None],
        "day": ["2024-01-31 00:00:00", None, None],
        "x": [None, True, None],
        "f": [None, 1.0, 0.5],
    }


def test_nested_values_come_through(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"messages": []}\n{"messages": [{"role": "user", "content": "naïve\\u0000 🙂"}], "none": null}\n'
    )
    table = read_all(tmp_path / "a.jsonl")
    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    assert table.schema.field("messages").type == pa.list_(message)
    assert table.column("messages").to_pylist() == [[], [{"role": "user", "content": "naïve\0 🙂"}]]
    assert table.schema.field("none").type == pa.string()


def test_a_key_that_comes_first_in_the_last_line_is_a_column(tmp_path: Path) -> None:
    """The schema is that of the whole file, not of its first rows."""
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n' * 20_000 + '{"a": 2.5, "late": "x"}\n')
    table = open_table("a.jsonl", tmp_path)
    assert (table.schema.names, table.schema.types) == (["a", "late"], [pa.float64(), pa.string()])
    assert table.row_count == 20_001
    assert sum(batch.num_rows for batch in table.batches(["late"], rows=1000)) == 20_001


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"a": 1}\n\n{"a": \n', "line 3: "),
        (b'{"a": 1} x\n', "line 1: "),
        (b'{"a": 1}\n[1]\n', "line 2 is a list. Each line must be one JSON object"),
        (b"null\n", "line 1 is null"),
        (b'{"a": NaN}\n', "line 1: "),
        (b'{"a": 1e400}\n', "line 1: "),
        (b'{"a": "\xe9"}\n', "line 1, byte 8 (0xe9) is not UTF-8"),
        (b'{"a": 1}\n{"a": "x"}\n', "line 2: 'a' is text, but a number in line 1"),
        (b'{"a": true}\n{"a": 0}\n', "line 2: 'a' is a number, but true or false in line 1"),
        (b'{"a": [{"b": 1}]}\n{"a": [{"b": []}]}\n', "line 2: 'a[].b' is a list, but a number in line 1"),
        (b'{"a": 1}\n{"a": 99999999999999999999}\n', "line 2: 'a' is an integer beyond 64 bits"),
        (b'{"a": 1152921504606846977}\n{"a": 0.5}\n', "1152921504606846977"),
        (b'{"": 1}\n', "has no name"),
        (b"\n\n", "holds no rows"),
    ],
)
def test_a_fault_is_named_with_its_line(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "bad.jsonl").write_bytes(content)
    with pytest.raises(InputError) as caught:
        open_table("bad.jsonl", tmp_path)
    assert "bad.jsonl" in str(caught.value)
    assert problem in str(caught.value)


def test_types_that_differ_far_apart_are_named_with_both_lines(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"a": null}\n' + '{"a": 1}\n' * 20_000 + '{"a": "x"}\n')
    with pytest.raises(InputError, match=r"line 20002: 'a' is text, but a number in line 2 of"):
        open_table("bad.jsonl", tmp_path)


def test_an_integer_that_a_later_fraction_would_round_is_refused(tmp_path: Path) -> None:
    """The check covers chunks that held integers only."""
    (tmp_path / "bad.jsonl").write_text('{"a": 1152921504606846977}\n' * 5000 + '{"a": 0.5}\n' * 5000)
    with pytest.raises(InputError, match="1152921504606846977"):
        open_table("bad.jsonl", tmp_path)


def test_files_of_a_glob_share_all_keys(tmp_path: Path) -> None:
    (tmp_path / "1.jsonl").write_text('{"a": 1}\n')
    (tmp_path / "2.ndjson.gz").write_bytes(gzip.compress(b'{"b": "x"}\n'))
    assert read_all(tmp_path / "[12].*json*").to_pydict() == {"a": [1, None], "b": [None, "x"]}
