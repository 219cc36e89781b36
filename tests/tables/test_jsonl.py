"""JSON Lines: one schema over the whole file, and the line of every fault."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest

from batchrun.client.templates import Templates
from batchrun.errors import InputError
from batchrun.tables.reader import open_table
from batchrun.tables.text_rows import json_lines
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
        (b'{"a": 1}\n[1]\n', "line 2 is a list. Each row must be one JSON object"),
        (b"null\n", "line 1 is null"),
        (b'{"a": NaN}\n', "line 1: JSON has no NaN. Write null"),
        (b'{"a": "NaN", "b": -Infinity}\n', "line 1: JSON has no -Infinity"),
        (b'{"a": 1e400}\n', "line 1: "),
        (rb'{"a": "\ud83d"}', r"line 1: \ud83d is half of a character"),
        (rb'{"a": "\ud83d\ude00 \uDE00, and so on"}', r"line 1: \uDE00 is half of a character"),
        (rb'{"a": "\ud83d and so on"}', r"line 1: \ud83d is half of a character"),
        (b'{"a": "\xe9"}\n', "line 1, byte 8 (0xe9) is not UTF-8"),
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


@pytest.mark.parametrize(
    "values",
    [
        ["1", '"x"', "null"],
        ["true", "0"],
        ['"text"', '[{"type": "text", "text": "block"}]'],
        ['[{"b": 1}]', '[{"b": [1.50]}]'],
        ["1", "99999999999999999999"],
        ["1152921504606846977", "0.5"],
        ["{}", "{}"],
        ["[{}]"],
        ["[" * 40 + "]" * 40],
        ['{"a": [1, "x"]}'],
    ],
)
def test_values_without_a_type_in_common_stay_json_text(tmp_path: Path, values: list[str]) -> None:
    (tmp_path / "a.jsonl").write_text("".join(f'{{"x": {value}}}\n' for value in values))
    table = read_all(tmp_path / "a.jsonl")
    assert table.schema.field("x").type == pa.string()
    assert table.column("x").to_pylist() == [None if value == "null" else value for value in values]


def test_types_that_differ_far_apart_stay_json_text_too(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": null}\n' + '{"a": 1}\n' * 20_000 + '{"a": "x"}\n')
    column = read_all(tmp_path / "a.jsonl").column("a")
    assert (column.type, column[1].as_py(), column[-1].as_py()) == (pa.string(), "1", '"x"')


def test_an_integer_that_a_later_fraction_would_round_stays_exact(tmp_path: Path) -> None:
    """Chunks that held integers only count too."""
    (tmp_path / "a.jsonl").write_text('{"a": 1152921504606846977}\n' * 5000 + '{"a": 0.5}\n' * 5000)
    assert read_all(tmp_path / "a.jsonl").column("a")[0].as_py() == "1152921504606846977"


@pytest.mark.parametrize(
    ("value", "rendered"),
    [
        ('{"a": 1}', '{"a":1}'),
        ('{"b":[1.50, 1e5, null, 2]}', '{"b":[1.50,1e5,null,2]}'),
        ("[1, 2.0]", "[1,2.0]"),
        ("1.50", "1.50"),
        ("5", "5"),
        ("1e5", "1e5"),
        ('"text"', "text"),
        ("18446744073709551616", "18446744073709551616"),
    ],
)
def test_a_prompt_holds_values_as_they_stand_in_their_line(tmp_path: Path, value: str, rendered: str) -> None:
    """Other lines add neither keys nor nulls, and change no number."""
    others = ['{"z": 2}', "0.25", "[3.5]", '"x"', "null"]
    for other in others:
        (tmp_path / "a.jsonl").write_text(f'{{"x": {value}}}\n{{"x": {other}}}\n')
        table = open_table("a.jsonl", tmp_path)
        (batch,) = table.batches(["x", *table.sources(["x"])])
        row = {"x": table.template_values("x", batch)[0]}
        assert Templates([("t", "{{ x }}")], ["x"]).render("t", row) == rendered, other


def test_a_line_can_be_computed_with(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"x": 1.50, "m": {"n": 1.50}}\n{"x": 1e1, "m": {"n": 1e1}}\n')
    table = open_table("a.jsonl", tmp_path)
    names = ["x", "m"]
    (batch,) = table.batches([*names, *table.sources(names)])
    templates = Templates([("t", "{{ x + 1 }} {{ x > 2 }} {{ m.n }} {{ m.n > 2 }} {{ row }}")], names)
    texts = [
        templates.render("t", dict(zip(names, row, strict=True))) for row in table.template_rows(batch, names)
    ]
    assert texts == [
        '2.5 False 1.5 False {"x":1.50,"m":{"n":1.50}}',
        '11 True 10 True {"x":1e1,"m":{"n":1e1}}',
    ]


def test_json_text_goes_into_json_lines_as_it_stands(tmp_path: Path) -> None:
    lines = b'{"x":1}\n{"x":"two"}\n{"x":[1.50,{"y":null}]}\n{"x":null}\n'
    (tmp_path / "a.jsonl").write_bytes(lines)
    table = open_table("a.jsonl", tmp_path)
    batches = [pa.record_batch(batch.columns, schema=table.schema) for batch in table.batches()]
    assert b"".join(map(json_lines, batches)) == lines


def test_files_of_a_glob_share_all_keys(tmp_path: Path) -> None:
    (tmp_path / "1.jsonl").write_text('{"a": 1}\n')
    (tmp_path / "2.ndjson.gz").write_bytes(gzip.compress(b'{"b": "x"}\n'))
    assert read_all(tmp_path / "[12].*json*").to_pydict() == {"a": [1, None], "b": [None, "x"]}


@pytest.mark.parametrize("text", ['[{"a":1.50},{"a":2}]', '\n[\n  {\n    "a": 1.50\n  },\n  {"a": 2}\n]\n'])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_json_array_is_read_as_rows(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert read_all(tmp_path / name).to_pydict() == {"a": [1.5, 2.0]}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[{"a":1},', "line 1, column 10: Expecting value"),
        ('[\n  {"a":1}\n  {"a":2}\n]', "line 3, column 3: Expecting ',' or ']'"),
        ('[\n  {"a":1}\n]\n{"a":2}\n', "line 4, column 1: Extra data"),
        ('[\n  {"a":1},\n  {"a":}\n]', "line 3, column 8: Expecting value"),
        ('[\n  {"a":1},\n\n  5\n]', "line 4 is a number. Each row must be one JSON object"),
        ('\n[\n  {"a":\n1},\n  {\n"a":NaN}\n]', "line 5: JSON has no NaN"),
        ('{\n  "a": 1\n}\n{\n  "a" 2\n}\n', "line 5, column 7: Expecting ':'"),
        ('{"a": 1\n{"a": 2}\n', "line 1: Input data was truncated"),
    ],
)
def test_a_fault_in_json_of_several_lines_is_named_with_its_line(
    tmp_path: Path, text: str, problem: str
) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError) as error:
        open_table("a.json", tmp_path)
    assert problem in str(error.value)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_objects_written_over_several_lines_are_read(tmp_path: Path, name: str) -> None:
    rows = [{"a": 1, "m": {"k": [1.5, None]}, "n": 2**70}, {"a": 2, "m": "x\ny", "n": 1}]
    (tmp_path / name).write_text("\n".join(json.dumps(row, indent=2) for row in rows))
    table = open_table(name, tmp_path)
    (batch,) = table.batches([*table.schema.names, *table.sources(table.schema.names)])
    assert [json.loads(json.dumps(value)) for value in table.template_values("m", batch)][1] == "x\ny"
    assert table.template_values("n", batch) == [2**70, 1]
    assert batch.column("m").to_pylist() == ['{"k":[1.5,null]}', '"x\\ny"']  # a line of a .jsonl output


def test_bytes_that_are_not_utf8_in_an_array_are_named_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'[\n{"a":\n"it\x92s"}]')
    with pytest.raises(InputError, match=r"line 3, byte 4 \(0x92\).*cp1252"):
        open_table("a.json", tmp_path)
