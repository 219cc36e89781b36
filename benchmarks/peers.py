"""Other ways to send the same requests, each in an environment with the versions of `peers/*.txt`."""

import json
import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

from benchmarks.server import BenchmarkError, Server

SCRIPTS = Path(__file__).with_name("peers")
CACHE = Path(os.environ.get("BENCH_CACHE", "~/.cache/batchrun-benchmarks")).expanduser()
MOST_SECONDS = 300.0


@dataclass(frozen=True)
class Peer:
    """`script` is in the folder `peers`; the requirements beside it are installed, where there are any.

    `rows` are enough for a loop of some seconds.
    """

    name: str
    script: str
    rows: int


BARE_LOOP = Peer("bare loop on pyreqwest", "bare_loop.py", 50_000)
PEERS = (
    Peer("`anthropic` SDK, gather and a semaphore", "anthropic_sdk.py", 3_000),
    Peer("`async-batch-llm`", "async_batch_llm_batch.py", 3_000),
    Peer("`flexllm`", "flexllm_batch.py", 8_000),
)


@dataclass(frozen=True)
class Loop:
    """What a peer's loop took, without starting Python and importing the client. Seconds, MB."""

    rows: int
    wall: float
    cpu: float
    peak_mb: float

    @property
    def cpu_us_per_row(self) -> float:
        return self.cpu / self.rows * 1e6

    @property
    def rows_per_second(self) -> float:
        return self.rows / self.wall


def run_peer(peer: Peer, server: Server, in_flight: int) -> Loop:
    """Runs a peer's loop. Raises BenchmarkError where it can't be installed or doesn't answer every row."""
    command = [
        str(_python_of(peer)),
        str(SCRIPTS / peer.script),
        str(server.port),
        str(peer.rows),
        str(in_flight),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=MOST_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise BenchmarkError(f"{peer.name}: not finished after {MOST_SECONDS:g} s") from None
    if done.returncode:
        raise BenchmarkError(f"{peer.name}: {_last_line(done.stderr)}")
    taken = json.loads(done.stdout.splitlines()[-1])
    if taken["answers"] != peer.rows:
        raise BenchmarkError(f"{peer.name}: {taken['answers']:,} answers to {peer.rows:,} requests")
    return Loop(peer.rows, taken["wall"], taken["cpu"], taken["peak_mb"])


def version_of(peer: Peer) -> str:
    """The peer's own version, as pinned; of the bare loop, that of its HTTP client."""
    requirements = _requirements(peer)
    if not requirements.exists():
        from importlib.metadata import version

        return f"pyreqwest {version('pyreqwest')}"
    name = peer.name.split("`")[1]
    return next(line for line in requirements.read_text().splitlines() if line.startswith(f"{name}=="))


def _python_of(peer: Peer) -> Path:
    """The Python with the peer installed. The bare loop runs in batchrun's own environment."""
    requirements = _requirements(peer)
    if not requirements.exists():
        return Path(sys.executable)
    folder = CACHE / f"{requirements.stem}-{sys.version_info.major}.{sys.version_info.minor}"
    installed = folder / "installed.txt"
    if not installed.exists() or installed.read_text() != requirements.read_text():
        _install(folder, requirements)
        installed.write_text(requirements.read_text())
    return folder / "bin" / "python"


def _install(folder: Path, requirements: Path) -> None:
    venv.create(folder, clear=True, with_pip=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*pip, "-r", str(requirements)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchmarkError(f"{requirements.stem} can't be installed: {_last_line(done.stderr)}")


def _requirements(peer: Peer) -> Path:
    return (SCRIPTS / peer.script).with_suffix(".txt")


def _last_line(text: str) -> str:
    return next(reversed(text.strip().splitlines()), "it says nothing")
