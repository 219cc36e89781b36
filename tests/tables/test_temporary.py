"""The temporary file beside an output: a dead process's is removed, a living one's is not."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from batchrun.tables import atomic
from batchrun.tables.atomic import replace_file
from batchrun.tables.writer import replace_table

ROWS = pa.table({"a": [1]})

WRITER = """\
import sys, time
from pathlib import Path
from batchrun.tables.atomic import open_temporary
path, file = open_temporary(Path(sys.argv[1]))
print(path, flush=True)
time.sleep(60)
"""


def write(path: Path) -> None:
    with replace_table(path, ROWS.schema, dict) as table:
        table.write(ROWS.to_batches()[0])


def test_what_a_killed_process_has_left_goes_with_the_next_output_and_not_before_it_is_dead(
    tmp_path: Path,
) -> None:
    output = tmp_path / "out.csv"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, output], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        assert left.parent == tmp_path
        write(output)
        assert left.exists(), "its process lives"
        process.kill()
    assert left.exists()
    write(output)
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.parametrize(
    "name",
    [
        ".other.csv.0123abcd.tmp",
        ".out.csv.0123abcd.tmp.bak",
        ".out.csv.0123ABCD.tmp",
        ".outXcsv.0123abcd.tmp",
        "out.csv.0123abcd.tmp",
        ".out.csv.mine.tmp",
    ],
)
def test_files_of_others_stay(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    write(tmp_path / "out.csv")
    assert (tmp_path / name).exists()


def test_a_link_in_the_place_of_a_leftover_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    link = tmp_path / ".out.csv.0123abcd.tmp"
    link.symlink_to(tmp_path / "precious")
    write(tmp_path / "out.csv")
    assert link.is_symlink()
    assert (tmp_path / "precious").read_text() == "kept"


def test_a_file_that_was_taken_for_a_leftover_before_it_was_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another writer may look between the opening of the file and its lock."""
    plain = atomic._held_by_another
    taken: list[Path] = []

    def robbed(descriptor: int) -> bool:
        if not taken:
            (file,) = tmp_path.glob(".out.csv.*.tmp")
            taken.append(file)
            file.unlink()
        return plain(descriptor)

    monkeypatch.setattr(atomic, "_held_by_another", robbed)
    write(tmp_path / "out.csv")
    assert list(tmp_path.iterdir()) == [tmp_path / "out.csv"]
    assert taken


def test_without_locks_an_output_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", no_locks)
    (tmp_path / ".out.csv.0123abcd.tmp").touch()
    write(tmp_path / "out.csv")
    assert (tmp_path / ".out.csv.0123abcd.tmp").exists(), "nobody knows whose it is"
    assert (tmp_path / "out.csv").exists()


def test_a_small_file_is_private_where_it_is_to_be_and_keeps_its_mode_elsewhere(tmp_path: Path) -> None:
    file = tmp_path / "summary.json"
    replace_file(file, b"1", mode=0o600)
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (b"1", 0o600)
    file.chmod(0o640)
    replace_file(file, b"2")
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (b"2", 0o640)


@pytest.mark.parametrize("step", ["os.fsync", "os.fchmod", "pathlib.Path.replace"])
def test_a_small_file_that_can_not_be_stored_leaves_the_old_one_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    file = tmp_path / "summary.json"
    file.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(step, full)
    with pytest.raises(OSError, match="No space left"):
        replace_file(file, b"new")
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]
