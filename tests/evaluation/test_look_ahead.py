"""Where a stop can decide, no more rows are in progress than the next decision may need."""

import random
from collections.abc import Callable

import numpy as np
import pytest

from batchrun.engine.scheduler import Scheduler
from batchrun.engine.usefulness import Usefulness
from batchrun.evaluation.early_stopping import (
    LEAST_AHEAD,
    LookAhead,
    StoppingRule,
    decision,
    rows_to_decision,
)
from batchrun.evaluation.frame import SamplingFrame
from batchrun.evaluation.statistics.sampling_order import Groups
from batchrun.exchange import Completion
from batchrun.job.evaluation import EarlyStop, Evaluation
from batchrun.rows.active import Row
from batchrun.rows.labelling import PLAIN
from batchrun.rows.observer import Observer
from tests.money.fanout import request

ROWS = 20_000
STOPS = {
    "above": EarlyStop(above=0.8),
    "either way": EarlyStop(above=0.8, below=0.8),
    "half width": EarlyStop(half_width=0.06),
}
MEANS = {"above": 0.93, "either way": 0.65, "half width": 0.7}


def rule_for(stop: EarlyStop, *, binary: bool = True, cluster_of: int = 0) -> StoppingRule:
    codes = np.arange(ROWS, dtype=np.int32) // cluster_of if cluster_of else np.full(ROWS, -1, np.int32)
    frame = SamplingFrame(np.arange(ROWS), np.ones(ROWS, np.bool_), Groups(codes, []))
    evaluation = Evaluation(
        expected="gold", metric="exact", stop=stop, cluster="author" if cluster_of else None
    )
    return StoppingRule(frame, evaluation, binary)


def sent_in_vain(
    rule: StoppingRule, stop: EarlyStop, score: Callable[[], float], most: int
) -> tuple[int, int]:
    """Returns the rows that a decision took, and those in progress besides, `most` at once."""
    ahead, begun = LookAhead(rule, stop, ROWS), 0
    while decision(rule.sequence, stop) is None:
        while begun - rule.rows < most and ahead.allows(begun):
            begun += 1
        assert begun > rule.rows, "the run would stand still"
        rule.add(score())
    return rule.rows, begun - rule.rows


@pytest.mark.parametrize("cluster_of", [0, 5])
@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("kind", STOPS)
def test_a_decision_leaves_an_eighth_of_its_rows_unneeded_at_most(
    kind: str, binary: bool, cluster_of: int
) -> None:
    draw = random.Random(1)
    rule = rule_for(STOPS[kind], binary=binary, cluster_of=cluster_of)
    rows, unneeded = sent_in_vain(rule, STOPS[kind], lambda: float(draw.random() < MEANS[kind]), 500)
    assert rows < ROWS / 2
    assert unneeded <= max(LEAST_AHEAD, rows // 8)


def test_the_first_rows_are_as_many_as_the_earliest_decision_takes() -> None:
    """With nothing scored: fewer right answers than these can't decide, whatever they are."""
    stop = STOPS["above"]
    first = LookAhead(rule_for(stop), stop, ROWS)
    begun = next(position for position in range(ROWS) if not first.allows(position))
    assert begun == rows_to_decision(rule_for(stop), stop, ROWS)
    rule = rule_for(stop)
    for _ in range(begun - 1):
        rule.add(1.0)
        assert decision(rule.sequence, stop) is None
    rule.add(1.0)
    assert decision(rule.sequence, stop) == "above 0.8"


def test_far_from_a_decision_nothing_is_held_back() -> None:
    """After 5,000 rows the sending is as fast as without a stop."""
    stop = EarlyStop(above=0.9)
    rule = rule_for(stop)
    draw = random.Random(2)
    for _ in range(5_000):
        rule.add(float(draw.random() < 0.7))
    ahead = LookAhead(rule, stop, ROWS)
    assert all(ahead.allows(position) for position in range(5_000, 5_600))


def test_a_table_that_ends_before_a_decision_is_sent_to_its_end() -> None:
    stop = EarlyStop(above=0.999)
    rule = rule_for(stop)
    ahead = LookAhead(rule, stop, ROWS)
    for position in range(ROWS):
        assert ahead.allows(position)
        rule.add(float(position % 2))


def test_rows_that_may_not_begin_wait_and_one_is_always_in_progress() -> None:
    """One that can never end, such as a row before it that can't be sent, must not hold up the run."""
    allowed = 1
    scheduler = Scheduler(PLAIN, Observer(), Usefulness(0), lambda row: row.index < allowed)
    scheduler.feed([Row(index, request(index)) for index in range(4)])
    first = scheduler.next(0.0, new_rows_first=lambda: False)
    assert first is not None
    assert scheduler.next(0.0, new_rows_first=lambda: False) is None
    assert not scheduler.wants_rows
    allowed = 2
    assert scheduler.next(0.0, new_rows_first=lambda: False) is not None
    assert scheduler.next(0.0, new_rows_first=lambda: False) is None
    for index in range(2):
        scheduler.ended(request(index), Completion("yes"))
    assert scheduler.next(0.0, new_rows_first=lambda: False) is not None, "though none is allowed"


def test_a_retry_is_due_while_new_rows_may_not_begin() -> None:
    """In an outage new rows go first, but not where they have to wait for the rows in progress."""
    scheduler = Scheduler(PLAIN, Observer(), Usefulness(0), lambda row: row.index < 1)
    scheduler.feed([Row(index, request(index)) for index in range(3)])
    first = scheduler.next(0.0, new_rows_first=lambda: True)
    assert first is not None
    scheduler.retry(first, due=1.0)
    assert scheduler.next(2.0, new_rows_first=lambda: True) is first
