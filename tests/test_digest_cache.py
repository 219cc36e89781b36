"""The digest cache spares rendering, and nothing else depends on it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

import batchrun
from batchrun.client.builder import RequestBuilder
from batchrun.rows.dataset import ROWS_IN_A_CHUNK, Dataset, keeping_digests
from batchrun.rows.digest_cache import FILE_NAME, OpenDigestCache
from tests.test_dataset import dataset

TABLE = pa.table({"text": [f"row {number}" for number in range(2 * ROWS_IN_A_CHUNK + 3)]})


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The rows that are rendered."""
    rows: list[Any] = []
    plain = RequestBuilder.build

    def build(self: RequestBuilder, row: Any) -> Any:
        rows.append(row)
        return plain(self, row)

    monkeypatch.setattr(RequestBuilder, "build", build)
    return rows


def kept(folder: Path, table: pa.Table = TABLE, **options: Any) -> Dataset:
    (folder / "out.run").mkdir(exist_ok=True)
    return keeping_digests(dataset(folder, table, **options))


def digests(rows: Dataset) -> list[bytes | None]:
    return [digest for chunk in rows.chunks([]) for digest in chunk.digests]


def rendered_by(rows: Dataset, rendered: list[Any]) -> int:
    """Reads all digests, which must be those of the requests; returns how many rows that rendered."""
    rendered.clear()
    found = digests(rows)
    count = len(rendered)
    requests = [request for chunk in rows.chunks([]) for request in chunk.requests]
    assert found == [getattr(request, "digest", None) for request in requests]
    return count


def test_a_second_pass_renders_nothing(tmp_path: Path, rendered: list[Any]) -> None:
    assert rendered_by(kept(tmp_path), rendered) == len(TABLE)
    assert rendered_by(kept(tmp_path), rendered) == 0
    assert (tmp_path / "out.run" / FILE_NAME).stat().st_mode & 0o777 == 0o600


def test_rows_that_change_are_rendered_with_their_chunk(tmp_path: Path, rendered: list[Any]) -> None:
    digests(kept(tmp_path))
    assert rendered_by(kept(tmp_path, pa.concat_tables([TABLE, TABLE.slice(0, 1)])), rendered) == 4
    other = pa.concat_tables([TABLE.slice(1, 1), TABLE.slice(0, 1), TABLE.slice(2)])
    assert rendered_by(kept(tmp_path, other), rendered) == ROWS_IN_A_CHUNK + 3


@pytest.mark.parametrize(
    ("table", "template"),
    [
        (pa.table({"text": pa.array([1, 2])}), "{{ text }}"),
        (pa.table({"text": pa.array(["1", "2"])}), "{{ text }}!"),
        (pa.table({"text": ["1", "2"], "more": ["a", "b"]}), "{{ text }}{{ more }}"),
        (pa.table({"text": pa.array(["1", "2", "2"])}), "{{ text }}"),
        (pa.table({"text": pa.array(["2", "1"]).dictionary_encode()}), "{{ text }}"),
        (pa.table({"text": pa.array(["1", None])}), "{{ text }}"),
    ],
)
def test_whatever_determines_requests_is_in_the_key(
    tmp_path: Path, rendered: list[Any], table: pa.Table, template: str
) -> None:
    digests(kept(tmp_path, pa.table({"text": ["1", "2"]})))
    digests(kept(tmp_path, pa.table({"text": pa.array(["1", "2"]).dictionary_encode()})))
    assert rendered_by(kept(tmp_path, table, template=template), rendered) == len(table)


def test_the_values_of_categories_are_in_the_key(tmp_path: Path, rendered: list[Any]) -> None:
    codes = pa.array([0, 1, 0], pa.int32())
    for names in (["cat", "dog"], ["dog", "cat"]):
        column = pa.DictionaryArray.from_arrays(codes, pa.array(names))
        assert rendered_by(kept(tmp_path, pa.table({"text": column})), rendered) == 3


def test_rows_without_columns_are_counted_in_the_key(tmp_path: Path, rendered: list[Any]) -> None:
    for rows in (2, 3):
        table = pa.table({"text": ["a"] * rows})
        assert rendered_by(kept(tmp_path, table, template="Tell me a joke."), rendered) == rows


def test_chunks_with_rows_that_cant_be_sent_are_rendered_each_time(
    tmp_path: Path, rendered: list[Any]
) -> None:
    table = pa.table({"text": ["a", " "]})
    for _ in range(2):
        assert rendered_by(kept(tmp_path, table), rendered) == 2
    assert digests(kept(tmp_path, table))[1] is None


