"""A process that reads a run's rows: the same rows and errors as without, and it ends with the run."""

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from msgspec.structs import replace as replaced

from batchrun.errors import InputError, JournalError, StorageError
from batchrun.job.file import make_job
from batchrun.journal import Journal
from batchrun.journal.child import ChildFaultError, send
from batchrun.rows.dataset import ROWS_IN_A_CHUNK, Dataset, open_dataset
from batchrun.rows.observer import RowsScanned
from batchrun.rows.selection import Scanned, scan
from batchrun.tables.reader import in_memory
from batchrun.workers import reader_process as process_module
from batchrun.workers.reader import LEAST_ROWS, Reader, Task, pays, reader_process, seen
from batchrun.workers.reader_process import serve
from tests.test_selection import digests_of, settle

if TYPE_CHECKING:
    import subprocess

NOTHING = RowsScanned(0, 0, 0, 0)


def dataset_of(folder: Path, texts: list[str | None], **tables: Any) -> Dataset:
    pq.write_table(pa.table({"text": texts}), folder / "in.parquet")
    given = {
        "input": {"path": "in.parquet"},
        "prompt": {"template": "{{ text }}"},
        "request": {"model": "m", "max_tokens": 5},
        "output": {"path": "out.parquet"},
        "workers": {"kind": "local", "count": 1},
        **tables,
    }
    return open_dataset(make_job(given, folder, sandbox=True), sandbox=True)


def task_of(dataset: Dataset, journal: Journal, asks_again_before: int = 0) -> Task:
    return Task(dataset.job, True, seen(dataset), journal.path, asks_again_before)


class EndedProcess:
    """What is known of a process that has ended."""

    def wait(self, _timeout: float | None = None) -> int:
        return -signal.SIGKILL


@contextmanager
def reader_in_a_thread(task: Task, folder: Path, served: Callable[..., object] = serve) -> Iterator[Reader]:
    """A reader whose other end is served in this process."""
    ours, theirs = socket.socketpair()

    def serve_and_close() -> None:
        with theirs:
            served(task, partial(send, theirs))

    (folder / "workers.log").touch()
    thread = threading.Thread(target=serve_and_close)
    thread.start()
    with ours:
        yield Reader(ours, cast("subprocess.Popen[bytes]", EndedProcess()), folder / "workers.log")
    thread.join()


def nowhere() -> Iterator[Scanned]:
    pytest.fail("read here")


def whole(scanned: Iterator[Scanned]) -> tuple[list[Any], list[int]]:
    """All rows in order, and the sums of the counts."""
    rows, sums = [], [0, 0, 0, 0]
    for counts, some in scanned:
        rows += some
        parts = counts.rows, counts.unsendable, counts.answered, counts.failed
        sums = [a + b for a, b in zip(sums, parts, strict=True)]
    return rows, sums


def expected(dataset: Dataset, journal: Journal, asks_again_before: int = 0) -> tuple[list[Any], list[int]]:
    return whole(scan(dataset, journal, replace(dataset.labelling, asks_again_before=asks_again_before)))


LABELS = {"choices": ["a", "b"], "votes": 3, "repair": 1}


@pytest.mark.parametrize(
    "tables",
    [
        {},
        {"output": {"path": "out.parquet", "duplicates": "separate"}},
        {"labels": LABELS, "request": {"model": "m", "max_tokens": 5, "temperature": 1.0}},
    ],
    ids=["plain", "separate", "votes"],
)
def test_rows_order_identity_and_counts_are_as_without_the_process(
    tmp_path: Path, journal: Journal, tables: dict[str, Any]
) -> None:
    texts = [f"row {n % 700}" if n % 7 else None for n in range(ROWS_IN_A_CHUNK + 50)]
    dataset = dataset_of(tmp_path, [*texts, "long " * 100_000, "longer " * 100_000], **tables)
    settle(journal, digests_of(dataset)[:40], "afdr")
    for again in (0, 2):
        with reader_in_a_thread(task_of(dataset, journal, again), tmp_path) as reader:
            found = whole(reader.scan(task_of(dataset, journal, again), nowhere))
        assert found == expected(dataset, journal, again)
        assert found[1][0] == len(texts) + 2


def test_a_message_holds_few_bytes_whatever_a_chunk_has(tmp_path: Path, journal: Journal) -> None:
    dataset = dataset_of(tmp_path, [f"{n} {'x' * 300_000}" for n in range(20)])
    sizes: list[int] = []
    serve(task_of(dataset, journal), lambda content: sizes.append(len(content)))
    assert max(sizes) < 2_000_000 < sum(sizes)


