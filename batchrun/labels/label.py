"""A valid label, or the exact reason why there is none, as values. No I/O."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Label:
    """A valid label.

    `text`: the choice as the job spells it; the text that the pattern matches; or the JSON object in
    canonical form (no blanks, sorted keys). `value`: that text, or the object's columns by name.
    """

    text: str
    value: str | dict[str, Any]


@dataclass(frozen=True, slots=True)
class InvalidLabel:
    """No label. `code`: a word for counts. `reason`: what is wrong, for people and for the model."""

    code: str
    reason: str


def excerpt(text: str, most: int = 80) -> str:
    """`text` on one line and of at most `most` characters."""
    line = " ".join(text[: 4 * most].split())
    return line if len(line) <= most and len(text) <= 4 * most else line[: most - 3] + "..."