def test_occurrences_are_never_cached(tmp_path: Path, rendered: list[Any]) -> None:
    table = pa.table({"text": ["a", "a"]})
    digests(kept(tmp_path, table))
    for _ in range(2):
        assert rendered_by(kept(tmp_path, table, duplicates="separate"), rendered) == 2


def test_every_flipped_bit_of_the_file_is_found(tmp_path: Path) -> None:
    table = pa.table({"text": ["a", "b"]})
    right = digests(kept(tmp_path, table))
    path = tmp_path / "out.run" / FILE_NAME
    whole = path.read_bytes()
    rows = dataset(tmp_path, table)
    for bit in range(8 * len(whole)):
        broken = bytearray(whole)
        broken[bit // 8] ^= 1 << bit % 8
        path.write_bytes(broken)
        assert digests(rows) == right
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        assert digests(rows) == right


def test_an_entry_that_can_be_read_only_once_is_not_kept_as_one_without_rows(
    tmp_path: Path, rendered: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry is read again when a later chunk is missing: the disk may fail in between."""
    digests(kept(tmp_path, TABLE.slice(0, ROWS_IN_A_CHUNK)))
    find, reads = OpenDigestCache._find, []

    def once(self: OpenDigestCache, key: bytes) -> list[bytes] | None:
        reads.append(key)
        return find(self, key) if reads.count(key) == 1 else None

    with monkeypatch.context() as failing:
        failing.setattr(OpenDigestCache, "_find", once)
        assert len(digests(kept(tmp_path))) == len(TABLE)
    assert rendered_by(kept(tmp_path), rendered) == ROWS_IN_A_CHUNK


def test_a_disk_that_fills_up_gets_the_room_of_the_new_cache_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("batchrun.rows.digest_cache._entry", full)
    chunks = kept(tmp_path).chunks([])
    next(chunks)
    assert list((tmp_path / "out.run").iterdir()) == []
    assert len(list(chunks)) == 2


def test_a_pass_that_ends_early_keeps_what_it_has_rendered(tmp_path: Path, rendered: list[Any]) -> None:
    chunks = kept(tmp_path).chunks([])
    next(chunks)
    next(chunks)
    chunks.close()
    assert rendered_by(kept(tmp_path), rendered) == 3
    early = kept(tmp_path, template="Say {{ text }}").chunks([])
    next(early)
    early.close()
    assert rendered_by(kept(tmp_path), rendered) == 0


def test_only_a_run_writes_the_cache(tmp_path: Path) -> None:
    (tmp_path / "out.run").mkdir()
    digests(dataset(tmp_path, TABLE))
    assert list((tmp_path / "out.run").iterdir()) == []


def test_a_disk_without_room_costs_the_cache_alone(
    tmp_path: Path, rendered: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = kept(tmp_path)

    def full(*_: Any, **__: Any) -> Iterator[None]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("batchrun.rows.digest_cache.Replacement", full)
    assert rendered_by(rows, rendered) == len(TABLE)
    assert not (tmp_path / "out.run" / FILE_NAME).exists()


@pytest.mark.parametrize("labels", [{}, {"labels": {"pattern": "(?s).*", "repair": 1}}])
def test_a_resumed_run_renders_no_answered_row(
    tmp_path: Path, rendered: list[Any], labels: dict[str, Any]
) -> None:
    job = {
        **labels,
        "prompt": {"template": "Say {{ text | upper }}"},
        "request": {"model": "abliterated-model", "max_tokens": 1_000},
        "output": {"path": str(tmp_path / "out.parquet")},
    }
    rows = pl.DataFrame({"text": [f"row {number}" for number in range(ROWS_IN_A_CHUNK)]})
    batchrun.run(job, input=rows, sandbox=True)
    first = pl.read_parquet(tmp_path / "out.parquet")
    rendered.clear()
    more = pl.concat([rows, pl.DataFrame({"text": ["another", "row 1"]})])
    summary = batchrun.run(job, input=more, sandbox=True).summary
    assert summary["this_run"]["requests"]["sent"] == 1
    assert {row["text"] for row in rendered} == {"row 0", "another", "row 1"}  # row 0 is tried at the start
    second = pl.read_parquet(tmp_path / "out.parquet")
    assert second.head(ROWS_IN_A_CHUNK).equals(first)
    assert second["shared"].to_list()[-2:] == [False, True]
    (tmp_path / "out.run" / FILE_NAME).unlink()
    assert batchrun.run(job, input=more, sandbox=True).summary["this_run"]["requests"]["sent"] == 0
    assert pl.read_parquet(tmp_path / "out.parquet").equals(second)
