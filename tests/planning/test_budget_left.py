"""What a plan says of the budget is what the next run finds of it."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from batchrun.clock import milliseconds
from batchrun.job.file import make_job
from batchrun.journal import Intent, JournalWriter, create_or_open
from batchrun.runs.plan.plan import plan_job
from batchrun.runs.run_folder import make_run_folder

IN_FLIGHT = 700_000_000
"""Nano-USD that the run had reserved when it was killed."""


@pytest.mark.parametrize("cap", ["usd", "usd_per_day"])
def test_what_a_killed_run_had_in_flight_is_not_left_to_the_next_one(tmp_path: Path, cap: str) -> None:
    (tmp_path / "in.csv").write_text("text\none\ntwo\n")
    tables: dict[str, Any] = {
        "input": {"path": "in.csv"},
        "prompt": {"template": "{{ text }}"},
        "request": {"model": "m", "max_tokens": 100_000},
        "budget": {cap: 1},
        "output": {"path": "out.parquet"},
    }
    job = make_job(tables, tmp_path)
    assert plan_job(job)["notes"] == []
    with closing(create_or_open(make_run_folder(tmp_path / "out.run").journal)) as journal:
        run = journal.start_run("1", 0, False, "endpoint", "f", "{}")
        writer = JournalWriter(journal, lambda *_: None, lambda _: None, lambda: False, lambda _: None)
        writer.write_intent(Intent(1, run, bytes(16), 1, milliseconds(), IN_FLIGHT, 0, 0))
        writer.close()
    plan = plan_job(job)
    assert plan["budget"]["usd_left"] in (None, 0.3)
    (note,) = plan["notes"]
    assert note.startswith("the caps leave 0.3 USD, less than the worst case of the most expensive request,")
    with closing(create_or_open(tmp_path / "out.run" / "journal.sqlite")) as journal:
        assert journal.totals(False).open.nano_usd == IN_FLIGHT, "a plan changes nothing"
