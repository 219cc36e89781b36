"""The outage brake: the more of the latest attempts fail transiently, the fewer go out. It fails no row.

Client-side throttling of the book "Site Reliability Engineering" (chapter "Handling Overload"): a request is
held back with probability p = max(0, (requests - K accepts) / (requests + 1)). Here nothing is drawn: to hold
back p / (1 - p) requests for each that goes is to leave a gap of p / (1 - p) units before the next. Requests
and accepts are counted over the latest attempts and not over minutes: a fast run sees an outage in time, too.

When enough attempts fail that their rows can't be blamed for, and none succeeds in between, the endpoint is
down: one probe at a time goes out, until one succeeds. Rows that fail again and again are no sign of an
outage, unless their requests can't even be sent.

Times are seconds of one monotonic clock, given by the caller.
"""

from batchrun.exchange import Billed, Failure, Remedy

K = 2.0
MEMORY = 32
"""Attempts that the counts rest on; older ones fade."""
UNIT = 0.05
"""Seconds of the gap at p = 1/2."""
FAILURES_OF_AN_OUTAGE = 10
"""Failures that no row can be blamed for, with no success in between, before the endpoint counts as down."""
FIRST_PROBE = 0.5
"""Seconds until the first probe; each further wait is twice as long."""
LONGEST_GAP = 4.0


class Brake:
    """Counts how attempts end. 429s are the limiter's business: they are neither success nor failure here."""

    def __init__(self) -> None:
        self._requests = 0.0
        self._accepts = 0.0
        self._blameless = 0
        self._failing_since: float | None = None
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
        return self._blameless >= FAILURES_OF_AN_OUTAGE

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
        self._blameless = self._probes = 0
        self._failing_since = None

    def failed(self, now: float, sent_at: float, failure: Failure, *, failed_before: bool) -> bool:
        """Counts a failure; True if it uses up one of its row's attempts.

        A 429 doesn't, nor does a request that could not be sent. While the endpoint is down for everybody,
        nor does one that was certainly not billed. One that may have been billed always does: else a row
        could cost any number of worst cases. `failed_before`: the row has used up attempts already.
        """
        if failure.remedy is Remedy.SLOW_DOWN:
            self._end_probe(sent_at)
            return False
        if failure.remedy is not Remedy.RETRY:
            self.succeeded(sent_at)
            return True
        unbilled = failure.billed is Billed.NO
        unsent = unbilled and failure.status is None
        self._count_failure(now, sent_at, blameless=unsent or not failed_before)
        return not (unsent or (unbilled and self.is_down))

    def _count_failure(self, now: float, sent_at: float, *, blameless: bool) -> None:
        was_probe = self._end_probe(sent_at)
        self._count(accepts=0)
        if self._failing_since is None:
            self._failing_since = now
        if not self.is_down:
            self._blameless += blameless
            was_probe = self.is_down
        if was_probe:
            self._probe_at = now + min(LONGEST_GAP, FIRST_PROBE * 2.0**self._probes)
            self._probes += 1

    def outage(self, now: float) -> float:
        """Seconds for which the endpoint has failed everything, 0 while it isn't down."""
        return now - self._failing_since if self.is_down and self._failing_since is not None else 0.0

    def _count(self, accepts: int) -> None:
        self._requests += 1 - self._requests / MEMORY
        self._accepts += accepts - self._accepts / MEMORY

    def _end_probe(self, sent_at: float) -> bool:
        was_probe = self._probe_out is not None and sent_at == self._probe_out
        if was_probe:
            self._probe_out = None
        return was_probe
