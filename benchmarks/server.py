"""The benchmark's server: `server.c`, compiled on demand, in a process of its own."""

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("server.c")


class BenchmarkError(Exception):
    """What keeps a measurement from being made, in a sentence."""


@dataclass(frozen=True)
class Counts:
    """What the server has seen by `seconds` of its clock; `cpu_seconds` is what that has cost it."""

    requests: int
    answers: int
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class Server:
    """A server that is listening."""

    port: int

    def counts(self) -> Counts:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=10) as response:
            return Counts(**json.load(response))


def compile_server(folder: Path) -> Path:
    """The server's program, compiled into `folder`. Raises BenchmarkError without a C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise BenchmarkError("The benchmark's server is C and there is no `cc`. Install gcc or clang.")
    program = folder / "server"
    command = [compiler, "-O2", "-o", str(program), str(SOURCE), "-lm"]
    compiled = subprocess.run(command, capture_output=True, text=True, check=False)
    if compiled.returncode:
        raise BenchmarkError(f"The benchmark's server can't be compiled:\n{compiled.stderr.strip()}")
    return program


@contextmanager
def serving(program: Path, delay: float = 0.0, sigma: float = 0.0) -> Iterator[Server]:
    """A server that answers after `delay` seconds: in the median, log-normal, where `sigma` isn't 0."""
    with subprocess.Popen(
        [str(program), f"{delay * 1000:g}", f"{sigma:g}"], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline()
            if not port:
                raise BenchmarkError("The benchmark's server doesn't start.")
            yield Server(int(port))
        finally:
            process.kill()
