"""What a history is about: the rows, the job, and the budget of each run."""

import json
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from batchrun.job.file import make_job
from batchrun.job.spec import Job
from batchrun.tables.reader import Table, in_memory
from proofs.simulation.draw import Draw
from proofs.simulation.provider import NANO_USD_PER_TOKEN, TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Callable

TYPICAL_TOKENS = 90
"""The worst case of a short request, by which caps are drawn."""
CHUNK_SIZES = (8, 2, 1, 1)
START_BALANCE = 100 * TYPICAL_TOKENS
_OTHER_CAPS = ("credits", "tokens", "rows", "seconds", "keep_credits")


@dataclass(frozen=True, slots=True)
class Scenario:
    """`tables` make the job, without its budget. `chunk` is how many rows are looked up together, `plain`
    says that a row ends with its first response. `balance` is the account's, None if responses don't state
    it. `restless`: the wall clock jumps often. `max_tokens` has the values that runs may
    have, `caps` the keys of their budgets. Something happens to a run about once in `calm_steps` steps.
    """

    texts: list[str]
    table: Table
    tables: dict[str, dict[str, Any]]
    chunk: int
    balance: int | None
    restless: bool
    max_tokens: tuple[int, ...]
    caps: tuple[str, ...]
    calm_steps: int

    @property
    def plain(self) -> bool:
        raised = len(self.max_tokens) > 1 or self.tables["retry"]["max_tokens"]
        return "labels" not in self.tables and not raised

    def job(self, budget: dict[str, Any], max_tokens: int, base: Path) -> Job:
        request = {"model": "simulated", "max_tokens": max_tokens}
        return make_job({**self.tables, "request": request, "budget": budget}, base)


def draw_scenario(draw: Draw) -> Scenario:
    rows = 1 + draw.below(16)
    different = draw.of((rows, 2, 1))
    texts = [f"text {draw.below(different)}" for _ in range(rows)]
    tables = _draw_tables(draw)
    caps, restless = _draw_caps(draw), draw.one_in(5)
    if draw.one_in(6):
        tables["prompt"] = {"messages": "marked"}
    return Scenario(
        texts,
        in_memory(pa.table({"text": texts, "marked": list(map(_marked, texts))}), "rows"),
        tables,
        draw.of(CHUNK_SIZES),
        START_BALANCE if "keep_credits" in caps else None,
        restless=restless,
        max_tokens=draw.of(((8,), (8,), (8, 12))),
        caps=("usd_per_day",) if restless else caps,
        calm_steps=draw.of((100, 20, 1000)),
    )


def _draw_tables(draw: Draw) -> dict[str, dict[str, Any]]:
    tables: dict[str, dict[str, Any]] = {
        "input": {"path": "rows"},
        "prompt": {"template": "{{ text }}"},
        "endpoint": {"base_url": "https://simulated.test", "timeout_seconds": TIMEOUT},
        "pricing": {
            "input_usd_per_million": NANO_USD_PER_TOKEN // 1000,
            "output_usd_per_million": NANO_USD_PER_TOKEN // 1000,
            "credits_per_million_tokens": 1_000_000,
        },
        "limits": {"concurrency": 1 + draw.below(5)},
        "retry": _retry(draw),
        "output": {
            "path": "output.jsonl",
            "duplicates": draw.of(("share", "share", "separate")),
            "order": draw.of(("input", "input", "random")),
        },
    }
    if draw.below(2):
        votes = draw.of((1, 1, 2, 3))
        tables["labels"] = {"choices": ["yes", "no"], "repair": draw.below(3), "votes": votes}
    if draw.one_in(4):
        tables["limits"]["requests_per_minute"] = draw.of((600, 60))
    return tables


def _marked(text: str) -> str:
    """Returns messages whose beginning, the same in all rows, is marked for the server's cache."""
    mark = {"type": "ephemeral"}
    parts = [{"type": "text", "text": "shared", "cache_control": mark}, {"type": "text", "text": text}]
    return json.dumps([{"role": "user", "content": parts}])


def _retry(draw: Draw) -> dict[str, Any]:
    return {
        "max_attempts": draw.of((3, 6, 2, 1)),
        "in_doubt": draw.of(("ask", "ask", "leave")),
        "useless_rows": draw.of((0, 0, 3)),
        "outage_seconds": draw.of((900.0, 60.0)),
        "max_tokens": draw.of(([], [], [16], [16, 64])),
    }


def _draw_caps(draw: Draw) -> tuple[str, ...]:
    """Returns the keys of the caps that the runs of a history have."""
    number = draw.of((1, 2, 1, 0, 3))
    return tuple({draw.of(("usd", "usd_per_run", "usd_per_day", *_OTHER_CAPS)): None for _ in range(number)})


def draw_budget(draw: Draw, scenario: Scenario, run: int) -> dict[str, Any]:
    """Returns the caps of the run with the number `run`; the ones for the whole life grow from run to run."""
    whole_life = 4 + 4 * run
    sizes: dict[str, Callable[[], Any]] = {
        "usd": lambda: _usd(_tokens(draw, whole_life)),
        "usd_per_run": lambda: _usd(_tokens(draw, 6)),
        "usd_per_day": lambda: _usd(_tokens(draw, 3 if scenario.restless else 6)),
        "credits": lambda: _tokens(draw, whole_life),
        "tokens": lambda: _tokens(draw, whole_life),
        "rows": lambda: 1 + draw.below(6),
        "seconds": lambda: draw.of((20, 5)),
        "keep_credits": lambda: START_BALANCE - _tokens(draw, whole_life),
    }
    return {key: sizes[key]() for key in scenario.caps if not draw.one_in(8)}


def _tokens(draw: Draw, requests: int) -> int:
    return TYPICAL_TOKENS * (1 + draw.below(requests)) + draw.below(TYPICAL_TOKENS)


def _usd(tokens: int) -> Decimal:
    return Decimal(tokens * NANO_USD_PER_TOKEN).scaleb(-9)
