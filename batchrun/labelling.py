"""A labelled row: which requests it still needs, and the label that its answers come to.

A row is asked for `votes` samples. A sample is a request, and a repair for as long as its answer is no valid
label. All of them are derived from the row's request and from the answers so far, so that whoever knows the
journal knows where a row stands: the engine, a resumed run, the output, the evaluation.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec

from batchrun.conversation import FRAMING_TOKENS_PER_MESSAGE
from batchrun.labels import Label, Unreadable
from batchrun.labels.reading import Reader
from batchrun.labels.repair import most_bytes_of_repair, repair_body
from batchrun.labels.votes import Decided, decide
from batchrun.prompts import Request, derived_digest


class Reply(msgspec.Struct, frozen=True, gc=False):
    """How a request ended: with the answer's text, or None where it failed for good.

    `cut` says that the answer was cut off at max_tokens, `run` is the journal's number of the run.
    """

    text: str | None
    cut: bool = False
    run: int = 0


Known = Callable[[bytes], Reply | None]
"""What is known of the request with a digest; None as long as it has not ended."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One vote.

    `last` is the digest of the request whose answer it rests on, `problem` says why it has no label,
    `answered` is False where its first request failed for good.
    """

    label: Label | None
    last: bytes
    answered: bool
    problem: str | None = None

    @property
    def text(self) -> str | None:
        return None if self.label is None else self.label.text


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a row has come to. `label` is None where it is invalid, or has failed (`answered` is False).

    `last` is the digest of the request whose answer stands for the row. `agreement` is the share of the
    samples that have the label, `labels` has each sample's, `saved` counts votes that needn't be asked.
    """

    label: Label | None
    problem: str | None
    answered: bool
    last: bytes
    labels: tuple[str | None, ...]
    agreement: float | None
    saved: int


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a row stands: decided, or with requests that have not ended yet.

    `asked` has the digests of all requests that it has taken, or may have.
    """

    verdict: Verdict | None
    open: tuple[Request, ...]
    asked: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Labelling:
    """How rows come to their labels.

    `asks_again_before` is the number of a run: samples that ended without a label before it are asked anew.
    """

    reader: Reader
    repair: int = 0
    votes: int = 1
    asks_again_before: int = 0

    @property
    def follows_up(self) -> bool:
        """Whether a row may take more than one request."""
        return self.repair > 0 or self.votes > 1 or self.asks_again_before > 0

    @property
    def most_requests(self) -> int:
        """How many requests a row can take, unless it is asked anew."""
        return self.votes * (1 + self.repair)

    @property
    def first_requests(self) -> int:
        """How many requests a row is sure to take."""
        step = decide(self.votes, [])
        return 0 if isinstance(step, Decided) else step.more

    @property
    def most_tokens_of_repair(self) -> int:
        """Upper bound of the input tokens by which a repair is longer than what it follows."""
        return most_bytes_of_repair(self.reader.allowed) + 2 * FRAMING_TOKENS_PER_MESSAGE

    def standing(self, request: Request, known: Known) -> Standing:
        """Where the row of `request` stands, by what is known.

        A row that had its label before is not asked anew, whatever some of its samples have come to.
        """
        if not self.asks_again_before:
            return self._standing(request, known)
        before = replace(self, asks_again_before=0).standing(request, self._before(known))
        if before.verdict is not None and before.verdict.label is not None:
            return before
        now = self._standing(request, known)
        return replace(now, asked=tuple(dict.fromkeys((*now.asked, *before.asked))))

    def _before(self, known: Known) -> Known:
        def known_before(digest: bytes) -> Reply | None:
            reply = known(digest)
            return reply if reply is not None and reply.run < self.asks_again_before else None

        return known_before

    def _standing(self, request: Request, known: Known) -> Standing:
        asked: list[bytes] = []
        samples: list[Sample] = []
        while True:
            step = decide(self.votes, [sample.text for sample in samples])
            if isinstance(step, Decided):
                # Votes that were bought before another one, asked anew, made them needless.
                for number in range(len(samples) + 1, self.votes + 1):
                    self._sample(_vote(request, number), known, asked)
                return Standing(_verdict(step, samples), (), tuple(asked))
            first = len(samples) + 1
            wave = [
                self._sample(_vote(request, number), known, asked)
                for number in range(first, first + step.more)
            ]
            open_requests = tuple(sample for sample in wave if isinstance(sample, Request))
            if open_requests:
                return Standing(None, open_requests, tuple(asked))
            samples += [sample for sample in wave if isinstance(sample, Sample)]

    def _sample(self, first: Request, known: Known, asked: list[bytes]) -> Sample | Request:
        """The sample that begins with `first`, or its request that has not ended yet."""
        request, repairs, times = first, 0, 1
        problem: str | None = None
        last = first.digest
        while True:
            asked.append(request.digest)
            reply = known(request.digest)
            if reply is None:
                return request
            if reply.text is None:
                if reply.run < self.asks_again_before:
                    return request
                return Sample(None, last, problem is not None, problem)
            last = request.digest
            reading = self.reader.read(reply.text, reply.cut)
            if isinstance(reading, Label):
                return Sample(reading, last, answered=True)
            problem = reading.reason
            if repairs < self.repair:
                request, repairs = _repair(request, reply.text, reading, self.reader.allowed), repairs + 1
                continue
            again = _again(first, times)
            asked.append(again.digest)
            if known(again.digest) is None and reply.run >= self.asks_again_before:
                return Sample(None, last, answered=True, problem=problem)
            asked.pop()
            request, repairs, times = again, 0, times + 1


def _verdict(step: Decided, samples: list[Sample]) -> Verdict:
    labels = tuple(sample.text for sample in samples)
    agreeing = [sample for sample in samples if sample.label and sample.text == step.label]
    answered = [sample for sample in samples if sample.answered]
    speaks = (agreeing or answered or samples)[0]
    return Verdict(
        label=speaks.label if agreeing else None,
        problem=None if agreeing else speaks.problem if len(samples) == 1 else step.reason,
        answered=bool(answered),
        last=speaks.last,
        labels=labels,
        agreement=step.agreement,
        saved=step.saved,
    )


def _vote(request: Request, number: int) -> Request:
    return request if number == 1 else _derived(request, request, b"vote", number.to_bytes(2, "big"))


def _again(request: Request, times: int) -> Request:
    """The same once more, as a request of its own: what has been answered is never sent again."""
    return _derived(request, request, b"again", times.to_bytes(4, "big"))


def _repair(request: Request, answer: str, wrong: Unreadable, allowed: str) -> Request:
    """The next turn after an answer that is no label."""
    body = repair_body(request.body, answer, wrong, allowed)
    longer = msgspec.structs.replace(
        request,
        body=body,
        # JSON's escapes only make texts longer, so that the bytes that were added bound their tokens.
        input_bound=request.input_bound + len(body) - len(request.body) + 2 * FRAMING_TOKENS_PER_MESSAGE,
    )
    return _derived(longer, request, b"repair", body)


def _derived(request: Request, parent: Request, *what: bytes) -> Request:
    return msgspec.structs.replace(request, digest=derived_digest(parent.digest, *what), follows=parent.row)
