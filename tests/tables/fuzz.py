"""Random tables through the reader and the writer: what stands in the input comes back, cell by cell."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from batchrun.client.templates import Templates
from batchrun.tables.csv_types import printed_values
from batchrun.tables.exact_values import exact_values
from batchrun.tables.reader import Table, open_table
from batchrun.tables.storable import as_text
from batchrun.tables.trial import check_values
from batchrun.tables.writer import replace_table
from tests.tables.test_every_type import NESTINGS, of

_CELLS = (
    ["5", "-7", "0", "9223372036854775807", "9223372036854775808", "18446744073709551616"],
    ["3.10", "1.5", "0.30000000000000004", "-0.0", "1e-7", "1.50", "5"],
    ["true", "false"],
    ["True", "False", "TRUE"],
    ["2024-02-29", "2023-02-29", "0001-01-01"],
    ["12e3", "007", "+1", "1,5", "n/a", "NaN", "inf", "-", "=1+1", "'x"],
    [
        "naïve 🙂",
        'a "quoted" text',
        "two\nlines",
        "two\r\nlines",
        " blanks ",
        "semi;colon",
        "tab\there",
        "é\u0301",
    ],
)


def written(path: Path, table: Table) -> Path:
    """The output of a table's input columns, after its trial."""
    check_values(path, table)
    with replace_table(path, table.schema, dict) as output:
        for batch in table.batches(rows=7):
            output.write(pa.RecordBatch.from_arrays(batch.columns, schema=table.schema))
    return path


def check_csv(folder: Path, seed: int) -> None:
    """Raises AssertionError where a cell of a random CSV file doesn't come back as text."""
    random = Random(seed)
    names = [f"c{place}" for place in range(random.randint(1, 6))]
    columns = [random.sample(_CELLS, random.randint(1, 2)) for _ in names]
    rows = [
        ["" if random.random() < 0.1 else random.choice(random.choice(pools)) for pools in columns]
        for _ in range(random.randint(1, 40))
    ]
    rows = [row if len(row) > 1 or row[0] else ["x"] for row in rows]  # a blank line is not a row
    file = io.StringIO(newline="")
    quoting: Literal[0, 1] = random.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
    end = random.choice(["\n", "\r\n"])
    csv.writer(file, quoting=quoting, lineterminator=end).writerows([names, *rows])
    (folder / "in.csv").write_bytes(file.getvalue().encode())
    table = open_table("in.csv", folder)
    values = [row for batch in table.batches() for row in table.template_rows(batch, names)]
    assert [[cell or "" for cell in row] for row in values] == rows
    with written(folder / "out.csv", table).open(newline="", encoding="utf-8") as output:
        assert list(csv.reader(output)) == [names, *rows]
    found = pq.read_table(written(folder / "out.parquet", table))
    for place, name in enumerate(names):
        texts = printed_values(found[name].combine_chunks())
        assert [text or "" for text in texts] == [row[place] for row in rows]


def _json(random: Random, depth: int) -> Any:
    if depth and random.random() < 0.5:
        length = random.randint(0, 3)
        if random.random() < 0.5:
            return [_json(random, depth - 1) for _ in range(length)]
        return {random.choice("abcd"): _json(random, depth - 1) for _ in range(length)}
    scalars = [None, True, False, 0, -5, 2**53 + 1, 2**70, 1.5, 1e300, "", "text", "naïve 🙂\n", "3.10"]
    return random.choice(scalars)


def check_jsonl(folder: Path, seed: int) -> None:
    """Raises AssertionError where a random JSON value doesn't come back, or is rendered otherwise."""
    random = Random(seed)
    names = [f"c{place}" for place in range(random.randint(1, 4))]
    mixed = {name: random.random() < 0.5 for name in names}
    shapes = {name: _json(random, 2) for name in names}
    rows = [
        {name: _json(random, 2) if mixed[name] else shapes[name] for name in names if random.random() < 0.9}
        for _ in range(random.randint(1, 30))
    ]
    rows.append({name: shapes[name] for name in names})
    lines = [json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows]
    (folder / "in.jsonl").write_text("\n".join(lines), encoding="utf-8")
    table = open_table("in.jsonl", folder)
    (batch,) = table.batches([*names, *table.sources(names)])
    templates = Templates([("t", "{{ c0 }}")], names)
    for row, values in zip(rows, table.template_rows(batch, names), strict=True):
        value = row.get("c0")
        if isinstance(value, list | dict):
            text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
            assert templates.render("t", dict(zip(names, values, strict=True))) == text
    output = written(folder / "out.jsonl", table).read_text(encoding="utf-8").splitlines()
    assert [_without_nulls(json.loads(line)) for line in output] == [_without_nulls(row) for row in rows]
    assert pq.read_table(written(folder / "out.parquet", table)).num_rows == len(rows)


def _without_nulls(value: Any) -> Any:
    """An object of a typed column has the keys of all of them."""
    if isinstance(value, dict):
        members = ((name, _without_nulls(member)) for name, member in value.items())
        return {name: member for name, member in members if member is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def check_parquet(folder: Path, seed: int) -> None:
    """Raises AssertionError where a value of a random Parquet file doesn't come back."""
    random = Random(seed)
    data = of(random.choice(NESTINGS)).drop_columns("unknown_zone")  # no text output takes it
    names = random.sample(data.column_names, min(len(data.column_names), random.randint(1, 8)))
    rows = [random.randrange(2) for _ in range(random.randint(1, 30))]
    table = pa.table(
        {name: _taken(data[name], rows) for name in names if _can_be_input(data[name])} | {"n": rows}
    )
    pq.write_table(table, folder / "in.parquet", row_group_size=random.randint(1, 30))
    opened = open_table("in.parquet", folder)
    stored = pq.read_table(folder / "in.parquet")
    lines = written(folder / "out.jsonl", opened).read_text(encoding="utf-8").splitlines()
    back = pq.read_table(written(folder / "out.parquet", opened))
    with written(folder / "out.csv", opened).open(newline="", encoding="utf-8") as file:
        cells = list(csv.DictReader(file))
    for name in stored.column_names:
        values = exact_values(stored[name].combine_chunks())
        texts = [as_text(value) or "" for value in values]
        assert [as_text(json.loads(line)[name]) or "" for line in lines] == texts or "inf" in str(values)
        assert [row[name] for row in cells] == texts or "inf" in str(values)
        assert [as_text(value) or "" for value in exact_values(back[name].combine_chunks())] == texts


def _taken(column: pa.ChunkedArray, rows: list[int]) -> pa.Array:
    whole = column.combine_chunks()
    return pa.concat_arrays([whole.slice(row, 1) for row in rows])


def _can_be_input(column: pa.ChunkedArray) -> bool:
    if "view" in str(column.type):  # pyarrow writes some, but not every slice of them
        return False
    try:
        pq.write_table(pa.table({"x": _taken(column, [0, 1])}), pa.BufferOutputStream(), row_group_size=1)
    except (pa.ArrowException, OSError, TypeError):
        return False
    return True


CHECKS: dict[str, Callable[[Path, int], None]] = {
    "CSV": check_csv,
    "JSON Lines": check_jsonl,
    "Parquet": check_parquet,
}
