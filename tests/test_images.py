"""Images of a cell: where they come from, what they are, and what is no image."""

import os
import threading
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.cli.plan_lines import request_lines
from batchrun.client.messages.images import MOST_IMAGE_BYTES, ImageError, image_blocks, media_type
from batchrun.job.file import make_job
from batchrun.rows.dataset import ROWS_WITH_IMAGES_IN_A_CHUNK, open_dataset
from batchrun.runs.plan.plan import plan_job
from tests.sandbox.conftest import png

PICTURE = png(3, 2)
SAMPLES = {
    "image/png": PICTURE,
    "image/jpeg": b"\xff\xd8\xff\xe0rest",
    "image/gif": b"GIF89arest",
    "image/webp": b"RIFF\x00\x00\x00\x00WEBPVP8 rest",
}
FOREIGN = [b"", b"BM", b"%PDF-1.7", b"<svg/>", b"RIFF\0\0\0\0WAVEfmt ", b"\x89PNG", b"II*\0", b"GIF88a"]


def source(cell: Any, folder: Path = Path("/nowhere")) -> dict[str, str]:
    (block,) = image_blocks(cell, folder)
    assert block["type"] == "image"
    made: dict[str, str] = block["source"]
    return made


def refused(cell: Any, folder: Path = Path("/nowhere")) -> ImageError:
    with pytest.raises(ImageError) as caught:
        image_blocks(cell, folder)
    assert len(str(caught.value)) < 500
    return caught.value


@pytest.mark.parametrize(("kind", "data"), SAMPLES.items())
def test_the_media_type_is_that_of_the_first_bytes(tmp_path: Path, kind: str, data: bytes) -> None:
    """Of bytes, and of a file whatever it is called."""
    (tmp_path / "a.bmp").write_bytes(data)
    expected = {"type": "base64", "media_type": kind, "data": b64encode(data).decode()}
    assert source(data) == source("a.bmp", tmp_path) == expected


@pytest.mark.parametrize("data", FOREIGN)
def test_other_data_is_no_image(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.png").write_bytes(data)
    assert refused(data).code == "invalid_image"
    error = refused("a.png", tmp_path)
    assert str(error) == f"{tmp_path}/a.png: The data is not a PNG, JPEG, GIF or WebP image."


@given(st.binary(max_size=40), st.sampled_from([b"", *SAMPLES.values(), *FOREIGN]))
def test_any_bytes_are_sent_as_they_are_or_refused(data: bytes, beginning: bytes) -> None:
    whole = beginning + data
    if media_type(whole) is None:
        refused(whole)
    else:
        assert b64decode(source(whole)["data"]) == whole


@pytest.mark.parametrize(
    "cell",
    [
        PICTURE,
        "a/b.png",
        "data:image/png;base64," + b64encode(PICTURE).decode(),
        {"bytes": PICTURE, "path": "elsewhere.png"},
        {"bytes": None, "path": "a/b.png"},
    ],
)
def test_a_cell_holds_bytes_a_path_a_data_url_or_a_struct_of_them(tmp_path: Path, cell: Any) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.png").write_bytes(PICTURE)
    assert b64decode(source(cell, tmp_path)["data"]) == PICTURE


def test_an_absolute_path_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PICTURE)
    assert b64decode(source(str(tmp_path / "a.png"))["data"]) == PICTURE


@pytest.mark.parametrize("url", ["https://example.com/a.png?b=c", "http://127.0.0.1:1/a", "HTTPS://E.COM"])
def test_an_http_url_is_passed_on(url: str) -> None:
    """Nothing is fetched: nobody listens at these."""
    assert source(url) == {"type": "url", "url": url}


@pytest.mark.parametrize("cell", [None, "", [], [None, ""], {"bytes": None, "path": None}])
def test_nothing_is_no_image(cell: Any) -> None:
    assert image_blocks(cell, Path("/nowhere")) == []