@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: path.write_bytes(b"PAR1 broken")])
def test_an_input_that_cannot_be_opened_again_is_read_here(
    tmp_path: Path, journal: Journal, spoil: Callable[[Path], object]
) -> None:
    dataset = dataset_of(tmp_path, ["a"])
    spoil(tmp_path / "in.parquet")
    with (
        reader_in_a_thread(task_of(dataset, journal), tmp_path) as reader,
        pytest.raises(InputError) as there,
    ):
        whole(reader.scan(task_of(dataset, journal), partial(scan, dataset, journal, dataset.labelling)))
    with pytest.raises(InputError) as here:
        expected(dataset, journal)
    assert str(there.value) == str(here.value)


def test_another_input_at_the_same_path_is_read_here(tmp_path: Path, journal: Journal) -> None:
    dataset = dataset_of(tmp_path, ["a"])
    task = task_of(dataset, journal)
    dataset_of(tmp_path, ["a", "b"])
    with reader_in_a_thread(task, tmp_path) as reader:
        assert list(reader.scan(task, lambda: iter([(NOTHING, [])]))) == [(NOTHING, [])]


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (InputError("in.csv: line 3"), InputError),
        (JournalError("damaged"), JournalError),
        (KeyError("x"), ChildFaultError),
    ],
)
def test_what_goes_wrong_there_is_raised_here_after_the_rows_before(
    tmp_path: Path,
    journal: Journal,
    monkeypatch: pytest.MonkeyPatch,
    raised: Exception,
    kind: type[Exception],
) -> None:
    def broken(*_: object) -> Iterator[Scanned]:
        yield RowsScanned(5, 0, 5, 0), []
        raise raised

    dataset = dataset_of(tmp_path, ["a"])
    monkeypatch.setattr(process_module, "scan", broken)
    task = task_of(dataset, journal)
    with reader_in_a_thread(task, tmp_path) as reader:
        scanned = reader.scan(task, nowhere)
        assert next(scanned) == (RowsScanned(5, 0, 5, 0), [])
        with pytest.raises(kind) as found:
            next(scanned)
    assert str(raised) in str(found.value)


def test_a_process_that_is_lost_is_named_and_a_stopped_run_misses_nothing(
    tmp_path: Path, journal: Journal
) -> None:
    task = task_of(dataset_of(tmp_path, ["a"]), journal)
    with reader_in_a_thread(task, tmp_path, lambda *_: None) as reader:
        with pytest.raises(StorageError, match="reads the input was ended by SIGKILL"):
            next(reader.scan(task, nowhere))
        reader.interrupt()
        assert next(reader.scan(task, nowhere)) == (NOTHING, [])


def test_a_stop_wakes_a_run_that_waits_for_a_process_which_still_opens_the_input(
    tmp_path: Path, journal: Journal
) -> None:
    task = task_of(dataset_of(tmp_path, ["a"]), journal)
    opening = threading.Event()
    with reader_in_a_thread(task, tmp_path, lambda *_: opening.wait(20)) as reader:
        threading.Timer(0.05, reader.interrupt).start()
        assert next(reader.scan(task, nowhere)) == (NOTHING, [])
        assert not opening.is_set()
        opening.set()


def test_the_process_keeps_the_digests_of_a_run_that_stops(tmp_path: Path, journal: Journal) -> None:
    dataset = dataset_of(tmp_path, ["a"])
    dataset.digest_cache.path.parent.mkdir()
    task = task_of(dataset, journal)

    def nobody_reads(_: bytes) -> None:
        raise BrokenPipeError

    serve(task, nobody_reads)
    assert dataset.digest_cache.path.exists()


def test_a_real_process_ignores_signals_and_ends_when_the_run_is_gone(
    tmp_path: Path, journal: Journal
) -> None:
    dataset = dataset_of(tmp_path, [f"{n} {'x' * 100_000}" for n in range(100)])
    task = task_of(dataset, journal)
    with reader_process(os.environ, tmp_path / "workers.log") as reader:
        scanned = reader.scan(task, nowhere)
        rows = list(next(scanned)[1])
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            reader._process.send_signal(number)
        rows += next(scanned)[1]
        reader._link.close()  # as a kill does
        assert reader._process.wait(20) == 0
    assert rows == expected(dataset, journal)[0][: len(rows)]


def test_only_large_inputs_on_this_machine_have_a_process(tmp_path: Path) -> None:
    small, large = (dataset_of(tmp_path, ["a"] * rows) for rows in (LEAST_ROWS - 1, LEAST_ROWS))
    assert [pays(small), pays(large)] == [False, True]
    assert not pays(replace(large, job=replaced(large.job, workers=None)))
    assert not pays(replace(large, table=in_memory(pa.table({"text": ["a"] * LEAST_ROWS}), "the table")))
