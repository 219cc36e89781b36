"""Votes on the properties of JSON labels: each property has a majority of its own."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from batchrun.labels.label import InvalidLabel, Label
from batchrun.labels.parser import LabelParser
from batchrun.labels.votes import Decided


@dataclass(frozen=True, slots=True)
class Joined:
    """The label that the majorities make; None where there is none, and `problem` says why.

    `nearest` is the position of the sample that has most of the majorities' values, None without a label.
    `agreements` are the shares of the properties, `agreement` is the least of them.
    """

    label: Label | None
    problem: str | None
    nearest: int | None = None
    agreement: float | None = None
    agreements: tuple[float | None, ...] = ()


def values_of(label: Label | None, names: Sequence[str]) -> list[str] | None:
    """Returns the label's properties as JSON, null for one that it lacks; None without a label."""
    if label is None or isinstance(label.value, str):
        return None
    return [msgspec.json.encode(label.value.get(name)).decode() for name in names]


def join_majority(
    names: Sequence[str], steps: Sequence[Decided], samples: Sequence[Label | None], parser: LabelParser
) -> Joined:
    """Joins the properties' majorities, `steps`, to one label.

    It is the sample with most of the majorities' values, the first of them. A value that it lacks is that of
    the first sample that has it. The schema is checked again, since it may forbid values together.
    """
    voters = {place: values for place, label in enumerate(samples) if (values := values_of(label, names))}
    if not voters:
        return Joined(None, steps[0].reason, agreements=(None,) * len(names))
    agreements = tuple(step.agreement for step in steps)
    ties = [f"{name}: {step.reason}" for name, step in zip(names, steps, strict=True) if step.label is None]
    if ties:
        return Joined(None, "; ".join(ties), agreements=agreements)
    wanted = [step.label for step in steps]
    nearest = max(voters, key=lambda place: _matches(voters[place], wanted))
    found = _object_of(samples[nearest])
    for at, name in enumerate(names):
        source = _object_of(samples[next(place for place in voters if voters[place][at] == wanted[at])])
        if name in source:
            found[name] = source[name]
        else:
            found.pop(name, None)
    label = parser.read(msgspec.json.encode(found, order="sorted").decode())
    if isinstance(label, InvalidLabel):
        problem = f"the values that most samples have don't go together: {label.reason}"
        return Joined(None, problem, agreements=agreements)
    return Joined(label, None, nearest, min(step.agreement or 0 for step in steps), agreements)


def _matches(values: Sequence[str], wanted: Sequence[str | None]) -> int:
    return sum(value == other for value, other in zip(values, wanted, strict=True))


def _object_of(label: Label | None) -> dict[str, object]:
    found: dict[str, object] = {} if label is None else msgspec.json.decode(label.text)
    return found
