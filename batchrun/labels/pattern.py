"""Answers that match a regular expression as a whole.

The expression means what it means as `pattern` in a JSON Schema (ECMA-262: `\\d` and `\\w` are ASCII, `.` is
no line break). The engine is Rust's `regex`, by way of jsonschema-rs: its time is linear in the text,
whatever the expression. Python's `re` backtracks: on a hostile answer `(a+)+b` would hold the whole run up
for years.
"""

import re
from typing import TYPE_CHECKING

from batchrun.errors import JobError
from batchrun.labels.label import InvalidLabel, Label, excerpt
from batchrun.labels.unwrap import MOST_CHARACTERS, too_long, unwrapped, without_thinking

if TYPE_CHECKING:
    from collections.abc import Callable


def compiled_pattern(pattern: str) -> "Callable[[str], bool]":
    """Whether a text matches `pattern` from its first to its last character. Raises JobError."""
    import jsonschema_rs

    options = jsonschema_rs.RegexOptions()
    try:
        # On its own first: "a)|(b" is no expression, though it would be one inside the brackets.
        for whole in (pattern, f"^(?:{pattern})$"):
            schema = {"type": "string", "pattern": whole}
            validator = jsonschema_rs.Draft202012Validator(schema, pattern_options=options, offline=True)
    except ValueError:
        raise JobError(f"[labels] pattern: {_fault(pattern)}") from None
    return validator.is_valid


def _fault(pattern: str) -> str:
    """Returns the fault in the words of Python's parser, since the engine gives none."""
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        return f"not a regular expression: {error}"
    return (
        "not understood by the engine, which takes the syntax of JSON Schema without look-around and "
        "back-references, and no more than 10 MiB when compiled"
    )


def read_pattern(
    matches: "Callable[[str], bool]", pattern: str, text: str, truncated: bool
) -> Label | InvalidLabel:
    """Returns the answer that matches: unchanged, else with wrappings removed one by one.

    An answer that was cut at max_tokens may be the beginning of a longer one, and is not a label.
    """
    answer = without_thinking(text)
    if not answer.strip():
        return InvalidLabel("empty", "the answer is empty")
    if len(answer) > MOST_CHARACTERS:
        return InvalidLabel("too_long", too_long(answer))
    if truncated:
        return InvalidLabel("cut_off", "the answer was cut off at max_tokens, and may be a part only")
    found = next(filter(matches, unwrapped(answer)), None)
    if found is None:
        return InvalidLabel("no_match", f"the answer doesn't match the pattern {excerpt(pattern, 200)}")
    return Label(found, found)
