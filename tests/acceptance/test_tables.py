"""Tables in and out: N rows in, N rows out, in input order, with the types they came with."""

import csv
import gzip
import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.acceptance.command import Place

TEXTS = ["good", "bad", "so, so", 'a "quote"\nand a line', "schön 🙂", "good"]
TABLE = pa.table({"id": range(len(TEXTS)), "text": TEXTS})

WRITERS: dict[str, Callable[[Path], object]] = {
    "in.csv": lambda path: pl.from_arrow(TABLE).write_csv(path),  # type: ignore[union-attr]
    "in.tsv": lambda path: pl.from_arrow(TABLE).write_csv(path, separator="\t"),  # type: ignore[union-attr]
    "in.jsonl": lambda path: path.write_text("".join(json.dumps(row) + "\n" for row in TABLE.to_pylist())),
    "in.parquet": lambda path: pq.write_table(TABLE, path),
    "in.arrow": lambda path: pl.from_arrow(TABLE).write_ipc(path),  # type: ignore[union-attr]
    "in.csv.gz": lambda path: _compress(path, gzip.compress),
    "in.csv.zst": lambda path: _compress(path, lambda data: pa.compress(data, "zstd", asbytes=True)),
}


def _compress(path: Path, compress: Callable[[bytes], bytes]) -> None:
    path.write_bytes(compress(pl.from_arrow(TABLE).write_csv().encode()))  # type: ignore[union-attr]


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_input_gives_a_row_for_a_row_in_input_order(place: Place, name: str) -> None:
    WRITERS[name](place.folder / name)
    done = place.run(f"input.path={name}")
    assert (done.code, done.err.count("Traceback")) == (0, 0)
    assert [(row["id"], row["text"], row["status"]) for row in place.rows()] == [
        (index, text, "ok") for index, text in enumerate(TEXTS)
    ]
    assert place.requests == len(set(TEXTS))


def test_a_glob_is_read_in_the_order_of_names(place: Place) -> None:
    place.texts("c", "d", name="part-2.csv")
    place.texts("a", "b", name="part-1.csv")
    assert place.run('input.path="part-*.csv"').code == 0
    assert place.column("text") == ["a", "b", "c", "d"]


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_text_outputs_hold_the_same_rows_as_parquet(place: Place, ending: str) -> None:
    place.texts(*TEXTS)
    assert place.run().code == 0
    assert place.run(f"output.path=text/out.{ending}").code == 0
    path = place.folder / "text" / f"out.{ending}"
    if ending == "csv":
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    else:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    expected = place.rows()
    assert list(rows[0]) == list(expected[0])
    for name in ("text", "status", "output", "response_model"):
        assert [row[name] for row in rows] == [row[name] for row in expected]
    assert [float(row["cost_usd"]) for row in rows] == [row["cost_usd"] for row in expected]


def test_a_run_by_options_needs_no_job_file(place: Place) -> None:
    place.texts(*TEXTS)
    done = place.command(
        *("run", "--input", "in.csv", "--prompt", "One word: {{ text }}", "--system", "You label."),
        *("--output", "out.parquet", "--model", "abliterated-model", "--max-tokens", "5"),
        *("--set", 'output.accept=["truncated"]'),
        *("--base-url", place.sandbox.base_url, "--concurrency", "2"),
    )
    assert done.code == 0, done.err
    assert place.column("status") == ["ok"] * len(TEXTS)
    assert max(place.column("output_tokens")) == 5
    assert set(place.column("stop_reason")) == {"max_tokens"}


@pytest.mark.parametrize("sandbox_options", [(), ("--sandbox-latency", "0.01")])
def test_the_sandbox_inside_a_run_needs_no_key_and_says_that_nothing_was_paid(
    place: Place, sandbox_options: tuple[str, ...]
) -> None:
    place.texts(*TEXTS)
    done = place.command("run", "job.toml", "--sandbox", *sandbox_options, environment={"ABLIT_KEY": ""})
    assert done.code == 0
    assert "No model answered" in done.err
    assert place.requests == 0, "the sandbox of the run is another one"


@pytest.mark.parametrize("auth", ["bearer", "x-api-key", "none"])
def test_the_sandbox_inside_a_run_takes_every_kind_of_auth(place: Place, auth: str) -> None:
    place.texts("one")
    assert place.run(f"endpoint.auth={auth}", options=["--sandbox"]).code == 0


def test_types_survive_from_parquet_to_parquet(place: Place) -> None:
    zone = datetime(2024, 2, 29, 12, 30, tzinfo=UTC)
    table = pa.table(
        {
            "text": pa.array(["one", "two", None]),
            "big": pa.array([2**63 - 1, -(2**63), None]),
            "price": pa.array([Decimal("1.10"), Decimal("-12345678901234.56"), None], pa.decimal128(20, 2)),
            "seen": pa.array([zone, None, zone], pa.timestamp("us", "Europe/Vienna")),
            "day": pa.array([date(2024, 2, 29), None, date(1, 1, 1)]),
            "tags": pa.array([["a", None], [], None], pa.list_(pa.string())),
            "nested": pa.array([{"a": 1, "b": ["x"]}, {"a": None, "b": []}, None]),
            "kind": pa.array(["x", "y", None]).dictionary_encode(),
            "raw": pa.array([b"\x00\xff", b"", None]),
            "empty": pa.array(["", None, "a"]),
            "small": pa.array([1, 2, None], pa.int8()),
            "half": pa.array([0.1, float("inf"), None], pa.float32()),
        }
    )
    place.parquet(table)
    assert place.run("input.path=in.parquet", 'prompt.template="{{ text or big or 1 }}"').code == 0
    written = pq.read_table(place.output)
    assert written.select(table.schema.names).schema.equals(table.schema)
    assert written.select(table.schema.names).to_pylist() == table.to_pylist()


def test_an_input_without_rows_gives_an_output_without_rows_under_the_same_schema(place: Place) -> None:
    place.parquet(TABLE.slice(0, 0))
    place.parquet(TABLE, "full.parquet")
    assert place.run("input.path=in.parquet").code == 0
    empty = pq.read_table(place.output)
    assert place.run("input.path=full.parquet").code == 0
    assert empty.num_rows == 0
    assert empty.schema.equals(pq.read_table(place.output).schema)


def test_columns_of_the_same_name_as_ours_live_on_beside_a_prefix(place: Place) -> None:
    place.parquet(pa.table({"text": ["one"], "status": ["mine"]}))
    assert place.run("input.path=in.parquet", 'output.prefix="b_"').code == 0
    (row,) = place.rows()
    assert (row["status"], row["b_status"]) == ("mine", "ok")
