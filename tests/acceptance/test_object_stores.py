"""Jobs whose input and output are in an object store of another address than the provider's."""

import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

import pytest

import batchrun
from batchrun.errors import JobError, OutputError, StorageError
from batchrun.job.file import make_job
from batchrun.tables.object_store import check_uploadable, upload
from tests.tables.object_server import Objects, object_server


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")


def job(address: str, **output: Any) -> dict[str, Any]:
    return {
        "input": {"path": "s3://bucket/data/*.csv", "endpoint_url": address},
        "prompt": {"template": "{{ text }}"},
        "request": {"model": "abliterated-model", "max_tokens": 256},
        "output": {"path": "s3://bucket/out/labels.csv", "endpoint_url": address} | output,
    }


def test_rows_come_from_a_store_and_the_output_goes_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    objects: Objects = {"bucket/data/1.csv": b"id,text\n1,x\n", "bucket/data/2.csv": b"id,text\n2,y\n"}
    with object_server(objects) as address:
        result = batchrun.run(job(address), sandbox=True)
        assert result.summary["rows"]["ok"] == 2
        uploaded = objects["bucket/out/labels.csv"]
        assert uploaded == (tmp_path / "labels.csv").read_bytes()
        assert uploaded.startswith(b"id,text,status,")
        files = sorted(key for key in objects if not key.endswith("/"))
        assert files == ["bucket/data/1.csv", "bucket/data/2.csv", "bucket/out/labels.csv"]
        del objects["bucket/out/labels.csv"]
        batchrun.export(job(address), sandbox=True)
        assert objects["bucket/out/labels.csv"] == uploaded


@pytest.mark.parametrize("name", ["1.csv", "labels.csv"])
def test_an_object_of_the_input_is_not_written_over(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    objects: Objects = {"bucket/data/1.csv": b"id,text\n1,x\n"}
    before = dict(objects)
    with object_server(objects) as address:
        for call in (batchrun.run, batchrun.export):
            with pytest.raises(OutputError, match=r"s3://bucket/data/.* is the job's input, or would be"):
                call(job(address, path=f"s3://key:s3cret@bucket/data/{name}?region=x"), sandbox=True)
    assert objects == before


def test_a_store_that_takes_no_output_is_found_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with object_server({"bucket/data/1.csv": b"id,text\n1,x\n"}) as address:
        with pytest.raises(OutputError, match=r"^s3://other/labels\.csv can't be written: .*NO_SUCH_BUCKET"):
            batchrun.run(job(address, path="s3://other/labels.csv"), sandbox=True)
        assert list(tmp_path.iterdir()) == []
        (tmp_path / "labels.csv").write_text("x")
        with pytest.raises(StorageError, match=r"labels\.csv holds the output; `batchrun export`"):
            upload(tmp_path / "labels.csv", "s3://key:s3cret@other/labels.csv", address)
        with pytest.raises(OutputError) as error:
            check_uploadable("s3://key:s3cret@other/labels.csv", address)
        assert "s3cret" not in str(error.value)


def test_ctrl_c_during_an_upload_leaves_no_part_of_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "labels.csv"
    file.write_bytes(b"0123456789" * 2_000_000)
    main, copy = threading.main_thread().ident, shutil.copyfileobj

    def interrupted(source: BinaryIO, target: BinaryIO, size: int) -> None:
        target.write(source.read(size))
        signal.pthread_kill(main or 0, signal.SIGINT)
        time.sleep(0.1)
        copy(source, target, size)

    monkeypatch.setattr(shutil, "copyfileobj", interrupted)
    objects: Objects = {"bucket/out/labels.csv": b"as it was"}
    with object_server(objects) as address:
        with pytest.raises(KeyboardInterrupt):
            upload(file, "s3://bucket/out/labels.csv", address)
        assert objects["bucket/out/labels.csv"] == file.read_bytes()


@pytest.mark.parametrize(
    ("table", "settings", "problem"),
    [
        ("input", {"endpoint_url": "minio:9000"}, "must begin with http"),
        ("input", {"endpoint_url": "http://key:secret@minio:9000"}, "must be an address alone"),
        ("input", {"endpoint_url": "http://minio:9000/bucket"}, "must be an address alone"),
        ("input", {"path": "in.csv"}, "only s3:// and gs://"),
        ("output", {"path": "out.csv"}, "only s3:// and gs://"),
        ("output", {"path": "https://host/out.csv", "endpoint_url": None}, "in an object store: s3://"),
        ("output", {"path": "s3://bucket/out.xlsx"}, "must end in"),
    ],
)
def test_an_address_that_is_none_is_refused(
    tmp_path: Path, table: str, settings: dict[str, Any], problem: str
) -> None:
    tables = job("http://minio:9000")
    tables[table] |= settings
    with pytest.raises(JobError, match=problem):
        make_job(tables, tmp_path, sandbox=True)
