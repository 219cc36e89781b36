"""Normalizes text for comparison: variants in a model's spelling become equal, meaning is kept."""

import re
import unicodedata

SOFT = " \n.,!:;\"'`*_()[]{}|"
"""Characters that may touch a label without changing it: a sign such as + - % # ~ < or a digit would."""

# Typographic quotes and dashes, by what they fold to. A long dash parts words, a short one may be a sign.
_ALIKE = str.maketrans(
    {
        **dict.fromkeys("‘’‚‛‹›´ʼ", "'"),
        **dict.fromkeys("“”„‟«»「」『』〝〞", '"'),
        **dict.fromkeys("‐‑‒–−﹣", "-"),
        **dict.fromkeys("—―", " - "),
        **dict.fromkeys("。｡", "."),
        **dict.fromkeys("、，", ","),
        **dict.fromkeys("【〔", "["),
        **dict.fromkeys("】〕", "]"),
        **dict.fromkeys("…", "."),
        **dict.fromkeys("•◦▪·", "* "),
        # Invisible: soft hyphen, zero-width characters, direction marks, byte order mark, emoji selectors.
        **dict.fromkeys("\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\ufe0e\ufe0f", ""),
    }
)
_JOINT = re.compile(r"(?<=[^\W_])[-_]+(?=[^\W_])")
_BLANKS = re.compile(r"\s+")
_LINE_BREAK = re.compile(r"[\r\n\v\f\x85\u2028\u2029]")


def folded(text: str) -> str:
    """Returns `text` without differences of case, width, quotes, dashes and blanks; linear in its length.

    A hyphen or underscore between letters or digits counts as a blank: `very_positive` is `very positive`.
    Line breaks stay, as one "\\n" each. Accents stay: a word without them may be another word.
    """
    alike = unicodedata.normalize("NFKC", text.translate(_ALIKE)).casefold()
    alike = unicodedata.normalize("NFC", alike).translate(_ALIKE)
    return _BLANKS.sub(_one_blank, _JOINT.sub(" ", alike)).strip()


def _one_blank(blanks: re.Match[str]) -> str:
    return "\n" if _LINE_BREAK.search(blanks[0]) else " "


def choice_key(choice: str) -> str:
    """Returns a choice's key for the search in a folded answer; empty where nothing is left of it."""
    return " ".join(folded(choice).split()).strip(SOFT)
