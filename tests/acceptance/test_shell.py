"""Completion in a real shell, colours, versions."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from batchrun import __version__
from tests.acceptance.command import Place
from tests.acceptance.test_terminal import on_a_terminal

BIN = Path(sys.executable).parent


def bash(script: str, folder: Path) -> str:
    environment = {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(folder)}
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize(
    ("words", "offers"),
    [
        ("batchrun ru", "run"),
        ("batchrun s", "status show set settle sandbox schema"),
        ("batchrun run --log", "--log-file"),
        ("batchrun export job.toml --salv", "--salvage"),
    ],
)
def test_bash_completes_commands_and_options_as_the_docs_say(words: str, offers: str, tmp_path: Path) -> None:
    line = re.search(r"^eval .*$", (Path(__file__).parents[2] / "docs" / "cli.md").read_text(), re.MULTILINE)
    assert line is not None
    script = f"""
        {line[0]}
        COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
        _batchrun_completion batchrun; echo ${{COMPREPLY[*]}}
    """
    assert bash(script, tmp_path).split() == offers.split()


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_a_script(shell: str, place: Place) -> None:
    done = place.command(environment={"_BATCHRUN_COMPLETE": f"{shell}_source"})
    assert done.code == 0
    assert "_BATCHRUN_COMPLETE" in done.out


@pytest.mark.parametrize("value", ["", "1"])
def test_nothing_is_coloured_with_or_without_no_color(
    place: Place, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", value)
    place.texts("one", "two")
    done = on_a_terminal(place, "run", "job.toml", "--preview", "2")
    assert done.code == 0
    assert "Every row has an answer" in done.err
    assert not re.search(r"\x1b\[[0-9;]*[34][0-7]", done.err)


def test_the_version_is_one_line(place: Place) -> None:
    done = place.command("--version")
    assert (done.code, done.out) == (0, f"batchrun, version {__version__}\n")


def test_a_command_takes_a_profile_and_variables(place: Place) -> None:
    job = place.folder / "job.toml"
    job.write_text(job.read_text() + "\n[profiles.tiny.budget]\nrows = 1\n")
    place.texts("one", "two", "three")
    done = place.command("run", "job.toml", "--profile", "tiny", "--json")
    assert (done.code, done.summary["rows"]["ok"]) == (4, 1)
    done = place.command("run", "job.toml", "--json", environment={"BATCHRUN_BUDGET__ROWS": "1"})
    assert (done.code, done.summary["rows"]["ok"]) == (4, 2)
    environment = {"BATCHRUN_PROFILE": "tiny", "BATCHRUN_BUDGET__ROWS": "0"}
    done = place.command("run", "job.toml", "--json", "--max-rows", "9", environment=environment)
    assert (done.code, done.summary["rows"]["ok"]) == (0, 3)
