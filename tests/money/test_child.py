"""Processes that a run starts with batchrun's own code."""

import subprocess
import sys
from pathlib import Path

import pytest

import batchrun
from batchrun.journal.child import python_command


def test_a_child_finds_its_parent_s_batchrun_and_libraries_and_none_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in ("here", "named"):
        (tmp_path / other).mkdir()
        for module in ("batchrun", "msgspec", "socket"):
            (tmp_path / other / f"{module}.py").write_text("raise ImportError('another one')")
    libraries = tmp_path / "only: 'by sys.path' \u00e9"
    libraries.mkdir()
    (libraries / "vendored.py").write_text(
        "import batchrun, msgspec, socket, sys\n"
        "def main() -> None:\n"
        "    print(batchrun.__file__, *sys.argv[1:], sep='\\n')\n"
    )
    monkeypatch.syspath_prepend(str(libraries))
    monkeypatch.syspath_prepend("")
    monkeypatch.setattr(sys, "path", [tmp_path, *sys.path])  # a Path, which `import` passes over
    done = subprocess.run(
        python_command("vendored", "two words", "/\u00e9"),
        cwd=tmp_path / "here",
        env={"PYTHONPATH": str(tmp_path / "named")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [batchrun.__file__, "two words", "/\u00e9"]


@pytest.mark.parametrize(("name", "value"), [("executable", ""), ("frozen", True)])
def test_a_program_with_python_built_in_starts_no_child(
    monkeypatch: pytest.MonkeyPatch, name: str, value: object
) -> None:
    monkeypatch.setattr(sys, name, value, raising=False)
    with pytest.raises(OSError, match="has Python built in"):
        python_command("batchrun.journal.process")