def test_a_list_is_several_images_in_their_order() -> None:
    blocks = image_blocks(["https://a.de/1", None, PICTURE], Path("/nowhere"))
    assert [block["source"]["type"] for block in blocks] == ["url", "base64"]


@pytest.mark.parametrize(
    "cell",
    ["s3://bucket/a.png", "file:///a.png", "https://", "https:// a", 5, 1.5, True, [["a"]], "data:x,%"],
)
def test_other_cells_are_refused(cell: Any) -> None:
    assert refused(cell).code == "invalid_image"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("missing.png", "No such file"),
        ("folder", "not a regular file"),
        ("pipe", "not a regular file"),
        ("a\0b", "null character"),
        ("x" * 5000, "File name too long"),
    ],
)
def test_an_unreadable_file_is_named_with_the_cause(tmp_path: Path, path: str, reason: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    error = refused(path, tmp_path)
    assert error.code == "unreadable_image"
    assert str(error).startswith(str(tmp_path))
    assert reason in str(error)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    thread = threading.Thread(target=refused, args=("pipe", tmp_path), daemon=True)
    thread.start()
    thread.join(timeout=5)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    "path", ["/proc/kmsg", "/proc/self/mounts", "/dev/zero", "/dev/tty", "/dev/random", "/dev/null"]
)
def test_a_file_that_the_system_makes_up_is_not_read(path: str) -> None:
    """In a thread, since reading /proc/kmsg waits for the next line of the kernel's log."""
    told: list[ImageError] = []
    thread = threading.Thread(target=lambda: told.append(refused(path)), daemon=True)
    thread.start()
    thread.join(5)
    assert len(told) == 1


def test_the_largest_image_passes_and_one_byte_more_does_not(tmp_path: Path) -> None:
    """Of bytes, of a file, and of a data URL."""
    largest = PICTURE + bytes(MOST_IMAGE_BYTES - len(PICTURE))
    file = tmp_path / "a.png"
    for data, passes in ((largest, True), (largest + b"\0", False)):
        file.write_bytes(data)
        for cell in (data, "a.png", "data:image/png;base64," + b64encode(data).decode()):
            if passes:
                assert len(b64decode(source(cell, tmp_path)["data"])) == MOST_IMAGE_BYTES
            else:
                assert "larger than 5 MiB" in str(refused(cell, tmp_path))


def test_few_rows_with_images_are_in_memory_together(tmp_path: Path) -> None:
    dataset = open_dataset(_job(tmp_path, 3 * ROWS_WITH_IMAGES_IN_A_CHUNK), sandbox=True)
    assert {len(chunk.requests) for chunk in dataset.chunks()} == {ROWS_WITH_IMAGES_IN_A_CHUNK}


def test_a_plan_shows_no_image_data_and_expects_no_more_than_the_worst(tmp_path: Path) -> None:
    plan = plan_job(_job(tmp_path, 1), sandbox=True)
    assert plan["expected"]["input_tokens"] + plan["expected"]["output_tokens"] <= plan["worst"]["tokens"]
    assert 8_192 < plan["worst"]["tokens"] < 9_000
    shown = "\n".join(request_lines(plan))
    encoded = plan["first_request"]["messages"][0]["content"][0]["source"]["data"]
    assert b64decode(encoded) == PICTURE + bytes(200_000)
    assert f'"data": "({len(encoded):,} characters)"' in shown
    assert len(shown) < 2_000


def _job(folder: Path, rows: int) -> Any:
    (folder / "a.png").write_bytes(PICTURE + bytes(200_000))
    pq.write_table(pa.table({"photo": ["a.png"] * rows}), folder / "in.parquet")
    tables = {
        "input": {"path": "in.parquet"},
        "prompt": {"template": "What is it?", "image": "photo"},
        "request": {"model": "abliterated-model", "max_tokens": 16},
        "output": {"path": "out.parquet", "accept": ["truncated"]},
    }
    return make_job(tables, folder, sandbox=True)
