"""Answers that match a regular expression as a whole.

The engine is Rust's `regex`, by way of jsonschema-rs: its time is linear in the text, whatever the
expression. Python's `re` backtracks: on a hostile answer `(a+)+b` would hold the whole run up for years.
"""

import re
from typing import TYPE_CHECKING

from batchrun.errors import JobError

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
    """What is wrong, in the words of Python's parser, since the other one gives none."""
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        return f"not a regular expression: {error}"
    return (
        "not understood by the engine, which takes Rust's syntax: no look-around, no back-references, "
        "\\z for \\Z, and no more than 10 MiB when compiled"
    )
