"""The search for a rate limit that nobody has named: a doubling start, then CUBIC on the rate.

CUBIC (RFC 9438) as botocore's adaptive retry mode applies it to requests per second. No clock: times are given.
"""

from batchrun.gcra import Gcra

FIRST_RATE = 100.0
"""Requests a second."""
TICK = 0.2
"""Seconds between two looks at the rate."""
GROWTH = 2.0
"""The rate grows to this multiple of what was really sent, at most."""
BETA = 0.9
PLATEAU = 20.0
TOLERANCE = 0.02
"""Seconds that a late wake-up may catch up."""
LEAST_RATE = 0.2
"""Requests a second: below it a pause does better."""
MEASURED_OVER = 2.0
"""Seconds over which the rate of sending is averaged."""
EPS=1.0
MINREQ=30

class RateSearch:
    def __init__(self, rate: float | None) -> None:
        self.rate = rate
        self.epoch = 0
        self._gcra = Gcra(1 / rate if rate else 0.0, TOLERANCE)
        self._ceiling = 0.0
        self._flat_for = 0.0
        self._cut_at = None
        self._tick_at = None
        self._sent = 0
        self._measured = 0.0
        self._troubled = False

    def delay(self, now):
        if self.rate is None: return 0.0
        self._look(now)
        return self._gcra.delay(now)

    def admit(self, now):
        if self._tick_at is None: self._tick_at=now
        self._sent += 1
        self._look(now)
        if self.rate is not None:
            self._gcra.admit(now, 1)

    def troubled(self): self._troubled = True

    def cut(self, now, ceiling, resume, evidence):
        """ceiling: what the server seems to accept, per second"""
        self.epoch += 1
        self._ceiling = max(LEAST_RATE, ceiling)
        self._beta = .85 if evidence<10 else .95
        self._flat_for = max(min(PLATEAU,evidence), MINREQ/self._ceiling)
        self._cut_at = resume
        self._set(max(LEAST_RATE, self._beta * self._ceiling))

    def _set(self, rate):
        self.rate = rate
        self._gcra.interval = 1 / rate

    def _look(self, now):
        if self._tick_at is None: return
        elapsed = now - self._tick_at
        if elapsed < TICK: return
        sent = self._sent/elapsed
        w = min(1.0, elapsed/MEASURED_OVER)
        self._measured += w*(sent - self._measured)
        self._tick_at = now; self._sent = 0
        if self.rate is None: return
        if self._troubled:
            self._troubled=False
            if self._cut_at is not None: self._cut_at += elapsed
            return
        if self._cut_at is None:
            self._set(max(self.rate, GROWTH*sent)); return
        t = now - self._cut_at
        if t<=0: return
        target = self._ceiling*(1+(1-self._beta)*((t-self._flat_for)/self._flat_for)**3)
        target = min(target, GROWTH*max(self._measured, sent)+EPS)
        if target > self.rate: self._set(target)
