"""The search for a server's bound on concurrent requests, which no header states.

Such a server refuses whatever comes while `k` requests are open, so nearly all requests sent with k or more
others in flight are refused, and nearly none with fewer. A limit on the rate refuses at any number. Hence the
requests lately sent are counted by the number in flight when each was sent, and a threshold is believed if it
explains the refusals better than one share for all (likelihood ratio of two binomials against one).

The belief tests itself. As many are in flight as the threshold says, at any rate: if a limit on the rate is
behind the refusals, they go on below the threshold, and it is dropped. Now and then one request more goes, so
that a bound that has grown is found.

Times are seconds, given by the caller.
"""

import math
from math import log
from typing import Literal

from batchrun.engine.limits.send_order import Sent

MEMORY = 2_000
"""Requests that the counts are based on; older ones fade."""
CERTAINTY = log(999)
"""Log-likelihood ratio from which a threshold is tried; twice as much after each that was dropped."""
AGAINST, FOR = 3.0, 0.5
"""A bound is dropped once so many requests below it were refused; each that is taken makes up for a part."""
LONGEST_WAIT = 1.0
"""A refusal that names a longer wait, in seconds, is not a bound's: a place is free again in a moment."""
LEAST_TO_FIND, LEAST_TO_KEEP = 0.5, 0.25
"""Share refused at the threshold and above, to find it and to keep it. Some come back just in time."""
SHARE_ON_THE_WAY = 20
"""One in so many may be on its way, so that the server holds fewer than are in flight. Also the step."""
CONFIRMED = 2
"""Tries of more that were refused, after which a bound was right while it lasted."""
MOST_TRY_SECONDS = 10.0
TRY_SECONDS, TRY_REQUESTS = 1.0, 10
"""Minimum time and requests between two tries of more in flight; twice as much after each that failed."""
RAISED = 10
"""Requests taken above the bound, and none refused, after which it is higher."""


def log_likelihood(refused: float, taken: float) -> float:
    """Returns that of a binomial at its own share, with half a request of each kind added (Jeffreys)."""
    share = (refused + 0.5) / (refused + taken + 1)
    return refused * log(share) + taken * log(1 - share)


def best_threshold(
    refused: dict[int, float], taken: dict[int, float], least: float = LEAST_TO_FIND
) -> tuple[int, float]:
    """Returns the number in flight from which on many are refused, and its log-likelihood ratio.

    (0, 0) if there is none. The counts are by the number in flight.
    `least` is the least share that counts as many.
    """
    all_refused, all_taken = sum(refused.values()), sum(taken.values())
    together = log_likelihood(all_refused, all_taken)
    best, ratio = 0, 0.0
    refused_above = taken_above = 0.0
    for number in sorted({*refused, *taken}, reverse=True):
        refused_above += refused.get(number, 0.0)
        taken_above += taken.get(number, 0.0)
        if refused_above < least * (refused_above + taken_above) or not number:
            continue
        below = log_likelihood(all_refused - refused_above, all_taken - taken_above)
        apart = log_likelihood(refused_above, taken_above) + below
        if apart - together > ratio:
            best, ratio = number, apart - together
    return best, ratio


