"""Removes wrappings around an answer: a model's reasoning, tags, fences, quotes, a lead-in."""

import re
from collections.abc import Container, Iterator

from batchrun.labels.normalize import folded
from batchrun.labels.sentence import is_name
from batchrun.labels.word_lists import takes_back

MOST_CHARACTERS = 20_000
"""A longer answer is not a label: it bounds the work that an answer can make."""

_LAYERS = 8  # fence, emphasis, quotes, lead-in and full stop in each other, and some more
_THINKING_BEGINS = re.compile(r"\s*<(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
_THINKING_ENDS = re.compile(r"</(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
_TAG = re.compile(r"</?([a-z][a-z0-9_-]{0,30})>", re.IGNORECASE)
_STRIKES_OUT = frozenset(("s", "del", "strike"))
_TEX = re.compile(r"\\(?:boxed|text|textbf|mathrm|mathbf)\{")
_FENCE = re.compile(r"```[^\S\n]*[\w+-]{0,20}[^\S\n]*\n([^`]*)```")
_PAIRS = {
    '"': '"',
    "'": "'",
    "`": "`",
    "*": "*",
    "_": "_",
    "“": "”",
    "„": "“",
    "‘": "’",
    "‚": "‘",
    "«": "»",
    "»": "«",
    "‹": "›",
    "「": "」",
    "『": "』",
    "(": ")",
    "[": "]",
}
_LEAD_IN = re.compile(r"([^:：=\n]{1,60})[:：=]\s*")
_ANSWER_IS = re.compile(r"(?:(?:the|my) )?(?:(?:final|correct) )?(?:answer|label) is\s+", re.IGNORECASE)


def too_long(answer: str, most: int = MOST_CHARACTERS) -> str:
    """The reason for an answer of more than `most` characters."""
    return f"the answer has {len(answer)} characters; a label is looked for in {most} at most"


def without_thinking(text: str) -> str:
    """Returns the text after the reasoning that some models send before their answer; all without such tags.

    Reasoning that doesn't end leaves nothing.
    """
    ends = list(_THINKING_ENDS.finditer(text))
    if ends:
        return text[ends[-1].end() :]
    return "" if _THINKING_BEGINS.match(text) else text


def without_markup(text: str, keys: Container[str] = ()) -> str:
    """`text` with blanks for tags such as <label> and for TeX's \\boxed; of a tag among `keys`, its name.

    Tags that strike out or take back stay: a label between them stays unclear.
    """

    def plain(tag: re.Match[str]) -> str:
        name = folded(tag[1])
        if name in keys:
            return f" {name} "
        return tag[0] if name in _STRIKES_OUT or any(map(takes_back, name.split())) else " "

    return _TEX.sub(" {", _TAG.sub(plain, text))


def unwrapped(text: str) -> Iterator[str]:
    """Yields `text` unchanged, then with one wrapping less at a time, as a person would remove them."""
    inner = text.strip()
    yield inner
    for _ in range(_LAYERS):
        less = _without_layer(inner).strip()
        if less == inner:
            return
        inner = less
        yield inner


def _without_layer(text: str) -> str:
    fence = _FENCE.fullmatch(text)
    if fence:
        return fence[1]
    if len(text) >= 2 and _PAIRS.get(text[0]) == text[-1]:
        return text[1:-1]
    if text.endswith((".", "!", "。", "！")):
        return text[:-1]
    announced = _LEAD_IN.match(text)
    if announced and is_name(folded(announced[1]).strip("*_#> -").split()):
        return text[announced.end() :]
    answer = _ANSWER_IS.match(text)
    return text[answer.end() :] if answer else text
