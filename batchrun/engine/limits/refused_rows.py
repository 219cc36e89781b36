"""Decides whether a refusal (403, 404, 405 and the like) is a row's fault or the run's.

A firewall refuses one prompt, or one row names a model that is missing; or else the key has no permission,
or the address is wrong. Only other rows can tell: a refused row is in doubt, and is sent once more after new
rows.

- The row is to blame once a request sent later than its first refusal has a response.
- The run stops once `MOST_IN_DOUBT` rows are in doubt at a time: no request has got through since the first
  of
  them. If none ever has, the run stops once `MOST_UNANSWERED` are in doubt. These rows stay pending.
- The last rows have none after them. They are to blame if others had responses before, and they are not more
  than the circuit breaker takes for bad rows at the end; else the run stops.

A refusal is not billed and uses up no attempt. Times are seconds of one monotonic clock.
"""

from batchrun.engine.limits.circuit_breaker import FAILURES_OF_AN_OUTAGE, most_bad_rows_at_the_end
from batchrun.exchange import FailureAction

MOST_IN_DOUBT = FAILURES_OF_AN_OUTAGE
"""The same evidence as for an outage: ten consecutive rows are hardly ever all bad."""
MOST_UNANSWERED = 3
"""Two bad rows may well come first; with a third, a wrong key or address is the likely cause."""


class RefusedRows:
    """The rows that were refused and have not ended. `may_repeat`: a row may be sent a second time."""

    def __init__(self, *, may_repeat: bool) -> None:
        self._may_repeat = may_repeat
        self._first_refused: dict[bytes, float] = {}
        self._in_doubt: list[float] = []
        self._answered = 0
        self._latest_answered = float("-inf")

    @property
    def in_doubt(self) -> bool:
        """Returns whether some row is in doubt: no request sent after its first refusal has a response."""
        return bool(self._in_doubt)

    def answered(self, sent_at: float) -> None:
        """Notes a response to a request sent at `sent_at`."""
        self._answered += 1
        if sent_at > self._latest_answered:
            self._latest_answered = sent_at
        if self._in_doubt:
            self._in_doubt = [first for first in self._in_doubt if first >= self._latest_answered]

    def refused(self, digest: bytes, sent_at: float, *, at_the_end: bool) -> FailureAction:
        """Returns the action for a refusal of the request `digest`, sent at `sent_at`.

        FAIL_ROW, STOP_RUN, or REFUSE while that is not known: the row is sent again. `at_the_end`: no new row
        is left.
        """
        first = self._first_refused.get(digest)
        is_first = first is None
        if first is None:
            first = self._first_refused[digest] = sent_at
            if first >= self._latest_answered:
                self._in_doubt.append(first)
        most = MOST_IN_DOUBT if self._answered else MOST_UNANSWERED
        if len(self._in_doubt) >= most:
            return FailureAction.STOP_RUN
        if is_first and self._may_repeat:
            return FailureAction.REFUSE
        return self._verdict(digest, first, at_the_end)

    def _verdict(self, digest: bytes, first: float, at_the_end: bool) -> FailureAction:
        in_doubt = first >= self._latest_answered
        if in_doubt and self._may_repeat and not at_the_end:
            return FailureAction.REFUSE
        few = most_bad_rows_at_the_end(self._answered)
        if in_doubt and (not self._answered or (at_the_end and len(self._in_doubt) > few)):
            return FailureAction.STOP_RUN
        del self._first_refused[digest]
        return FailureAction.FAIL_ROW
