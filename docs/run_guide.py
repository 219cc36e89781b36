"""Runs the commands of docs/guide.md in order and puts what they print below them: python docs/run_guide.py

A block that begins with ```console holds commands, each after "$ ", and what they print. They run in a copy of jobs/ and
sample_data/, through a shell, with no key.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

PAGE = Path(__file__).with_name("guide.md")
ROOT = PAGE.parent.parent
_BLOCK = re.compile(r"(?<=^```console\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)


def commands_of(page: str) -> list[tuple[str, str]]:
    """Each command with what the page says that it prints."""
    shown = []
    for block in _BLOCK.findall(page):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            # A line that ends in a backslash goes on in the next one.
            command, printed = re.split(r"(?<!\\)\n", part, maxsplit=1)
            shown.append((command, printed))
    return shown


def outputs(commands: list[str]) -> Iterator[str]:
    """What the commands print, one after the other in the same folder."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("jobs", "sample_data"):
            shutil.copytree(ROOT / name, Path(folder) / name)
        path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
        environment = {"HOME": folder, "PATH": path, "COLUMNS": "100", "LANG": "C.UTF-8"}
        for command in commands:
            done = subprocess.run(  # noqa: S603  # the page's own commands
                ["/bin/bash", "-c", command],
                cwd=folder,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=50,
                check=False,
            )
            yield "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())


def filled(page: str) -> str:
    """The page with what the commands print now."""
    printed = outputs([command for command, _ in commands_of(page)])

    def fill(match: re.Match[str]) -> str:
        commands = [command for command, _ in commands_of(f"```console\n{match[0]}```\n")]
        return "".join(f"$ {command}\n{next(printed)}" for command in commands)

    return _BLOCK.sub(fill, page)


if __name__ == "__main__":
    os.umask(0o022)
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
