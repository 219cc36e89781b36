"""How many requests are prepared ahead, by numbers."""

import pytest

from batchrun.engine.prefetch import PrefetchLimit


def test_twice_what_a_commit_took_is_prepared_and_a_burst_is_remembered_for_two_turns() -> None:
    limit = PrefetchLimit(100)
    limit.most = 80
    limit.resize(spare=True, sent=50, sent_during_commit=4)
    assert limit.most == pytest.approx(60)
    limit.resize(spare=True, sent=100, sent_during_commit=40)
    assert limit.most == 80
    limit.resize(spare=True, sent=400, sent_during_commit=4)
    assert limit.most == 8
    limit.resize(spare=False, sent=404, sent_during_commit=4)
    assert limit.most == 16


@pytest.mark.parametrize("concurrency", [1, 2, 64])
def test_at_least_two_and_no_more_than_the_concurrency_are_prepared(concurrency: int) -> None:
    limit = PrefetchLimit(concurrency)
    for _ in range(10):
        limit.resize(spare=False, sent=0, sent_during_commit=0)
    assert limit.most == max(2, concurrency)
    limit.resize(spare=True, sent=1_000, sent_during_commit=0)
    assert limit.most == 2
