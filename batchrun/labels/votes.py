"""Several answers of a row: how many to ask for, and which label they give."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ask:
    """`more` samples can decide it, fewer can't."""

    more: int


@dataclass(frozen=True, slots=True)
class Decided:
    """`label`: that of the most samples; None where no one label is ahead, and `reason` says why.

    `agreement`: the share of the samples asked that have the label, 0 to 1; None without a label.
    `asked`, `saved`: samples. Saved are those that could change nothing any more.
    """

    label: str | None
    agreement: float | None
    asked: int
    saved: int
    reason: str | None = None


def decide(votes: int, samples: Sequence[str | None]) -> Ask | Decided:
    """What to do after `samples`, the labels so far (None: an answer without a valid label), of `votes`.

    A label is decided once the samples that are left could bring no other label level with it, so it is
    the one that all `votes` samples would have given. A sample without a label is a vote for none: it
    counts as asked. Only as many are asked at once as it takes, if they agree, to decide.
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
