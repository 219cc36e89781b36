"""The journal's records of rows: the state of each, and the sums over its requests."""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial

import msgspec
from msgspec.structs import replace

from batchrun.client.builder import InvalidRow
from batchrun.client.messages.response import read_completion
from batchrun.client.request import Request
from batchrun.exchange import NO_CACHE, Completion
from batchrun.journal import Journal, RequestHistory
from batchrun.rows.flaws import is_truncated
from batchrun.rows.labelling import Labelling, Labels, RowState, output_cap
from batchrun.rows.lookup import look_up
from batchrun.rows.result import PENDING_ROW, UNSENDABLE_ROW, RowResult, row_result

Find = Callable[[Collection[bytes]], dict[bytes, RequestHistory]]
"""Returns the history of each request with one of the digests; unsent ones are left out."""


class RowHistory(msgspec.Struct, frozen=True, gc=False):
    """The record of one row. `history` sums up the requests of the row; None: none was sent.

    `state` is None for rows without labels that their first request decided; for others, `known` has the
    ended requests.
    """

    history: RequestHistory | None
    result: RowResult = PENDING_ROW
    state: RowState | None = None
    known: tuple[tuple[bytes, Completion], ...] = ()


def result_of(record: RowHistory | InvalidRow | None) -> RowResult:
    """Returns a row's result, also for one that can't be sent. `record` is None for a row never sent."""
    if isinstance(record, InvalidRow):
        return UNSENDABLE_ROW
    return PENDING_ROW if record is None else record.result


def first_attempt(record: RowHistory | None) -> int:
    """Returns the number of the first attempt of a row's requests; 0 for a row never sent."""
    return 0 if record is None or record.history is None else record.history.first


def row_histories(
    requests: Sequence[Request], journal: Journal, labelling: Labelling
) -> dict[bytes, RowHistory]:
    """Returns the records of rows, by their first request's digest. Raises JournalError."""
    digests = [request.digest for request in requests]
    return row_histories_by_digest(digests, lambda: requests, journal, labelling)


def row_histories_by_digest(
    digests: Iterable[bytes],
    requests: Callable[[], Iterable[Request]],
    journal: Journal,
    labelling: Labelling,
    find_first: Find | None = None,
) -> dict[bytes, RowHistory]:
    """Returns the records of rows; `requests` makes their first requests if one of them is needed.

    `find_first` finds these in the journal in another way than by their digests alone.
    """
    labelling = with_caps_seen(labelling, journal)
    wanted = set(digests)
    find = partial(look_up, journal)
    histories, caps = (find_first or find)(wanted), journal.max_tokens_of_run()
    completions = _completions(histories, caps)
    decided = _decided(histories, completions, labelling)
    if len(decided) == len(wanted):
        return decided
    # Requests that differ in max_tokens alone have one digest: the highest says where the row stands.
    first = {request.digest: request for request in sorted(requests(), key=output_cap)}
    first = {digest: request for digest, request in first.items() if digest not in decided}
    labels: Labels = {}
    states = {digest: labelling.state(request, completions.get, labels) for digest, request in first.items()}
    looked_up = set(first)
    while unknown := {digest for row in states.values() for digest in row.asked} - looked_up:
        looked_up |= unknown
        found = find(unknown)
        histories |= found
        completions |= _completions(found, caps)
        for digest, state in states.items():
            if not found.keys().isdisjoint(state.asked):
                states[digest] = labelling.state(first[digest], completions.get, labels)
    return decided | {digest: _record(state, histories, completions) for digest, state in states.items()}


def _decided(
    histories: Mapping[bytes, RequestHistory], completions: Mapping[bytes, Completion], labelling: Labelling
) -> dict[bytes, RowHistory]:
    """Returns the records of rows that their first response has ended, whatever their request was."""
    if not labelling.labelled:
        return {
            digest: RowHistory(histories[digest], row_result(completion))
            for digest, completion in completions.items()
            if labelling.suffices(completion)
        }
    states = {digest: labelling.state_of_label(digest, known) for digest, known in completions.items()}
    return {
        digest: _record(state, histories, completions)
        for digest, state in states.items()
        if state is not None
    }


def with_caps_seen(labelling: Labelling, journal: Journal) -> Labelling:
    """Returns `labelling` with the max_tokens of the journal's runs, so that their responses are found."""
    return dataclasses.replace(labelling, seen=journal.max_tokens_of_runs())


def _completions(
    histories: dict[bytes, RequestHistory], caps: Mapping[int, int | None]
) -> dict[bytes, Completion]:
    completions = {}
    for digest, history in histories.items():
        if history.answer is not None:
            completion = read_completion(history.answer, history.run)
            if is_truncated(completion):  # if a column had the cap, it was at least the output's length
                cap = caps.get(history.run) or history.output_tokens
                completion = replace(completion, cap=cap)
            history.cache = completion.cache
            for body in history.earlier_answers:
                history.cache = history.cache.plus(read_completion(body, history.run).cache)
            completions[digest] = completion
        elif history.failed:
            completions[digest] = Completion(None, run=history.run)
    return completions


def _record(
    state: RowState, histories: Mapping[bytes, RequestHistory], completions: Mapping[bytes, Completion]
) -> RowHistory:
    parts = [histories[digest] for digest in state.asked if digest in histories]
    known = tuple((digest, completions[digest]) for digest in state.asked if digest in completions)
    if not parts:
        return RowHistory(None, PENDING_ROW, state, known)
    if state.label_result is None:
        return RowHistory(_summed(parts, parts[-1]), PENDING_ROW, state, known)
    last = state.label_result.last
    return RowHistory(_summed(parts, histories[last]), row_result(completions.get(last), state), state, known)


def _summed(parts: Sequence[RequestHistory], last: RequestHistory) -> RequestHistory:
    """Returns the requests of one row as one: the response of `last`, the cost of all."""
    if len(parts) == 1:
        return last

    def total(part: Callable[[RequestHistory], int | None]) -> int | None:
        known = [value for value in map(part, parts) if value is not None]
        return sum(known) if known else None

    cache = NO_CACHE
    for part in parts:
        cache = cache.plus(part.cache)
    return replace(
        last,
        first=min(part.first for part in parts),
        cache=cache,
        attempts=sum(part.attempts for part in parts),
        input_tokens=total(lambda part: part.input_tokens),
        output_tokens=total(lambda part: part.output_tokens),
        credits=total(lambda part: part.credits),
        nano_usd=None if any(_unpriced(part) for part in parts) else total(lambda part: part.nano_usd),
        uncertain_nano_usd=sum(part.uncertain_nano_usd for part in parts),
    )


def _unpriced(part: RequestHistory) -> bool:
    return part.answer is not None and part.nano_usd is None
