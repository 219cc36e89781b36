"""Votes among several answers of a row: how many to request, and which label wins."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ask:
    """`more` samples can decide the vote, fewer can't."""

    more: int


@dataclass(frozen=True, slots=True)
class Decided:
    """`label`: the most frequent one; None where no single label is ahead, and `reason` says why.

    `agreement`: the share of requested samples that have the label, 0 to 1; None without a label.
    `asked`, `saved`: numbers of samples. Saved ones were not sent, since they could change nothing.
    """

    label: str | None
    agreement: float | None
    asked: int
    saved: int
    reason: str | None = None


def decide(votes: int, samples: Sequence[str | None]) -> Ask | Decided:
    """Returns the next step after `samples`, the labels so far (None: no valid label), of `votes`.

    A label is decided once the remaining samples could not bring another label level with it, so it is the
    one that all `votes` samples would have given. A sample without a label votes for none, and counts as
    asked. Only as many samples are requested at once as would decide if they agree.
    """
    if votes < 1 or len(samples) > votes:
        raise ValueError(f"{len(samples)} samples for {votes} votes")
    left = votes - len(samples)
    ranked = Counter(sample for sample in samples if sample is not None).most_common(2)
    ahead, behind = ([count for _, count in ranked] + [0, 0])[:2]
    if ahead > behind + left:
        return Decided(ranked[0][0], ahead / len(samples), len(samples), left)
    if left:
        return Ask((left - (ahead - behind)) // 2 + 1)
    return Decided(None, None, len(samples), 0, _no_majority(samples))


def decide_each(votes: int, samples: Sequence[Sequence[str] | None]) -> Ask | list[Decided]:
    """Returns the next step for samples of several values, each of which has a majority of its own.

    A sample has the same number of values as every other, or is None without a valid label. As in `decide`,
    more samples change no value that is decided, so all can wait for the last one.
    """
    number = len(next((sample for sample in samples if sample is not None), ("",)))
    steps = [
        decide(votes, [None if sample is None else sample[place] for sample in samples])
        for place in range(number)
    ]
    decided = [step for step in steps if isinstance(step, Decided)]
    if len(decided) == len(steps):
        return decided
    return Ask(max(step.more for step in steps if isinstance(step, Ask)))


def _no_majority(samples: Sequence[str | None]) -> str:
    counts = Counter(sample for sample in samples if sample is not None)
    if not counts:
        return (
            f"none of the {len(samples)} samples has a valid label" if len(samples) > 1 else "no valid label"
        )
    most = max(counts.values())
    tied = [label for label, count in counts.items() if count == most]
    shown = ", ".join(label if len(label) <= 80 else label[:77] + "..." for label in tied[:5])
    more = ", ..." if len(tied) > 5 else ""
    return f"a tie: {shown}{more} have {most} of {len(samples)} samples each"
