"""The rows in progress in a run: their next requests, and their ends."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from batchrun.client.request import Request
from batchrun.exchange import Completion
from batchrun.rows.labelling import Labelling, Labels, output_cap
from batchrun.rows.result import RowResult, row_result


class Row(msgspec.Struct, frozen=True, gc=False):
    """A row to send: its index in the input, its request, and its requests that have already ended."""

    index: int
    request: Request
    known: tuple[tuple[bytes, Completion], ...] = ()


@dataclass(slots=True)
class _OpenRow:
    index: int
    request: Request
    known: dict[bytes, Completion]
    labels: Labels = field(default_factory=dict)
    begun: set[bytes] = field(default_factory=set)


Next = Sequence[Request] | RowResult
"""The result of an event: requests to send (none: others of the row are in flight), or the row's end."""


MOST_CUT_ROWS = 4_096
"""Rows without a label that are remembered, since a later one may differ from them in max_tokens alone."""


class ActiveRows:
    """Rows whose requests are in flight. Without labels nearly every row is one request.

    Where rows have their own max_tokens, the latest rows that ended without a label are remembered: what the
    journal was asked about a row may be older than the end of another with the same request.
    """

    def __init__(self, labelling: Labelling) -> None:
        self._labelling = labelling
        self._open: dict[bytes, _OpenRow] = {}
        self._cut: dict[bytes, dict[bytes, Completion]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, request: Request) -> bool:
        return request.row in self._open

    def begin(self, row: Row) -> Next | None:
        """Begins a row; returns None if another row with the same request is in progress.

        Of their values of max_tokens, the highest counts: what is cut at another is sent again with it.
        """
        if (same := self._open.get(row.request.digest)) is not None:
            same.request = max(same.request, row.request, key=output_cap)
            return None
        known = dict(row.known)
        if self._cut and not known:
            known = self._known_of_cut(row.request)
        open_row = _OpenRow(row.index, row.request, known)
        self._open[row.request.digest] = open_row
        if open_row.known or self._labelling.votes > 1:
            return self._next(open_row)
        open_row.begun.add(row.request.digest)
        return [row.request]

    def take(self, request: Request, completion: Completion) -> Next:
        """Notes how a request ended. If its row was dropped meanwhile, nothing follows."""
        digest = request.follows or request.digest
        open_row = self._open.get(digest)
        if open_row is None:
            return []
        if request.follows is None and self._labelling.suffices(completion):
            del self._open[digest]
            return row_result(completion)
        open_row.known[request.digest] = completion
        return self._next(open_row)

    def index(self, request: Request) -> int | None:
        """Returns the input index of a request's row; None if that is not open."""
        open_row = self._open.get(request.row)
        return None if open_row is None else open_row.index

    def drop(self, request: Request) -> None:
        """Drops the row of a request."""
        self._open.pop(request.row, None)

    def _next(self, row: _OpenRow) -> Next:
        state = self._labelling.state(row.request, row.known.get, row.labels)
        if state.label_result is not None:
            del self._open[row.request.digest]
            if state.label_result.label is None and self._labelling.cap == math.inf:
                self._remember(row)
            return row_result(row.known[state.label_result.last], state)
        requests = [request for request in state.open if request.digest not in row.begun]
        row.begun.update(request.digest for request in requests)
        return requests

    def _remember(self, row: _OpenRow) -> None:
        self._cut[row.request.digest] = row.known
        if len(self._cut) > MOST_CUT_ROWS:
            del self._cut[next(iter(self._cut))]

    def _known_of_cut(self, request: Request) -> dict[bytes, Completion]:
        """Returns the responses to a row that ended without a label, if `request` may get further."""
        known = self._cut.get(request.digest, {})
        open_requests = self._labelling.state(request, known.get).open if known else ()
        return dict(known) if open_requests else {}
