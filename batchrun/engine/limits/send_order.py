"""The ends of requests, in the order in which they were sent. The caller gives times, in seconds.

Refusals come back within a round trip, responses after the latency: if requests were counted as they end, a
server that refuses one in ten would seem to refuse everything at first. So ends are read in sending order,
and a request that has been in flight for longer than refusals take counts as accepted.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from batchrun.engine.limits.sliding_window import Bucket

ROUND_TRIPS = 3.0
"""Multiple of the latest refusals' time after which a request still in flight counts as accepted."""
LEAST_PATIENCE = 0.05
MOST_PATIENCE = 10.0
"""Bounds of that time in seconds. The upper one bounds the memory, too."""


@dataclass(slots=True)
class Sent:
    """One request. `refused` is None until its end is known or presumed; `counts` is False if it failed
    otherwise. `below` is whether it was sent at a pace below the ceiling that was found, `shows_room` whether
    its refusal's headers rule the limits out as the cause; `wait` is the wait that they name, in seconds, and
    `back` when the refusal came. `others` were in flight when it was sent."""

    at: float
    epoch: int
    below: bool
    refused: bool | None = None
    counts: bool = True
    shows_room: bool = False
    wait: float = 0.0
    back: float = 0.0
    others: int = 0


class Admission(msgspec.Struct, frozen=True, gc=False):
    """One admitted request. `paced_tokens` is its count in the pace of tokens."""

    sent_at: float
    epoch: int
    worst_tokens: int
    paced_tokens: float
    bucket: Bucket
    sent: Sent


class SendOrder:
    """Takes requests as they are sent and as they end; returns them in order, once their end is known."""

    def __init__(self) -> None:
        self._open: deque[Sent] = deque()
        self._round_trip: float | None = None

    def add(self, sent: Sent) -> None:
        self._open.append(sent)

    def refused(self, sent: Sent, now: float, wait: float) -> None:
        """Notes a refusal. The longest time of the latest refusals, which fades, sets the patience."""
        took = now - sent.at
        self._round_trip = (
            took if self._round_trip is None else max(took, 0.9 * self._round_trip + 0.1 * took)
        )
        sent.refused, sent.wait, sent.back = True, wait, now

    def settled(self, now: float) -> Iterator[Sent]:
        """Yields the next requests in order whose end is known by `now`, or presumed."""
        presumed_before = now - self._patience
        while self._open:
            first = self._open[0]
            if first.refused is None and first.at > presumed_before:
                return
            self._open.popleft()
            if first.refused is None:
                first.refused = False
            if first.counts:
                yield first

    @property
    def _patience(self) -> float:
        if self._round_trip is None:
            return MOST_PATIENCE
        return min(MOST_PATIENCE, max(LEAST_PATIENCE, ROUND_TRIPS * self._round_trip))
