"""The outage brake: the more of the latest attempts fail transiently, the fewer go out.

Client-side throttling of the book "Site Reliability Engineering" (chapter "Handling Overload"): a request is
held back with probability p = max(0, (requests - K accepts) / (requests + 1)). Here nothing is drawn: to hold
back p / (1 - p) requests for each that goes is to leave a gap of p / (1 - p) units before the next. Requests
and accepts are counted over the latest attempts and not over minutes: a fast run sees an outage in time, too.

Whether the row or the endpoint is to blame for a failure, only other rows can tell:

- The row is, once a request that was sent later than the first of its failed attempts has been answered:
  others get through where it doesn't. Until then the row is in doubt.
- The endpoint is, where ten failures of rows in doubt have come in with no success in between. Then it is
  down: one probe at a time goes out until one succeeds, and no failure uses up an attempt.
- While neither is known, a row that has failed before keeps its last attempt: it is asked again, more and
  more slowly, and no row fails for good because of an outage that only few rows have met.

The last rows of a run have no others after them, so that doubt could last for ever. A few bad rows at the
very end and an outage at the very end look alike; what tells them apart is what is likely. An outage begins
at any time, so it falls into the last twentieth of a run once in twenty times. Hence the rows in doubt are to
blame if others have been answered before, and they are no more than one, one more for each `FEW` answered,
and `FEW`. But only after a tenth of the patience for each of them: most outages are over by then. In all
other cases the run ends when patience does, and the rows keep their attempts: nothing has been answered
yet, more rows fail than that, or requests can't even be sent.

A request that may have been billed uses up an attempt in any case: else a row could cost any number of worst
cases. A 429 uses up none, nor does a request that could not be sent.

Times are seconds of one monotonic clock, given by the caller.
"""

from batchrun.exchange import Billed, Failure, Remedy

K = 2.0
MEMORY = 32
"""Attempts that the counts rest on; older ones fade."""
UNIT = 0.05
"""Seconds of the gap at p = 1/2."""
FAILURES_OF_AN_OUTAGE = 10
"""Failures in doubt, with no success in between, from which on the endpoint counts as down."""
FIRST_PROBE = 0.5
"""Seconds until the first probe; each further wait is twice as long."""
LONGEST_GAP = 4.0
FEW = 20


class Brake:
    """Counts how attempts end. `patience`: seconds for which an endpoint may be down before the run ends."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
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
    def is_failing(self) -> bool:
        """Whether nothing has succeeded since the last failure."""
        return self._failing_since is not None

    @property
    def is_down(self) -> bool:
        """Whether the endpoint fails for everybody, so that one probe at a time goes out."""
        return self._failures >= FAILURES_OF_AN_OUTAGE

    def delay(self, now: float) -> float:
        """Seconds until the next request may go; 0 or less: now; infinite while a probe is out."""
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
        """A request that went at `sent_at` was answered, or refused for what it contains."""
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
        """Counts a failure; True if it uses up one of its row's attempts.

        `first_failed`: when the first attempt of this row that failed was sent, None if that is this one.
        `is_last`: the row has one attempt left. `at_the_end`: no row is left that hasn't been asked yet.
        """
        if failure.remedy is Remedy.SLOW_DOWN:
            self._end_probe(sent_at)
            return False
        if failure.remedy is not Remedy.RETRY:
            self.succeeded(sent_at)
            return True
        unbilled = failure.billed is Billed.NO
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
        """Seconds for which the endpoint has failed everything; 0 while it is not down or few rows fail."""
        if not self.is_down or self._failing_since is None or self._few_are_in_doubt:
            return 0.0
        return now - self._failing_since

    @property
    def _few_are_in_doubt(self) -> bool:
        """Whether what fails is more likely a few bad rows at the end of the run than an outage."""
        most = min(FEW, 1 + self._answered // FEW) if self._answered else 0
        return self._at_the_end and not self._unsent and len(self._in_doubt) <= most

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
