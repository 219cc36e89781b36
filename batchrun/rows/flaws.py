"""The flaws that keep a response from being a whole answer with text."""

from batchrun.exchange import TRUNCATING, Completion


def flaw_of(completion: Completion) -> str | None:
    """Returns `truncated`, `refusal` or `empty`; None for a whole answer with text."""
    if is_truncated(completion):
        return "truncated"
    if completion.stop_reason == "refusal":
        return "refusal"
    return None if completion.text and not completion.text.isspace() else "empty"


def is_truncated(completion: Completion) -> bool:
    """Returns whether the text was cut, at max_tokens or at the end of the model's context."""
    return completion.stop_reason in TRUNCATING
