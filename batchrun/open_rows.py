"""The rows that a run is asking for: which requests they take next, and when they end."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from batchrun.labelling import Labelling, Reply, Verdict
from batchrun.prompts import Request


class Row(msgspec.Struct, frozen=True, gc=False):
    """A row to ask for: its index in the input, its request, and how requests of it have ended already."""

    index: int
    request: Request
    known: tuple[tuple[bytes, Reply], ...] = ()


@dataclass(slots=True)
class _OpenRow:
    request: Request
    known: dict[bytes, Reply]
    begun: set[bytes] = field(default_factory=set)


class Ended(msgspec.Struct, frozen=True, gc=False):
    """A row has come to its end. `text` is the answer that stands for it, None where it has failed; `verdict`
    is None for a row without labels."""

    request: Request
    text: str | None
    verdict: Verdict | None = None

    @property
    def said(self) -> str | None:
        """The label, else the answer's text; None for a row that has neither."""
        if self.verdict is None:
            return self.text
        return None if self.verdict.label is None else self.verdict.label.text

    @property
    def invalid(self) -> bool:
        return self.verdict is not None and self.verdict.answered and self.verdict.label is None


Next = Sequence[Request] | Ended
"""What an event leads to: requests to ask (none: others of the row are on their way), or the row's end."""


class OpenRows:
    """Rows whose requests are on their way. Without labels a row is one request."""

    def __init__(self, labelling: Labelling | None) -> None:
        self._labelling = labelling
        self._open: dict[bytes, _OpenRow] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, request: Request) -> bool:
        return request.row in self._open

    def begin(self, row: Row) -> Next:
        open_row = _OpenRow(row.request, dict(row.known))
        self._open[row.request.digest] = open_row
        if self._labelling is not None:
            return self._next(open_row, self._labelling)
        return self.take(row.request, row.known[0][1]) if row.known else [row.request]

    def take(self, request: Request, reply: Reply) -> Next:
        """Notes how a request ended. One whose row was dropped meanwhile leads to nothing."""
        open_row = self._open.get(request.row)
        if open_row is None:
            return []
        if self._labelling is None:
            del self._open[request.row]
            return Ended(request, reply.text)
        open_row.known[request.digest] = reply
        return self._next(open_row, self._labelling)

    def drop(self, request: Request) -> None:
        """Forgets the row of a request."""
        self._open.pop(request.row, None)

    def _next(self, row: _OpenRow, labelling: Labelling) -> Next:
        standing = labelling.standing(row.request, row.known.get)
        if standing.verdict is not None:
            del self._open[row.request.digest]
            last = row.known[standing.verdict.last]
            return Ended(row.request, last.text, standing.verdict)
        requests = [request for request in standing.open if request.digest not in row.begun]
        row.begun.update(request.digest for request in requests)
        return requests
