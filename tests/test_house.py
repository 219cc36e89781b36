"""The house keeps its shape: few files at the top, short files and functions, and a short way of a row."""

import ast
import os
import sys
import threading
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import batchrun

HOUSE = Path(batchrun.__file__).parent
SOURCES = sorted(HOUSE.rglob("*.py"))
MOST_CROSSINGS = 26
"""Calls of a plain row from one room to another, measured over its whole way."""


def test_at_most_eleven_files_lie_flat() -> None:
    assert len(list(HOUSE.glob("*.py"))) <= 11


def test_files_stay_under_400_lines() -> None:
    lines = {str(path.relative_to(HOUSE)): len(path.read_text().splitlines()) for path in SOURCES}
    assert {path: count for path, count in lines.items() if count > 400} == {}


def test_functions_stay_short() -> None:
    lengths = sorted(
        node.end_lineno - node.lineno + 1
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None
    )
    assert lengths[len(lengths) * 9 // 10] <= 18
    assert lengths[len(lengths) * 98 // 100] <= 32


def test_a_plain_row_crosses_few_rooms(tmp_path: Path) -> None:
    # On a loaded machine a response comes in pieces now and then, and a coroutine that goes on is a call: a
    # count can only be too high.
    for name in "abc":
        a_row = _calls_of_a_row(tmp_path / name)
        if sum(a_row.values()) <= MOST_CROSSINGS:
            break
    assert sum(a_row.values()) <= MOST_CROSSINGS, a_row


def _calls_of_a_row(folder: Path) -> dict[tuple[str, str, str], float]:
    few, many, rows = _crossings(folder / "few", 200), _crossings(folder / "many", 700), 500
    a_row = {call: (many[call] - few[call]) / rows for call in many}
    # What happens once a chunk or a commit isn't the row's.
    return {call: count for call, count in a_row.items() if count > 0.1}


def _crossings(folder: Path, rows: int) -> Counter[tuple[str, str, str]]:
    """Calls from a room to another, a package or a file at the top, in a run of so many rows."""
    folder.mkdir(parents=True)
    (folder / "in.csv").write_text("text\n" + "".join(f"row number {row}\n" for row in range(rows)))
    job = {
        "input": {"path": str(folder / "in.csv")},
        "prompt": {"template": "Say {{ text }}"},
        "request": {"model": "abliterated-model", "max_tokens": 1000},
        # A pace that is searched for makes a row wait, and look again, as often as the machine lets it.
        "limits": {"concurrency": 32, "requests_per_minute": 10_000_000},
        "budget": {"usd": 50.0},
        "output": {"path": str(folder / "out.parquet")},
    }
    calls: Counter[tuple[str, str, str]] = Counter()

    def count(frame: FrameType, event: str, _argument: Any) -> None:
        if event != "call" or (callee := _room(frame)) is None:
            return
        caller = frame.f_back
        while caller is not None and _room(caller) is None:
            caller = caller.f_back
        if caller is not None and (room := _room(caller)) != callee:
            calls[str(room), callee, frame.f_code.co_qualname] += 1

    before = sys.getprofile()
    threading.setprofile(count)
    sys.setprofile(count)
    try:
        assert batchrun.run(job, sandbox=True).summary["rows"]["ok"] == rows
    finally:
        sys.setprofile(before)
        threading.setprofile(None)
    return calls


def _room(frame: FrameType) -> str | None:
    path = frame.f_code.co_filename
    if not path.startswith(f"{HOUSE}{os.sep}") or f"{os.sep}sandbox{os.sep}" in path:
        return None
    inside = path[len(str(HOUSE)) + 1 :]
    return os.path.dirname(inside) or inside  # noqa: PTH120 - for every call of a run
