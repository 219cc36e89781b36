"""Random tables: what stands in the input is what a prompt and every output hold."""

import tempfile
import traceback
from pathlib import Path

from proofs.results import Result, Say
from tests.tables.fuzz import CHECKS

_TABLES = 300


def prove_tables(say: Say) -> list[Result]:
    """Compares the input's columns with the outputs', cell by cell."""
    return [_proved(say, kind) for kind in CHECKS]


def _proved(say: Say, kind: str) -> Result:
    say(f"{_TABLES} random tables of {kind}")
    broken = [seed for seed in range(_TABLES) if not _comes_back(say, kind, seed)]
    return Result("tables", f"{kind} tables that come back", str(_TABLES - len(broken)), "all", not broken)


def _comes_back(say: Say, kind: str, seed: int) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        try:
            CHECKS[kind](Path(folder), seed)
        except Exception:
            say(f"{kind}, seed {seed}: {traceback.format_exc()}")
            return False
    return True
