"""Sends the first of the requests that share a marked beginning ahead: the others find it in the cache.

Otherwise all requests in flight at first would write the same beginning to the cache, and pay for it.
"""

from collections import deque

from batchrun.engine.accounting import ActiveRequest

MOST_ASIDE = 256
"""Most requests that wait for others. Beyond these, the next one that has to wait blocks all behind it."""

MOST_KNOWN = 10_000
"""Beginnings remembered as cached: for a forgotten one, requests only wait again."""


class Forerunners:
    """For each beginning there are three cases.

    - Unknown: the next request with it goes ahead.
    - Ahead: a request with it is prepared or in flight. Others are deferred until its response begins, or it
      has failed.
    - Known: the response to a request with it has begun. None waits.
    """

    def __init__(self) -> None:
        self._ahead: dict[bytes, ActiveRequest] = {}
        self._known: dict[bytes, None] = {}
        self._aside: dict[bytes, deque[ActiveRequest]] = {}
        self._number_aside = 0
        self._ready: deque[ActiveRequest] = deque()

    def has_to_wait(self, active: ActiveRequest) -> bool:
        """Returns whether another request goes ahead of this one."""
        return active.request.beginning in self._ahead

    def put_aside(self, active: ActiveRequest) -> bool:
        """Keeps a request that has to wait, until `next` returns it; returns False without room."""
        beginning = active.request.beginning
        if beginning is None or self._number_aside >= MOST_ASIDE:
            return False
        self._aside.setdefault(beginning, deque()).append(active)
        self._number_aside += 1
        return True

    def next(self) -> ActiveRequest | None:
        """Returns the next deferred request that need no longer wait."""
        return self._ready.popleft() if self._ready else None

    @property
    def has_next(self) -> bool:
        return bool(self._ready)

    def let_its_row_begin(self, active: ActiveRequest) -> bool:
        """Puts a request behind the one that begins its row, if `next` has yet to return that."""
        row = active.request.row
        if active.begins or not any(each.begins and each.request.row == row for each in self._ready):
            return False
        self._ready.append(active)
        return True

    def drop(self, row: bytes) -> None:
        """Removes the deferred requests of a row, by its first request's digest: it is not begun any more."""
        self._ready = _without(self._ready, row)
        self._aside = {beginning: _without(aside, row) for beginning, aside in self._aside.items()}
        self._number_aside = sum(map(len, self._aside.values()))

    def prepared(self, active: ActiveRequest) -> None:
        """Notes that a request will be sent: it goes ahead if none has."""
        beginning = active.request.beginning
        if beginning is not None and beginning not in self._known:
            self._ahead.setdefault(beginning, active)

    def ended(self, active: ActiveRequest, *, answered: bool) -> None:
        """Notes that a prepared request has ended. If it failed, the next one goes ahead."""
        if answered:
            self.cached(active)
        else:
            self._free(active)

    def cached(self, active: ActiveRequest) -> None:
        """Notes that the server has cached a request's beginning: at the latest, its response begins."""
        if (beginning := active.request.beginning) is not None:
            self._known[beginning] = None
            if len(self._known) > MOST_KNOWN:
                del self._known[next(iter(self._known))]
        self._free(active)

    def _free(self, active: ActiveRequest) -> None:
        beginning = active.request.beginning
        if beginning is not None and self._ahead.get(beginning) is active:
            del self._ahead[beginning]
            freed = self._aside.pop(beginning, deque())
            self._number_aside -= len(freed)
            self._ready.extend(freed)


def _without(requests: deque[ActiveRequest], row: bytes) -> deque[ActiveRequest]:
    return deque(each for each in requests if each.request.row != row)
