"""A job's rows as requests: schema, chunks, and what is checked before anything is sent."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrun.client.request import Request
from batchrun.errors import JobError, OutputError
from batchrun.job.file import make_job
from batchrun.rows.columns import COLUMNS
from batchrun.rows.dataset import ROWS_IN_A_CHUNK, Dataset, open_dataset, output_schema


def dataset(folder: Path, table: pa.Table, template: str = "{{ text }}", **output: Any) -> Dataset:
    pq.write_table(table, folder / "in.parquet")
    tables = {
        "input": {"path": "in.parquet"},
        "prompt": {"template": template},
        "request": {"model": "m", "max_tokens": 5},
        "output": {"path": "out.parquet", **output},
    }
    return open_dataset(make_job(tables, folder, sandbox=True), sandbox=True)


def digests(rows: Dataset) -> list[bytes]:
    requests = [request for chunk in rows.chunks([]) for request in chunk.requests]
    return [request.digest for request in requests if isinstance(request, Request)]


def test_chunks_hold_every_row_once_and_in_order(tmp_path: Path) -> None:
    count = 2 * ROWS_IN_A_CHUNK + 7
    rows = dataset(tmp_path, pa.table({"id": range(count), "text": [f"t{n}" for n in range(count)]}))
    chunks = list(rows.chunks())
    assert [chunk.first for chunk in chunks] == [
        sum(other.batch.num_rows for other in chunks[:n]) for n in range(len(chunks))
    ]
    assert [n for chunk in chunks for n in chunk.batch["id"].to_pylist()] == list(range(count))
    assert all(len(chunk.requests) == chunk.batch.num_rows for chunk in chunks)


def test_a_chunk_has_the_columns_asked_for_besides_those_of_the_template(tmp_path: Path) -> None:
    rows = dataset(tmp_path, pa.table({"a": [1], "text": ["t"], "b": [2]}))
    names = [next(iter(rows.chunks(columns))).batch.schema.names for columns in (None, [], ["b"])]
    assert names == [["a", "text", "b"], ["text"], ["b", "text"]]


def test_a_template_without_a_column_still_has_a_request_for_each_row(tmp_path: Path) -> None:
    rows = dataset(tmp_path, pa.table({"text": ["a", "b"]}), template="Tell me a joke.")
    assert len(digests(rows)) == 2
    assert len(set(digests(rows))) == 1


def test_duplicates_share_a_request_or_have_one_each(tmp_path: Path) -> None:
    table = pa.table({"text": ["a", "b", "a", "a"]})
    shared = digests(dataset(tmp_path, table))
    nth_occurrence = digests(dataset(tmp_path, table, duplicates="separate"))
    assert len(set(shared)) == 2
    assert len(set(nth_occurrence)) == 4
    assert nth_occurrence[:2] == shared[:2], "the first occurrence is the same request either way"


def test_separate_duplicates_have_the_same_identities_whenever_they_are_read(tmp_path: Path) -> None:
    rows = dataset(tmp_path, pa.table({"text": ["a", "a", "b"]}), duplicates="separate")
    assert digests(rows) == digests(rows)


def test_a_template_that_fails_on_the_first_row_is_an_error_of_the_job(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"row\['nope'\]` is undefined\.\nThe input has: text\."):
        dataset(tmp_path, pa.table({"text": ["a"]}), template="{{ row['nope'] }}")


def test_a_first_row_without_a_prompt_is_that_row_s_matter(tmp_path: Path) -> None:
    assert len(digests(dataset(tmp_path, pa.table({"text": ["", "b"]})))) == 1


def test_the_output_has_the_input_s_columns_and_then_ours() -> None:
    given = pa.schema([pa.field("text", pa.large_string(), nullable=False), ("n", pa.decimal128(9, 2))])
    schema = output_schema(given, COLUMNS, "p_")
    assert pa.schema(list(schema)[:2]).equals(given)
    assert schema.names[2:] == [f"p_{name}" for name in COLUMNS.names]


@pytest.mark.parametrize("name", COLUMNS.names)
def test_a_column_of_the_same_name_is_refused_without_a_prefix(name: str) -> None:
    given = pa.schema([(name, pa.string())])
    with pytest.raises(OutputError, match=rf"'{name}'.*\n.*output.prefix"):
        output_schema(given, COLUMNS, "")
    assert name in output_schema(given, COLUMNS, "p_").names
