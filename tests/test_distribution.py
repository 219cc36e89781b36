"""What pip installs: the distribution `batchrun-llm`, with the package and the command `batchrun`."""

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

import batchrun

PROJECT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
HINT = re.compile(r"pip install '([\w-]+)\\?\[(\w+)")


def test_every_hint_to_install_an_extra_names_this_distribution_and_an_extra_that_it_has() -> None:
    files = [path for folder in ("batchrun", "docs") for path in (PROJECT / folder).rglob("*.*")]
    texts = [path.read_text(encoding="utf-8") for path in files if path.suffix in (".py", ".md")]
    hints = {hint for text in texts for hint in HINT.findall(text)}
    assert {name for name, _ in hints} == {PYPROJECT["name"]}
    assert {extra for _, extra in hints} - {"dev"} == {*PYPROJECT["optional-dependencies"]} - {"dev"}


def test_the_version_is_found_under_the_name_of_the_distribution() -> None:
    assert version(PYPROJECT["name"]) == batchrun.__version__


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_built_wheel_runs_the_readmes_first_job_in_an_empty_environment(tmp_path: Path) -> None:
    """Needs the package index that pip uses, for the dependencies."""
    built = _build(tmp_path)
    python = _environment(tmp_path / "empty", *built.glob("*.whl"))
    shown = _output(python, "-m", "pip", "list", "--format", "freeze")
    assert [line for line in shown.splitlines() if "batchrun" in line] == [
        f"batchrun-llm=={batchrun.__version__}"
    ]

    work = tmp_path / "work"
    work.mkdir()
    (work / "reviews.csv").write_bytes((PROJECT / "sample_data" / "reviews.csv").read_bytes())
    (work / "reviews.toml").write_text(_first_job(), encoding="utf-8")
    command = python.with_name("batchrun")
    assert "302 to send" in _output(command, "plan", "reviews.toml", folder=work)
    _output(command, "run", "reviews.toml", "--sandbox", "-q", folder=work)
    count = "import polars; print(polars.read_parquet('reviews-answers.parquet')['label'].count())"
    assert int(_output(python, "-c", count, folder=work)) > 250

    # The hint that a missing extra gives, word for word; pip finds the distribution that is installed.
    hint = _output(python, "-m", "pip", "install", "--dry-run", f"{PYPROJECT['name']}[excel]")
    assert "Would install python-calamine" in hint


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_source_distribution_has_what_the_wheel_and_make_need(tmp_path: Path) -> None:
    built = _build(tmp_path)
    (source,) = built.glob("*.tar.gz")
    _output("tar", "xzf", source, "-C", tmp_path)
    unpacked = tmp_path / source.name.removesuffix(".tar.gz")
    tracked = _output("git", "ls-files", folder=PROJECT).split()
    assert [name for name in tracked if not name.startswith(".") and not (unpacked / name).exists()] == []


def _build(folder: Path) -> Path:
    """Builds wheel and source distribution, with the build backend in an environment of its own."""
    python = _environment(folder / "tools", "hatchling")
    _output(python, "-m", "hatchling", "build", "-d", folder / "dist", folder=PROJECT)
    return folder / "dist"


def _environment(folder: Path, *packages: str | Path) -> Path:
    """Makes a virtual environment with these packages and returns its Python."""
    _output(sys.executable, "-m", "venv", folder)
    python = folder / "bin" / "python"
    _output(python, "-m", "pip", "install", "--constraint", PROJECT / "constraints.txt", *packages)
    return python


def _output(*command: str | Path, folder: Path | None = None) -> str:
    environment = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")
    }
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _first_job() -> str:
    """The job file that the README shows first."""
    page = (PROJECT / "README.md").read_text(encoding="utf-8")
    return page.partition("```toml\n")[2].partition("```")[0]
