"""Runs the commands of the README and of pages here, and puts what they print below them: python docs/run_guide.py

A block that begins with ```console holds commands, each after "$ ", and what they print. Those of a page run in one shell,
one after the other, with no key: those of the guide and of labels.md in a copy of jobs/ and sample_data/; the README's there, too,
beside a table and the job file that it shows; those of sandbox.md beside a sandbox that is running; those of first-labels.md
beside a clone and a table, where a sandbox that wants a key stands in for the provider.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parent.parent
PATH = f"{Path(sys.executable).parent}:/usr/bin:/bin"
ADDRESS_SHOWN = "http://127.0.0.1:8080"
_BLOCK = re.compile(r"(?<=^```console\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)
_SETTING_UP = re.compile(r"python3 -m venv|\. \S+/activate|pip install")


def commands_of(page: str) -> list[tuple[str, str]]:
    """Each command with what the page says that it prints."""
    shown = []
    for block in _BLOCK.findall(page):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            # A line that ends in a backslash goes on in the next one.
            command, printed = re.split(r"(?<!\\)\n", part, maxsplit=1)
            shown.append((command, printed))
    return shown


def guide_outputs(commands: list[str], path: str = PATH) -> list[str]:
    """What the commands of the guide and of labels.md print, with programs of the path."""
    with _examples() as folder:
        return _printed(commands, folder, _environment(folder, path))


def readme_outputs(commands: list[str], path: str = PATH) -> list[str]:
    """What the README's commands print; `make` uses what is installed here, and the demo's sandbox answers at once."""
    job = (ROOT / "README.md").read_text(encoding="utf-8").partition("```toml\n")[2].partition("```")[0]
    with _examples() as folder:
        for name in ("Makefile", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, folder)
        shutil.copy(ROOT / "sample_data" / "reviews.csv", folder)
        (Path(folder) / "reviews.toml").write_text(job, encoding="utf-8")
        installed = f'make() {{ command make -o setup BIN={path.partition(os.pathsep)[0]} LATENCY=0 "$@"; }}'
        return _printed([installed, *commands], folder, _environment(folder, path))[1:]


def sandbox_outputs(commands: list[str], path: str = PATH) -> list[str]:
    """What the commands of sandbox.md print: of the first, which goes on running, what it says at its start."""
    with tempfile.TemporaryDirectory() as folder, _sandbox() as (said, address):
        asked = [command.replace(ADDRESS_SHOWN, address) for command in commands[1:]]
        printed = [said, *_printed(asked, folder, _environment(folder, path))]
        return [text.replace(address, ADDRESS_SHOWN) for text in printed]


@contextmanager
def _examples() -> Iterator[str]:
    """A folder with a copy of the example jobs and their tables."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("jobs", "sample_data"):
            shutil.copytree(ROOT / name, Path(folder) / name)
        yield folder


def _environment(folder: str, path: str) -> dict[str, str]:
    return {"HOME": folder, "PATH": path, "COLUMNS": "100", "LANG": "C.UTF-8"}


def first_labels_outputs(commands: list[str], path: str = PATH, *, set_up: bool) -> list[str]:
    """What the commands of first-labels.md print. Without `set_up` those that set up and fill a virtual environment
    print nothing, and what is installed here is used."""
    commands = [command if set_up or not _SETTING_UP.search(command) else ":" for command in commands]
    replies = ROOT / "sample_data" / "replies.toml"
    options = ("--replies", str(replies), "--key", "ak-demo")
    with tempfile.TemporaryDirectory() as folder, _sandbox(*options) as (_, address):
        shutil.copy(ROOT / "sample_data" / "reviews.csv", folder)
        (Path(folder) / "batchrun").mkdir()
        if set_up:
            subprocess.run(["git", "clone", "--quiet", ROOT, f"{folder}/batchrun"], check=True)  # noqa: S603, S607
        # Only errors of pip: what else it says is about the machine.
        quiet = {"PIP_QUIET": "2", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        if set_up:
            path = os.pathsep.join((f"{sys.base_prefix}/bin", "/usr/bin", "/bin"))
        environment = {**os.environ, **quiet, "PATH": path, "COLUMNS": "100", "LANG": "C.UTF-8"}
        environment.pop("ABLIT_KEY", None)
        asked = [command.replace(ADDRESS_SHOWN, address) for command in commands]
        return [text.replace(address, ADDRESS_SHOWN) for text in _printed(asked, folder, environment)]


@contextmanager
def _sandbox(*options: str) -> Iterator[tuple[str, str]]:
    """What a sandbox says at its start, and its address."""
    command = [sys.executable, "-m", "batchrun", "sandbox", "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603
        try:
            said = process.stderr.readline() if process.stderr else ""
            address = re.search(r"http://127\.0\.0\.1:\d+", said)
            if address is None:
                raise RuntimeError(f"the sandbox doesn't start: {said}")
            yield said, address[0]
        finally:
            process.kill()


def _printed(commands: list[str], folder: str, environment: Mapping[str, str]) -> list[str]:
    """What each command prints, in one shell that begins in the folder."""
    script = "\n".join(f"{command}\nprintf '\\0'" for command in commands)
    done = subprocess.run(  # noqa: S603  # the pages' own commands
        ["/bin/bash", "-c", script],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    return [
        "".join(f"{line.rstrip()}\n" for line in text.splitlines()) for text in done.stdout.split("\0")[:-1]
    ]


def filled(page: str, printed: list[str]) -> str:
    """The page with what its commands printed, in order."""
    rest = iter(printed)

    def fill(match: re.Match[str]) -> str:
        commands = [command for command, _ in commands_of(f"```console\n{match[0]}```\n")]
        return "".join(f"$ {command}\n{next(rest)}" for command in commands)

    return _BLOCK.sub(fill, page)


PAGES: Mapping[str, Callable[..., list[str]]] = {
    "README.md": readme_outputs,
    "docs/guide.md": guide_outputs,
    "docs/labels.md": guide_outputs,
    "docs/sandbox.md": sandbox_outputs,
    "docs/first-labels.md": partial(first_labels_outputs, set_up=True),
}
"""What prints the outputs of a page's commands, by the page's path."""


def _refresh(name: str) -> None:
    path = ROOT / name
    page = path.read_text(encoding="utf-8")
    commands = [command for command, _ in commands_of(page)]
    path.write_text(filled(page, PAGES[name](commands)), encoding="utf-8")


if __name__ == "__main__":
    os.umask(0o022)
    for name in sys.argv[1:] or PAGES:
        _refresh(name)