def _step(bound: int) -> int:
    return max(1, bound // SHARE_ON_THE_WAY)


class Counts:
    """The latest requests in sending order, by the number in flight when each was sent.

    That number is without requests that were refused in the end, since the server didn't hold them: `_back`
    has the times at which the latest refusals came back.
    """

    def __init__(self) -> None:
        self._refused: dict[int, float] = {}
        self._taken: dict[int, float] = {}
        self._counted = 0
        self._back: list[float] = []

    def add(self, sent: Sent) -> None:
        if self._back:
            self._back = [back for back in self._back if back > sent.at]
        others = sent.others - len(self._back)
        counts = self._refused if sent.refused else self._taken
        counts[others] = counts.get(others, 0.0) + 1
        if sent.refused:
            self._back.append(sent.back)
        self._counted += 1
        if self._counted >= MEMORY:
            self._counted //= 2
            self._refused = {number: count / 2 for number, count in self._refused.items()}
            self._taken = {number: count / 2 for number, count in self._taken.items()}

    @property
    def taken(self) -> float:
        return sum(self._taken.values())

    def best_threshold(self, least: float) -> tuple[int, float]:
        return best_threshold(self._refused, self._taken, least)


class ConcurrencySearch:
    """`in_flight` counts all open requests. `most` of them may be open, None without a bound.

    `_held` is the bound that was found: refusals are expected from there on. It may fall to `_lowest` when it
    was found a little too high. `most` is more than `_held` now and then, for a try: by `_step`, when the
    latest one was long enough ago in seconds (`_tried_at`) and requests (`_since_try`). `_against` is the
    evidence against the bound.
    """

    def __init__(self) -> None:
        self.most: int | None = None
        self.in_flight = 0
        self._held = 0
        self._counts = Counts()
        self._certainty = CERTAINTY
        self._tried_at = 0.0
        self._since_try = 0
        self._failed_tries = 0
        self._step = 1
        self._lowest = 0
        self._against = 0.0

    @property
    def delay(self) -> float:
        """Returns 0 if one more request may be in flight, else infinity: until one ends."""
        return 0.0 if self.most is None or self.in_flight < self.most else math.inf

    def admit(self, sent: Sent) -> None:
        sent.others = self.in_flight
        self.in_flight += 1

    def ended(self) -> None:
        self.in_flight -= 1

    def expects_refusal(self, sent: Sent) -> bool:
        """Returns whether the bound explains a refusal of the request."""
        return self.most is not None and sent.others >= self._held

    def settled(self, sent: Sent) -> Literal["found", "dropped"] | None:
        """Takes the next request in sending order; returns whether a bound was found or dropped."""
        if sent.refused and sent.wait > LONGEST_WAIT:
            return None
        self._counts.add(sent)
        before = self.most
        if self._speaks_against(sent):
            self.drop()
            return "dropped"
        if sent.refused:
            if self.most is not None and self.most > self._held and self.expects_refusal(sent):
                self._failed_tries += 1
                self._hold(self._held, sent.at)
            self._look(sent.at)
        elif self.most is not None:
            self._try_more(self.most, sent)
        return "found" if before is None and self.most is not None else None

    def lower(self, now: float) -> bool:
        """Lowers the bound by a step, since some are refused below it; False if that can't be the reason."""
        explains = self._counts.best_threshold(LEAST_TO_KEEP)[1] >= self._certainty
        if self.most is None or self._held == self._lowest or not explains:
            return False
        self._hold(self._lowest, now)
        return True

    def drop(self) -> bool:
        """Gives up the bound, since requests are refused below it; returns whether there was one."""
        found, self.most, self._held = self.most is not None, None, 0
        self._certainty *= 2 if found and self._failed_tries < CONFIRMED else 1
        self._counts = Counts()
        return found

    def _speaks_against(self, sent: Sent) -> bool:
        if self.most is None or sent.others >= self._held:
            return False
        self._against = max(0.0, self._against + (1.0 if sent.refused else -FOR))
        return self._against >= AGAINST

    def _look(self, now: float) -> None:
        best, ratio = self._counts.best_threshold(LEAST_TO_FIND if self.most is None else LEAST_TO_KEEP)
        if self.most is not None:
            # Not by much: a limit on the rate refuses at ever fewer in flight.
            if self._lowest <= best < self._held and ratio >= CERTAINTY:
                self._hold(best, now)
            return
        # Before the first responses, the number in flight is the number sent: any limit looks like a bound.
        if ratio >= self._certainty and self._counts.taken >= 2 * best:
            self._failed_tries, self._against = 0, 0.0
            bound = best - best // SHARE_ON_THE_WAY
            self._lowest = max(1, bound - _step(bound))  # with none in flight, nothing would ever end
            self._hold(bound, now)

    def _hold(self, bound: int, now: float) -> None:
        self.most = self._held = bound
        self._tried_at, self._since_try, self._step = now, 0, _step(bound)

    def _try_more(self, most: int, sent: Sent) -> None:
        """Lets more be in flight for a while, and keeps to it once enough of them were taken."""
        self._since_try += most == self._held or sent.others >= self._held
        if most > self._held:
            if self._since_try >= max(RAISED, self._held):
                self._step *= 2
                self._lowest = most - _step(most)
                self._held, self.most, self._since_try = most, most + self._step, 0
            return
        patience = min(2.0**self._failed_tries, MOST_TRY_SECONDS / TRY_SECONDS)
        late = sent.at - self._tried_at >= patience * TRY_SECONDS
        if late and self._since_try >= patience * TRY_REQUESTS:
            self.most, self._since_try = most + self._step, 0
