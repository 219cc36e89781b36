"""The sliding window, against one that remembers every request."""

from hypothesis import given
from hypothesis import strategies as st

from batchrun.engine.limits.sliding_window import BUCKET, MINUTE, WINDOW, SendLog

Steps = list[tuple[float, int]]
steps = st.lists(st.tuples(st.floats(0.0, 8.0), st.integers(0, 1_000)), min_size=1, max_size=60)


@given(steps)
def test_the_window_counts_whatever_a_minute_may_hold(steps: Steps) -> None:
    """It forgets a request after a minute at the earliest, and soon after the window at the latest."""
    log, sent, now = SendLog(), list[tuple[float, int]](), 0.0
    for wait, tokens in steps:
        now += wait
        log.add(now, tokens)
        sent.append((now, tokens))
        log.expire(now)
        in_minute = [tokens for at, tokens in sent if at > now - MINUTE]
        in_longer = [tokens for at, tokens in sent if at > now - WINDOW - BUCKET]
        assert len(in_minute) <= log.requests <= len(in_longer)
        assert sum(in_minute) <= log.open_tokens <= sum(in_longer)
        assert log.open_requests == log.requests


@given(steps)
def test_every_end_takes_out_what_the_beginning_put_in(steps: Steps) -> None:
    """Whatever the order, also when the window has passed on: nothing is left or counted twice."""
    log, out, now, used = SendLog(), [], 0.0, 0
    for number, (wait, tokens) in enumerate(steps):
        now += wait
        out.append((log.add(now, tokens), tokens))
        if number % 3 == 2:
            bucket, worst = out.pop(number % len(out))
            log.settle(bucket, worst, worst // 2)
            used += worst // 2
    for number, (bucket, worst) in enumerate(out):
        if number % 2:
            log.remove(bucket, worst)
        else:
            log.settle(bucket, worst, 1)
            used += 1
    assert (log.open_tokens, log.open_requests) == (0, 0)
    assert 0 <= log.tokens <= used
    log.expire(now + WINDOW + 1e-6)
    assert (log.requests, log.tokens) == (0, 0)


@given(steps, st.integers(1, 20))
def test_after_the_delay_so_many_requests_have_left(steps: Steps, excess: int) -> None:
    log, now = SendLog(), 0.0
    for wait, tokens in steps:
        now += wait
        log.add(now, tokens)
    log.expire(now)
    before = log.requests
    delay = log.delay(now, excess, lambda bucket: bucket.requests)
    log.expire(now + delay + 1e-6)
    assert before - log.requests >= min(excess, before)


def test_what_was_sent_before_a_cut_is_not_counted_after_it() -> None:
    """Though it was sent within the same tenth of a second."""
    log = SendLog()
    for _ in range(20):
        log.add(10.00, 1)
    log.begin_period()
    assert log.sent_since(10.01) == 0
    log.add(10.02, 1)
    assert log.sent_since(10.01) == 1
    assert log.requests == 21
