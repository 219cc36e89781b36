"""What the journal holds of rows: where each stands, and the sums over its requests."""

from collections.abc import Callable, Collection, Iterable, Sequence

import msgspec
from msgspec.structs import replace

from batchrun.journal import Journal, RequestHistory
from batchrun.labelling import Labelling, Reply, Standing
from batchrun.prompts import Request
from batchrun.replies import read_reply
from batchrun.wire.messages import answer_text, decode_message

LOOKED_UP_AT_ONCE = 4_096
"""Digests in one query: SQLite takes 32,766 question marks."""


class RowRecord(msgspec.Struct, frozen=True, gc=False):
    """`history` sums up the requests of the row, with the answer that stands for it; None: never asked.

    `standing` is None for rows without labels. `known` has the requests that have ended.
    """

    history: RequestHistory | None
    standing: Standing | None = None
    known: tuple[tuple[bytes, Reply], ...] = ()

    @property
    def ended(self) -> bool:
        if self.standing is not None:
            return self.standing.verdict is not None
        return self.history is not None and (self.history.answer is not None or self.history.failed)

    @property
    def answered(self) -> bool:
        """Whether it has ended with an answer, if only with one that is no valid label."""
        if self.standing is not None:
            return self.standing.verdict is not None and self.standing.verdict.answered
        return self.history is not None and self.history.answer is not None

    @property
    def valid(self) -> bool:
        if self.standing is not None:
            return self.standing.verdict is not None and self.standing.verdict.label is not None
        return self.answered

    @property
    def said(self) -> str | None:
        """The label, else the answer's text; None for a row that has neither."""
        if self.standing is not None:
            label = None if self.standing.verdict is None else self.standing.verdict.label
            return None if label is None else label.text
        return self.text

    @property
    def text(self) -> str | None:
        """The text of the answer that stands for the row; None where there is none."""
        answer = None if self.history is None else self.history.answer
        return None if answer is None else answer_text(decode_message(answer))


def row_records(
    requests: Iterable[Request], journal: Journal, labelling: Labelling | None
) -> dict[bytes, RowRecord]:
    """The records of rows, by the digest of their first request; without labels, of those once asked.

    Raises JournalError.
    """
    first = {request.digest: request for request in requests}
    histories = _histories(journal, first)
    if labelling is None:
        return {digest: RowRecord(history) for digest, history in histories.items()}
    replies = _replies(histories)
    standings = {digest: labelling.standing(request, replies.get) for digest, request in first.items()}
    looked_up = set(first)
    while unknown := {digest for row in standings.values() for digest in row.asked} - looked_up:
        looked_up |= unknown
        found = _histories(journal, unknown)
        histories |= found
        replies |= _replies(found)
        for digest, standing in standings.items():
            if not found.keys().isdisjoint(standing.asked):
                standings[digest] = labelling.standing(first[digest], replies.get)
    return {digest: _record(standing, histories, replies) for digest, standing in standings.items()}


def _histories(journal: Journal, digests: Collection[bytes]) -> dict[bytes, RequestHistory]:
    wanted = tuple(digests)
    found: dict[bytes, RequestHistory] = {}
    for start in range(0, len(wanted), LOOKED_UP_AT_ONCE):
        found |= journal.histories(wanted[start : start + LOOKED_UP_AT_ONCE])
    return found


def _replies(histories: dict[bytes, RequestHistory]) -> dict[bytes, Reply]:
    replies = {}
    for digest, history in histories.items():
        if history.answer is not None:
            replies[digest] = read_reply(history.answer, history.run)
        elif history.failed:
            replies[digest] = Reply(None, run=history.run)
    return replies


def _record(
    standing: Standing, histories: dict[bytes, RequestHistory], replies: dict[bytes, Reply]
) -> RowRecord:
    parts = [histories[digest] for digest in standing.asked if digest in histories]
    known = tuple((digest, replies[digest]) for digest in standing.asked if digest in replies)
    if not parts:
        return RowRecord(None, standing, known)
    last = parts[-1] if standing.verdict is None else histories[standing.verdict.last]
    return RowRecord(_summed(parts, last), standing, known)


def _summed(parts: Sequence[RequestHistory], last: RequestHistory) -> RequestHistory:
    """The requests of one row as if they were one: the answer of `last`, the cost of all."""
    if len(parts) == 1:
        return last

    def total(part: Callable[[RequestHistory], int | None]) -> int | None:
        known = [value for value in map(part, parts) if value is not None]
        return sum(known) if known else None

    return replace(
        last,
        attempts=sum(part.attempts for part in parts),
        input_tokens=total(lambda part: part.input_tokens),
        output_tokens=total(lambda part: part.output_tokens),
        credits=total(lambda part: part.credits),
        nano_usd=None if any(_unpriced(part) for part in parts) else total(lambda part: part.nano_usd),
        uncertain_nano_usd=sum(part.uncertain_nano_usd for part in parts),
    )


def _unpriced(part: RequestHistory) -> bool:
    return part.answer is not None and part.nano_usd is None
