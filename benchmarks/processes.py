"""Processes and what they take: CPU time, wall time, memory."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.server import BenchmarkError


@dataclass(frozen=True)
class Usage:
    """What a process took from its start to its end, with all its threads. Times in seconds."""

    cpu: float
    wall: float
    peak_mb: float


class Measured:
    """A process under way. Its output goes to `log`."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self._log = log
        self._started = time.perf_counter()
        with log.open("wb") as file:
            self._process = subprocess.Popen(command, stdout=file, stderr=file)

    @property
    def cpu(self) -> float:
        """CPU seconds so far, by the process's own clock (see clock_getcpuclockid(3))."""
        return time.clock_gettime((~self._process.pid) << 3 | 2)

    @property
    def wall(self) -> float:
        return time.perf_counter() - self._started

    @property
    def running(self) -> bool:
        """False from the end on, which this doesn't reap: `usage` does."""
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def usage(self) -> Usage:
        """Waits for the end. Raises BenchmarkError where that wasn't a good one."""
        _, status, usage = os.wait4(self._process.pid, 0)
        wall = self.wall
        self._process.returncode = os.waitstatus_to_exitcode(status)
        if self._process.returncode:
            raise BenchmarkError(f"Exit code {self._process.returncode}:\n{self._log.read_text()[-2000:]}")
        return Usage(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / 1024)

    def kill(self) -> None:
        """Ends the process, where it hasn't ended by itself."""
        self._process.kill()
        self._process.wait()


def measure(command: Sequence[str], log: Path, most_seconds: float = 4 * 3600.0) -> Usage:
    """Runs a command to its end. Raises BenchmarkError where it fails or takes longer than that."""
    process = Measured(command, log)
    try:
        while process.running and process.wall < most_seconds:
            time.sleep(0.02)
        if not process.running:
            return process.usage()
    finally:
        process.kill()
    raise BenchmarkError(f"Not finished after {most_seconds:g} s: {' '.join(command)}")


def python_module(*arguments: str) -> list[str]:
    return [sys.executable, "-m", *arguments]
