"""Admission control: combines limiter, circuit breaker and the verdict on refused rows."""

from batchrun.engine.limits.circuit_breaker import CircuitBreaker
from batchrun.engine.limits.limiter import Limiter
from batchrun.engine.limits.refused_rows import RefusedRows
from batchrun.engine.limits.send_order import Admission
from batchrun.exchange import Hold, RateLimits


class AdmissionControl:
    """Holds requests back. Times are seconds of one monotonic clock, given by the caller.

    `max_outage`: seconds for which an endpoint may fail everything before the run ends. `may_repeat`: a
    refused row may be sent a second time.
    """

    def __init__(self, limiter: Limiter, max_outage: float, *, may_repeat: bool) -> None:
        self.limiter = limiter
        self.breaker = CircuitBreaker(max_outage)
        self.refused = RefusedRows(may_repeat=may_repeat)

    def in_doubt(self) -> bool:
        """Returns whether only other rows can tell if the endpoint is at fault, or the rows that failed."""
        return self.breaker.is_failing or self.refused.in_doubt

    def delay(self, now: float, tokens: int) -> tuple[float, Hold | None]:
        """Returns the seconds that the next request has to wait, and the reason; at most 0 and None: no wait.

        `tokens` is its worst case.
        """
        by_limiter, by_breaker = self.limiter.delay(now, tokens), self.breaker.delay(now)
        if by_limiter <= 0 and by_breaker <= 0:
            return 0.0, None
        return (by_limiter, "rate limit") if by_limiter >= by_breaker else (by_breaker, "endpoint")

    def admit(self, now: float, tokens: int) -> Admission:
        """Counts a request that is sent now."""
        self.breaker.sent(now)
        return self.limiter.admit(now, tokens)

    def answered(self, admission: Admission, now: float, tokens: int, limits: RateLimits | None) -> None:
        """Counts a response that used `tokens` and stated `limits`."""
        self.limiter.answered(admission, now, tokens, limits)
        self.breaker.succeeded(admission.sent_at)
        self.refused.answered(admission.sent_at)
