"""Runs the commands of guide.md and first-labels.md and puts what they print below them: python docs/run_guide.py

A block that begins with ```console holds commands, each after "$ ", and what they print. Those of a page run in one shell,
one after the other: the guide's in a copy of jobs/ and sample_data/, with no key; those of first-labels.md beside a clone
and a table, where a sandbox that wants a key stands in for the provider.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

DOCS = Path(__file__).parent
ROOT = DOCS.parent
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


def guide_outputs(commands: list[str]) -> list[str]:
    """What the guide's commands print."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("jobs", "sample_data"):
            shutil.copytree(ROOT / name, Path(folder) / name)
        environment = {"HOME": folder, "PATH": PATH, "COLUMNS": "100", "LANG": "C.UTF-8"}
        return _printed(commands, folder, environment)


def first_labels_outputs(commands: list[str], *, set_up: bool) -> list[str]:
    """What the commands of first-labels.md print. Without `set_up` those that set up and fill a virtual environment
    print nothing, and what is installed here is used."""
    commands = [command if set_up or not _SETTING_UP.search(command) else ":" for command in commands]
    replies = ROOT / "sample_data" / "replies.toml"
    with tempfile.TemporaryDirectory() as folder, _provider(replies) as address:
        shutil.copy(ROOT / "sample_data" / "reviews.csv", folder)
        (Path(folder) / "batchrun").mkdir()
        if set_up:
            subprocess.run(["git", "clone", "--quiet", ROOT, f"{folder}/batchrun"], check=True)  # noqa: S603, S607
        # Only errors of pip: what else it says is about the machine.
        quiet = {"PIP_QUIET": "2", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        path = os.pathsep.join((f"{sys.base_prefix}/bin", "/usr/bin", "/bin")) if set_up else PATH
        environment = {**os.environ, **quiet, "PATH": path, "COLUMNS": "100", "LANG": "C.UTF-8"}
        environment.pop("ABLIT_KEY", None)
        asked = [command.replace(ADDRESS_SHOWN, address) for command in commands]
        return [text.replace(address, ADDRESS_SHOWN) for text in _printed(asked, folder, environment)]


@contextmanager
def _provider(replies: Path) -> Iterator[str]:
    """The address of a sandbox that takes the key of the page alone."""
    options = ("--port", "0", "--replies", str(replies), "--key", "ak-demo")
    command = [sys.executable, "-m", "batchrun", "sandbox", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603
        try:
            said = process.stderr.readline() if process.stderr else ""
            address = re.search(r"http://127\.0\.0\.1:\d+", said)
            if address is None:
                raise RuntimeError(f"the sandbox doesn't start: {said}")
            yield address[0]
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


def _refresh(path: Path) -> None:
    page = path.read_text(encoding="utf-8")
    commands = [command for command, _ in commands_of(page)]
    outputs = (
        guide_outputs(commands) if path.name == "guide.md" else first_labels_outputs(commands, set_up=True)
    )
    path.write_text(filled(page, outputs), encoding="utf-8")


if __name__ == "__main__":
    os.umask(0o022)
    for name in sys.argv[1:] or ("guide.md", "first-labels.md"):
        _refresh(DOCS / name)
