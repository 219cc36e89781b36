"""The circuit breaker: the more of the latest attempts fail transiently, the fewer requests are sent.

Client-side throttling of the book "Site Reliability Engineering" (chapter "Handling Overload"): a request is
held back with probability p = max(0, (requests - K accepts) / (requests + 1)). Here nothing is random: to
hold back p / (1 - p) requests for each one sent is to leave a gap of p / (1 - p) units before the next.
Requests and accepts are counted over the latest attempts and not over minutes, so that a fast run notices an
outage in time, too.

Only other rows can tell whether the row or the endpoint is to blame for a failure:

- The row is, once a request sent later than its first failed attempt has a response:
  others get through where it doesn't. Until then the row is in doubt.
- The endpoint is, after ten failures of rows in doubt with no success in between. Then it is
  down: one probe at a time is sent until one succeeds, and no failure uses up an attempt.
- While neither is known, a row that has failed before keeps its last attempt: it is sent again, more and
  more slowly, and no row fails permanently because of an outage that only few rows have met.

The last rows of a run have no others after them, so doubt could last forever. A few bad rows at the very end
and an outage at the very end look alike; only likelihood tells them apart. An outage begins at any time, so
it falls into the last twentieth of a run once in twenty times. Hence the rows in doubt are to blame if other
rows had responses before, and their number is at most one plus one for each `FEW` responses, and at most
`FEW`; but only after a tenth of `max_outage` for each of them: most outages are over by then. In all other
cases the run ends after `max_outage`, and the rows keep their attempts: there was no response yet, more rows
fail than that, or requests can't even be sent.

A request that may have been billed always uses up an attempt: else a row could cost any number of worst
cases. A request that could not be sent uses up none, nor does a 429 here: the dispatcher handles rows that
are refused again and again while others get through.

Times are seconds of one monotonic clock, given by the caller.
"""

from batchrun.exchange import BillingStatus, Failure, FailureAction

K = 2.0
MEMORY = 32
"""Attempts that the counts are based on; older ones fade."""
UNIT = 0.05
"""Seconds of the gap at p = 1/2."""
FAILURES_OF_AN_OUTAGE = 10
"""Failures in doubt, with no success in between, after which the endpoint counts as down."""
FIRST_PROBE = 0.5
"""Seconds until the first probe; each further wait is twice as long."""
LONGEST_GAP = 4.0
FEW = 20


