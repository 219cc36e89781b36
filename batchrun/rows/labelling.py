"""A row of several requests: the requests that it still needs, and the label from its responses.

For a row without labels, the label is the text of a whole answer. A row takes `votes` samples. A sample is a
request, plus repairs as long as its answer is not a valid label. All of them derive from the row's request
and the responses so far, so that the journal alone determines the state of a row: for the engine, a resumed
run, the output, the evaluation.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import msgspec

from batchrun.client.messages.content import FRAMING_TOKENS_PER_MESSAGE
from batchrun.client.messages.follow_up import (
    most_bytes_of_repair,
    repair_body,
    with_max_tokens,
    without_max_tokens,
)
from batchrun.client.request import Request, derived_digest
from batchrun.exchange import Completion
from batchrun.labels.label import InvalidLabel, Label
from batchrun.labels.parser import LabelParser
from batchrun.labels.property_votes import join_majority, values_of
from batchrun.labels.votes import Ask, Decided, decide, decide_each
from batchrun.rows.flaws import flaw_of, is_truncated

Known = Callable[[bytes], Completion | None]
"""Returns the completion of the request with a digest; None until it has ended."""

Labels = dict[bytes, Label | InvalidLabel]
"""Labels read from responses, by their requests' digests."""


_FLAWS = {
    "truncated": "the answer was cut at max_tokens",
    "refusal": "the model refused to answer",
    "empty": "the answer has no text",
}
_TEXT = LabelParser(lambda text, truncated: Label(text, text), "")


@dataclass(frozen=True, slots=True)
class Vote:
    """One vote.

    `last` is the digest of the request whose response decides it, `problem` says why it has no label,
    `answered` is False if its first request failed permanently.
    """

    label: Label | None
    last: bytes
    answered: bool
    problem: str | None = None

    @property
    def text(self) -> str | None:
        return None if self.label is None else self.label.text


@dataclass(frozen=True, slots=True)
class LabelResult:
    """A row's result. `label` is None if the row is invalid, or has failed (`answered` is False).

    `last` is the digest of the request whose response represents the row. `agreement` is the share of samples
    with the label, `labels` has each sample's label, `saved` counts votes that need not be sent. Where
    properties are voted on, `agreements` has the share of each, and `agreement` the least of them.
    """

    label: Label | None
    problem: str | None
    answered: bool
    last: bytes
    labels: tuple[str | None, ...]
    agreement: float | None
    saved: int
    agreements: tuple[float | None, ...] = ()


