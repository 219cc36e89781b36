"""Requests for a person to read before a run: those of random rows, and the longest."""

import heapq
from typing import Any

import msgspec

from batchrun.client.request import Request
from batchrun.rows.ordering import key_of, sort_key


class ShownRequests:
    """Keeps the requests of `most` random rows, and the longest one besides; with 0 none at all.

    The rows are the first ones of the seeded random order: the same on each call.
    """

    def __init__(self, most: int, seed: int) -> None:
        self.most = most
        self._key = key_of(seed)
        self._heap: list[tuple[int, int, bytes]] = []
        self._longest: tuple[int, int, bytes] | None = None

    def add(self, index: int, request: Request) -> None:
        """Adds the request of the row at `index`, from 0."""
        if not self.most:
            return
        entry = (-sort_key(index, self._key), index, request.body)
        if len(self._heap) < self.most:
            heapq.heappush(self._heap, entry)
        elif entry > self._heap[0]:
            heapq.heapreplace(self._heap, entry)
        if self._longest is None or request.input_bound > self._longest[0]:
            self._longest = (request.input_bound, index, request.body)

    def as_list(self) -> list[dict[str, Any]]:
        """Returns the random rows' requests in input order, then the longest unless it is among them.

        `row` is the row's number, from 1, `longest` whether no request is longer.
        """
        longest = -1 if self._longest is None else self._longest[1]
        rows = sorted((index, body) for _, index, body in self._heap)
        if self._longest is not None and all(index != longest for index, _ in rows):
            rows.append(self._longest[1:])
        return [
            {"row": index + 1, "longest": index == longest, "request": msgspec.json.decode(body)}
            for index, body in rows
        ]