def most_bad_rows_at_the_end(answered: int) -> int:
    """Returns how many rows in doubt at a run's end count as bad rows, given the number of responses."""
    return min(FEW, 1 + answered // FEW) if answered else 0


class CircuitBreaker:
    """Counts how attempts end. `max_outage`: seconds for which an endpoint may be down before the run
    ends."""

    def __init__(self, max_outage: float) -> None:
        self._patience = max_outage
        self._requests = 0.0
        self._accepts = 0.0
        self._answered = 0
        self._latest_answered = float("-inf")
        self._in_doubt: list[float] = []
        self._failures = 0
        self._failing_since: float | None = None
        self._unsent = False
        self._at_the_end = False
        self._rows_are_to_blame = False
        self._sent_at = float("-inf")
        self._probes = 0
        self._probe_at = 0.0
        self._probe_out: float | None = None

    @property
    def answered(self) -> int:
        """Returns the number of requests that got through."""
        return self._answered

    @property
    def latest_answered(self) -> float:
        """Returns when the latest request with a response was sent."""
        return self._latest_answered

    @property
    def is_failing(self) -> bool:
        """Returns whether nothing has succeeded since the last failure."""
        return self._failing_since is not None

    @property
    def is_down(self) -> bool:
        """Returns whether the endpoint fails all requests, so that one probe at a time is sent."""
        return self._failures >= FAILURES_OF_AN_OUTAGE

    def delay(self, now: float) -> float:
        """Returns the seconds until the next request may go; 0 or less: now; infinite during a probe."""
        if self.is_down:
            return self._probe_at - now if self._probe_out is None else float("inf")
        overload = self._requests - K * self._accepts
        if overload <= 0:
            return 0.0
        return self._sent_at + UNIT * overload / (K * self._accepts + 1) - now

    def sent(self, now: float) -> None:
        self._sent_at = now
        if self.is_down:
            self._probe_out = now

    def succeeded(self, sent_at: float) -> None:
        """Counts a request sent at `sent_at` that got a response, or was refused for its content."""
        self._count(accepts=1)
        self._end_probe(sent_at)
        self._answered += 1
        self._latest_answered = max(self._latest_answered, sent_at)
        if self._failing_since is not None:
            self._in_doubt = [first for first in self._in_doubt if first >= self._latest_answered]
            self._failures = self._probes = 0
            self._failing_since = None
            self._unsent = self._rows_are_to_blame = False

    def failed(
        self,
        now: float,
        sent_at: float,
        failure: Failure,
        *,
        first_failed: float | None,
        is_last: bool,
        at_the_end: bool,
    ) -> bool:
        """Counts a failure; returns whether it uses up one of its row's attempts.

        `first_failed`: when the row's first failed attempt was sent, None if that is this one. `is_last`: the
        row has one attempt left. `at_the_end`: no row is left that hasn't been sent yet.
        """
        if failure.action in (FailureAction.SLOW_DOWN, FailureAction.REFUSE):
            self._end_probe(sent_at)
            return False
        if failure.action is not FailureAction.RETRY:
            self.succeeded(sent_at)
            return True
        unbilled = failure.billing is BillingStatus.NO
        unsent = unbilled and failure.status is None
        if first_failed is None:
            self._in_doubt.append(sent_at)
        doubtful = sent_at if first_failed is None else first_failed
        in_doubt = doubtful >= self._latest_answered
        self._at_the_end, self._unsent = at_the_end, self._unsent or unsent
        self._count_failure(now, sent_at, in_doubt=unsent or in_doubt)
        if unsent or not unbilled:
            return not unsent
        if self._rows_are_to_blame:
            return True
        return not (self.is_down or (in_doubt and is_last and first_failed is not None))

    def _count_failure(self, now: float, sent_at: float, *, in_doubt: bool) -> None:
        was_probe = self._end_probe(sent_at)
        self._count(accepts=0)
        if self._failing_since is None:
            self._failing_since = now
        if self._doubt_is_over(now):
            self._rows_are_to_blame = True
            self._failures = 0
            return
        if not self.is_down:
            self._failures += in_doubt
            was_probe = self.is_down
        if was_probe:
            self._probe_at = now + min(LONGEST_GAP, FIRST_PROBE * 2.0**self._probes)
            self._probes += 1

    def outage(self, now: float) -> float:
        """Returns the seconds since the endpoint began to fail everything; 0 if not down or few rows fail."""
        if not self.is_down or self._failing_since is None or self._few_are_in_doubt:
            return 0.0
        return now - self._failing_since

    @property
    def _few_are_in_doubt(self) -> bool:
        """Returns whether the failures are more likely a few bad rows at the run's end than an outage."""
        few = most_bad_rows_at_the_end(self._answered)
        return self._at_the_end and not self._unsent and len(self._in_doubt) <= few

    def _doubt_is_over(self, now: float) -> bool:
        share = min(1.0, len(self._in_doubt) / FAILURES_OF_AN_OUTAGE)
        silence = 0.0 if self._failing_since is None else now - self._failing_since
        return self._few_are_in_doubt and silence >= share * self._patience

    def _count(self, accepts: int) -> None:
        self._requests += 1 - self._requests / MEMORY
        self._accepts += accepts - self._accepts / MEMORY

    def _end_probe(self, sent_at: float) -> bool:
        was_probe = self._probe_out is not None and sent_at == self._probe_out
        if was_probe:
            self._probe_out = None
        return was_probe
