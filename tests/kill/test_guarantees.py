"""docs/guarantees.md shows queries for the journal: they work, on the journal of a run that was killed."""

import re
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.kill.campaign import Plan, run_campaign
from tests.kill.moments import while_asking

PAGE = Path(__file__).parents[2] / "docs" / "guarantees.md"


def test_the_queries_of_the_docs_work(tmp_path: Path) -> None:
    """Six queries, in the page's order; the first one adds up to what the journal holds."""
    plan = Plan(rows=300, stages=((10**10, 1),), seed=5, moment=while_asking)
    journal = run_campaign(plan, tmp_path).observations[-1].journal
    queries = re.findall(r"```sql\n(.+?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    with closing(sqlite3.connect(tmp_path / "answers.run" / "journal.sqlite")) as connection:
        spent, in_flight, failures, paid_again, runs, texts = (
            connection.execute(query).fetchall() for query in queries
        )
    usd = {outcome: amount for outcome, _, amount in spent}
    assert round(usd["answered"] * 10**9) == journal.settled
    assert round(usd["uncertain"] * 10**9) == journal.uncertain
    assert in_flight == []
    assert {code for code, *_ in failures} >= {"in_doubt"}
    assert all(attempts > 1 for _, attempts, _ in paid_again)
    assert [code for _, _, code, *_ in runs] == [None, 0]
    assert all(text for _, text in texts)
