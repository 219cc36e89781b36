"""The machine that a measurement was made on."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("httptools", "pyreqwest", "uvloop", "anyio", "httpx", "pyarrow", "msgspec", "minijinja")


def description() -> str:
    """One paragraph: cores, processor, memory, system, Python, packages."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"{len(os.sched_getaffinity(0))} cores of {_processor()}, {memory:.0f} GiB, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}; {packages}.\n"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