@dataclass(frozen=True, slots=True)
class RowState:
    """The state of a row: decided, or with requests that have not ended yet.

    `asked` has the digests of all requests that it has taken, or may have.
    """

    label_result: LabelResult | None
    open: tuple[Request, ...]
    asked: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Labelling:
    """How rows get their labels.

    Votes compare whole labels, or each of the properties `vote_on`.
    `asks_again_before` is the number of a run: samples that ended without a label before it are sent again.
    `accept` is None for rows with labels; else any whole answer is a label, as are answers with these flaws.
    `raises` are the further values of max_tokens with which a row with a cut answer is sent again, `seen` the
    values of all runs, and `cap` is the job's own: infinite if rows have their own.
    """

    parser: LabelParser
    repair: int = 0
    votes: int = 1
    asks_again_before: int = 0
    accept: frozenset[str] | None = None
    raises: tuple[int, ...] = ()
    seen: tuple[int, ...] = ()
    cap: float = 0
    vote_on: tuple[str, ...] = ()

    @property
    def labelled(self) -> bool:
        return self.accept is None

    def suffices(self, completion: Completion) -> bool:
        """Returns whether this first response ends a row without labels, as for nearly all rows."""
        return (
            self.accept is not None
            and completion.text is not None
            and ((flaw := flaw_of(completion)) is None or flaw in self.accept)
        )

    @property
    def follows_up(self) -> bool:
        """Returns whether a row may take more than one request."""
        again = self.repair > 0 or self.votes > 1 or self.asks_again_before > 0
        return again or bool(self.raises) or any(seen < self.cap for seen in self.seen)

    @property
    def most_requests(self) -> int:
        """Returns the most requests that a row can take, unless it is sent again."""
        return self.votes * (1 + self.repair + len(self.raises))

    @property
    def first_requests(self) -> int:
        """Returns the number of requests that every row takes."""
        step = decide(self.votes, [])
        return 0 if isinstance(step, Decided) else step.more

    def most_tokens_of_repair(self, output_bound: int) -> int:
        """Returns an upper bound on the input tokens that a repair adds to the request that it follows, whose
        max_tokens is `output_bound`."""
        return most_bytes_of_repair(self.parser.allowed, output_bound) + 2 * FRAMING_TOKENS_PER_MESSAGE

    def state(self, request: Request, known: Known, labels: Labels | None = None) -> RowState:
        """Returns the state of the row of `request`, from the known completions.

        A row that had its label before is not sent again, whatever the results of some samples. A caller that
        returns with more of the same row keeps its `labels`: each response is read once.
        """
        labels = {} if labels is None else labels
        if not self.asks_again_before:
            return self._state(request, known, labels)
        before = replace(self, asks_again_before=0).state(request, self._before(known), labels)
        if before.label_result is not None and before.label_result.label is not None:
            return before
        now = self._state(request, known, labels)
        return replace(now, asked=tuple(dict.fromkeys((*now.asked, *before.asked))))

    def state_of_label(self, digest: bytes, completion: Completion) -> RowState | None:
        """Returns what `state` does for a row whose first response is its label; None for any other.

        It needs the first request's `digest` alone, so nothing has to be rendered.
        """
        if self.votes > 1 or completion.text is None:
            return None
        label = self._read(completion, completion.text)
        if not isinstance(label, Label):
            return None
        votes = [Vote(label, digest, answered=True)]
        step = self._decide(votes)
        return None if isinstance(step, Ask) else RowState(self._result(step, votes), (), (digest,))

    def _before(self, known: Known) -> Known:
        def known_before(digest: bytes) -> Completion | None:
            completion = known(digest)
            return completion if completion is not None and completion.run < self.asks_again_before else None

        return known_before

    def _state(self, request: Request, known: Known, labels: Labels) -> RowState:
        asked: list[bytes] = []
        samples: list[Vote] = []
        while True:
            step = self._decide(samples)
            if not isinstance(step, Ask):
                # Votes that were paid for before another vote, sent again, made them unnecessary.
                for number in range(len(samples) + 1, self.votes + 1):
                    self._cast_vote(_vote_request(request, number), known, labels, asked)
                return RowState(self._result(step, samples), (), tuple(dict.fromkeys(asked)))
            first = len(samples) + 1
            wave = [
                self._cast_vote(_vote_request(request, number), known, labels, asked)
                for number in range(first, first + step.more)
            ]
            open_requests = tuple(sample for sample in wave if isinstance(sample, Request))
            if open_requests:
                return RowState(None, open_requests, tuple(dict.fromkeys(asked)))
            samples += [sample for sample in wave if isinstance(sample, Vote)]

    def _decide(self, samples: Sequence[Vote]) -> Ask | list[Decided]:
        if self.vote_on:
            return decide_each(self.votes, [values_of(sample.label, self.vote_on) for sample in samples])
        step = decide(self.votes, [sample.text for sample in samples])
        return step if isinstance(step, Ask) else [step]

    def _result(self, steps: Sequence[Decided], samples: Sequence[Vote]) -> LabelResult:
        """Returns the row's result. With `vote_on`, the majority's values may be those of several samples."""
        if not self.vote_on:
            return _label_result(steps[0], samples)
        joined = join_majority(self.vote_on, steps, [sample.label for sample in samples], self.parser)
        answered = [sample for sample in samples if sample.answered]
        speaks = (answered or samples)[0] if joined.nearest is None else samples[joined.nearest]
        return LabelResult(
            label=joined.label,
            problem=joined.problem,
            answered=bool(answered),
            last=speaks.last,
            labels=tuple(sample.text for sample in samples),
            agreement=joined.agreement,
            saved=steps[0].saved,
            agreements=joined.agreements,
        )

    def _cast_vote(self, first: Request, known: Known, labels: Labels, asked: list[bytes]) -> Vote | Request:
        """Returns the sample that begins with `first`, or its request that has not ended yet."""
        request, repairs, times = first, 0, 1
        # A cut answer leads to the same request with a higher max_tokens: `base`, and the highest so far.
        base, raised = first, 0
        problem: str | None = None
        last = first.digest
        while True:
            asked.append(request.digest)
            completion = known(request.digest)
            if completion is None:
                return request
            if completion.text is None:
                if completion.run < self.asks_again_before:
                    return request
                return Vote(None, last, problem is not None, problem)
            last = request.digest
            reading = labels.get(last)
            if reading is None:
                reading = labels[last] = self._read(completion, completion.text)
            if isinstance(reading, Label):
                return Vote(reading, last, answered=True)
            problem = _problem(reading, completion)
            higher = (
                self._higher_cap(base, raised or completion.cap, known, asked)
                if completion.stop_reason == "max_tokens"  # where the context ends, no max_tokens helps
                else 0
            )
            if higher:
                request, raised = _with_cap(base, higher), higher
                continue
            if repairs < self.repair:
                repair = _repair(request, completion.text, reading, self.parser.allowed)
                base = self._former_repair(request, repair, known, asked)
                request, repairs = base, repairs + 1
                continue
            again = _again(first, times)
            asked.append(again.digest)
            if known(again.digest) is None and completion.run >= self.asks_again_before:
                return Vote(None, last, answered=True, problem=problem)
            asked.pop()
            request, repairs, times = again, 0, times + 1
            base, raised = again, 0

    def _former_repair(self, request: Request, repair: Request, known: Known, asked: list[bytes]) -> Request:
        """Returns the repair of `request`, under its identity of earlier versions if that is known.

        That identity covered the whole body, including max_tokens.
        """
        own = () if repair.output_bound is None else (repair.output_bound,)
        bodies = [with_max_tokens(repair.body, cap) for cap in dict.fromkeys((*own, *self.seen))]
        former = [derived_digest(request.digest, b"repair", body) for body in bodies or [repair.body]]
        asked.extend(former)
        bought = (digest for digest in (repair.digest, *former) if known(digest) is not None)
        return msgspec.structs.replace(repair, digest=next(bought, repair.digest))

    def _higher_cap(self, base: Request, cut_at: int | None, known: Known, asked: list[bytes]) -> int:
        """Returns the max_tokens with which a cut request is or was sent again; 0: it is not.

        If the position of the cut is unknown, it is the request's own max_tokens. Responses paid for under a
        cap that no job names any more still count.
        """
        own = base.output_bound
        if own is None:
            return 0
        allowed = {own, *self.raises}
        higher = sorted(cap for cap in allowed | set(self.seen) if cap > (cut_at or own))
        digests = {cap: _digest_with_cap(base, cap) for cap in higher}
        asked.extend(digests.values())
        bought = (cap for cap in higher if known(digests[cap]) is not None)
        return next(bought, 0) or next((cap for cap in higher if cap in allowed), 0)

    def _read(self, completion: Completion, text: str) -> Label | InvalidLabel:
        if self.accept is None:
            return self.parser.read(text, is_truncated(completion))
        flaw = None if self.suffices(completion) else flaw_of(completion)
        return Label(text, text) if flaw is None else InvalidLabel(flaw, _FLAWS[flaw])


