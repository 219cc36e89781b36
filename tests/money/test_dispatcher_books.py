"""The dispatcher, the ledger and the journal in step, whatever happens in whatever order, in virtual time."""

import math
import random

import pytest

from batchrun.amounts import NOTHING
from batchrun.engine.dispatcher import END
from batchrun.engine.ledger import Cap
from batchrun.exchange import BillingStatus, Response
from batchrun.stops import Stop
from tests.money.dispatching import Desk
from tests.money.fanout import NANO_USD_PER_TOKEN, answer, failure

WORST_CASE = (100 + 20) * NANO_USD_PER_TOKEN
STOP = Stop(130, "Interrupted.", "go on")


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_in_whatever_order_the_books_are_right(seed: int) -> None:
    """Under a cap, with lost and odd responses, refused intents, and a stop in every other one."""
    draw = random.Random(seed)
    cap = 40 * WORST_CASE
    desk = Desk(rows=120, concurrency=8, caps=[Cap("budget.usd", "nano_usd", cap)])
    now, charged, stop_at = 0.0, 0, draw.uniform(0, 20) if seed % 2 else math.inf
    released = []
    while desk.advance(now) != END:
        if stop_at < now < stop_at + 1:
            desk.dispatcher.stop(STOP, drain_until=now + 5)
        if draw.random() < 0.5 and desk.log.uncommitted:
            newest = max(desk.log.digests)
            refused = [newest] if draw.random() < 0.1 else []
            intents, desk.log.uncommitted = desk.log.uncommitted, 0
            released += desk.dispatcher.committed(intents, frozenset(refused), now)
            for each in refused:
                desk.log.records.append(("refused intent", each))
        released += desk.dispatcher.release(now)
        draw.shuffle(released)
        desk.send(released[: draw.randrange(4)])
        released = [each for each in released if each not in desk.sent]
        if desk.sent and draw.random() < 0.7:
            ended = desk.sent.pop(draw.randrange(len(desk.sent)))
            billing = draw.choice(list(BillingStatus))
            fails = draw.random() < 0.2
            result = failure(billing=billing) if fails else answer(draw.randrange(101), 9)
            if isinstance(result, Response):
                charged += result.cost_nano_usd or 0
            elif billing is BillingStatus.UNKNOWN:
                charged += WORST_CASE
            released += desk.dispatcher.completed(ended, result, now)
        now += draw.random()
        ledger = desk.ledger
        assert ledger.settled.plus(ledger.uncertain).plus(ledger.reserved).nano_usd <= cap
        assert ledger.in_flight == len(desk.log.open_intents)
        assert ledger.settled.plus(ledger.uncertain).nano_usd == charged
    desk.dispatcher.abandon()
    assert not desk.log.open_intents
    assert desk.ledger.reserved == NOTHING
    assert desk.dispatcher.stopped_by is not None