def plain_rows(accept: Iterable[str] = (), raises: Sequence[int] = (), cap: float = 0) -> Labelling:
    """Returns the labelling of rows without labels. `accept` has the flaws of answers that count as whole."""
    return Labelling(_TEXT, accept=frozenset(accept), raises=tuple(raises), cap=cap)


PLAIN = plain_rows()


def output_cap(request: Request) -> int:
    """Returns the request's `max_tokens`, 0 if it has none."""
    return request.output_bound or 0


def _problem(reading: InvalidLabel, completion: Completion) -> str:
    told = not is_truncated(completion) or "cut" in reading.reason
    return reading.reason if told else f"{reading.reason} ({_FLAWS['truncated']})"


def _label_result(step: Decided, samples: Sequence[Vote]) -> LabelResult:
    labels = tuple(sample.text for sample in samples)
    agreeing = [sample for sample in samples if sample.label and sample.text == step.label]
    answered = [sample for sample in samples if sample.answered]
    speaks = (agreeing or answered or samples)[0]
    return LabelResult(
        label=speaks.label if agreeing else None,
        problem=None if agreeing else speaks.problem if len(samples) == 1 else step.reason,
        answered=bool(answered),
        last=speaks.last,
        labels=labels,
        agreement=step.agreement,
        saved=step.saved,
    )


def _vote_request(request: Request, number: int) -> Request:
    return request if number == 1 else _derived(request, request, b"vote", number.to_bytes(2, "big"))


def _digest_with_cap(request: Request, cap: int) -> bytes:
    return derived_digest(request.digest, b"max_tokens", cap.to_bytes(8, "big"))


def _with_cap(request: Request, cap: int) -> Request:
    return msgspec.structs.replace(
        request,
        body=with_max_tokens(request.body, cap),
        digest=_digest_with_cap(request, cap),
        output_bound=cap,
        follows=request.row,
    )


def _again(request: Request, times: int) -> Request:
    """Returns a copy as a distinct request: a request with a response is never sent again."""
    return _derived(request, request, b"again", times.to_bytes(4, "big"))


def _repair(request: Request, answer: str, wrong: InvalidLabel, allowed: str) -> Request:
    """Returns the next turn after an answer that is not a label."""
    # A repair's identity doesn't depend on max_tokens: only the body that is sent is cut to a plan's bound.
    essence = body = repair_body(request.essence or request.body, answer, wrong, allowed)
    cap = request.output_bound
    if cap is not None and len(body) - len(request.body) > most_bytes_of_repair(allowed, cap):
        body = repair_body(request.body, answer, wrong, allowed, cap)
    longer = msgspec.structs.replace(
        request,
        body=body,
        # JSON's escapes only make texts longer, so the added bytes bound the added tokens.
        input_bound=request.input_bound + len(body) - len(request.body) + 2 * FRAMING_TOKENS_PER_MESSAGE,
        essence=None if essence == body else essence,
    )
    return _derived(longer, request, b"repair", without_max_tokens(essence))


def _derived(request: Request, parent: Request, *what: bytes) -> Request:
    return msgspec.structs.replace(request, digest=derived_digest(parent.digest, *what), follows=parent.row)
