"""Metrics: from an answer and what was expected to a score from 0 to 1.

A metric is made once from the job's table and is then a plain function of two values. A row that can't
be scored gives an `Unscored` with the reason, never an exception: its response is paid for. Reasons
never show an answer or an expected cell.
"""

import re
import string
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from math import isnan, prod
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from batchrun.job.evaluation import PYTHON_METRIC, Evaluation
from batchrun.rows.custom_metrics import load_function, score_by

if TYPE_CHECKING:
    import regex

_AROUND_LABELS = string.whitespace + "\"'`.,;:!?*_()[]“”„‘’«»。、！？"  # not +, -, # and the like: C, C++, C#
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_FENCE = re.compile(r"\s*```\w*[^\S\n]*\n(?P<inside>.*?)```\s*", re.DOTALL)
_NUMBER = re.compile(r"(?<![\w.])[-+−]?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?")


@dataclass(frozen=True, slots=True)
class Unscored:
    """The reason, in a few words, why a row has no score."""

    reason: str


Score = float | Unscored
Rule = Callable[[str, object], Score]


@dataclass(frozen=True, slots=True)
class Metric:
    """`score(answer, expected)` gives a score from 0 to 1; 0 or 1 where the metric is `binary`.

    The answer None means that it is not a valid label, and scores 0. An expected cell may be a text, number,
    bool, list, dict, or None, which can't be scored. Never raises.
    """

    name: str
    binary: bool
    score: Callable[[str | None, object], Score]


def make_metric(evaluation: Evaluation, folder: Path) -> Metric:
    """Returns the metric of a job whose paths are relative to `folder`.

    Raises JobError if a custom function can't be imported.
    """
    name = evaluation.metric
    if name.startswith(PYTHON_METRIC):
        function = load_function(name.removeprefix(PYTHON_METRIC), folder)
        return Metric(
            name, function.binary, _scoring(lambda answer, cell: _own(score_by(function, answer, cell)))
        )
    if name == "json":
        return Metric(name, True, _scoring(_json))
    tolerance = Decimal(str(evaluation.tolerance or 0))
    rules: dict[str, Rule] = {
        "exact": _exact,
        "contains": _contains,
        "regex": _regex,
        "numeric": lambda answer, cell: _numeric(answer, cell, tolerance),
        "f1": _f1,
        "choice": _choice,
    }
    rule = rules[name]
    return Metric(name, name != "f1", _scoring(lambda answer, cell: _best(rule, answer, cell)))


def _scoring(rule: Rule) -> Callable[[str | None, object], Score]:
    def score(answer: str | None, expected: object) -> Score:
        if expected is None or (isinstance(expected, float) and isnan(expected)):
            return Unscored("nothing is expected")
        return 0.0 if answer is None else rule(answer, expected)

    return score


def _own(score: float | str) -> Score:
    return Unscored(score) if isinstance(score, str) else score


def _best(rule: Rule, answer: str, expected: object) -> Score:
    """Returns the score with the best of several expected values."""
    if not isinstance(expected, list | tuple):
        return rule(answer, expected)
    scores = [rule(answer, cell) for cell in expected if cell is not None]
    unscored = next((score for score in scores if isinstance(score, Unscored)), None)
    return unscored or max(scores, default=Unscored("nothing is expected"), key=_as_number)


def _as_number(score: Score) -> float:
    return score if isinstance(score, float) else -1.0


def _exact(answer: str, expected: object) -> Score:
    texts = _texts(expected)
    return texts if isinstance(texts, Unscored) else float(_plain(answer) in map(_plain, texts))


def _contains(answer: str, expected: object) -> Score:
    texts = _texts(expected)
    if isinstance(texts, Unscored):
        return texts
    if not texts[0].strip():
        return Unscored("the expected text is empty")
    within = _folded(answer)
    return float(any(_folded(text) in within for text in texts))


def _regex(answer: str, expected: object) -> Score:
    if not isinstance(expected, str):
        return Unscored("the expected cell is not text")
    if expected in _slow:
        return _TOO_SLOW
    pattern = _compiled(expected)
    if pattern is None:
        return Unscored("the expected cell is not a regular expression")
    try:
        return float(pattern.search(answer, timeout=_MOST_SECONDS) is not None)
    except TimeoutError:
        if len(_slow) < _MOST_SLOW:
            _slow.add(expected)
        return _TOO_SLOW


_MOST_CHARACTERS = 10_000  # of an expression, which takes some 10 us each to compile
_MOST_REPEATS = 100_000  # at most so many copies of a part are made: of `a` in `(a{99}){99}`, 9,801
_REPEAT = re.compile(r"\{0*(\d{1,100})[,}]")
_MOST_SECONDS = 0.25
_TOO_SLOW = Unscored("the expected regular expression takes too long")
_MOST_SLOW = 1_024
_slow: set[str] = set()
"""Expressions that took too long once: they are not tried again, so that each costs one wait."""


@lru_cache(maxsize=1_024)
def _compiled(pattern: str) -> "regex.Pattern[str] | None":
    """Compiles with `regex`, which has a time-out: in Python's `re`, `(a+)+b` could block a run for years."""
    import regex

    repeats = prod(int(number) for number in _REPEAT.findall(pattern) if int(number))
    if len(pattern) > _MOST_CHARACTERS or repeats > _MOST_REPEATS:
        return None
    with warnings.catch_warnings(action="ignore"):  # of what future versions of Python may read otherwise
        try:
            re.compile(pattern)  # which says what an expression is
            return regex.compile(pattern)
        except (re.error, regex.error, RecursionError, OverflowError, MemoryError):
            return None


def _numeric(answer: str, expected: object, tolerance: Decimal) -> Score:
    wanted = _number(expected)
    if wanted is None:
        return Unscored("the expected cell is not a number")
    found = [match[0] for match in _NUMBER.finditer(answer)]
    if not found:
        return 0.0
    try:
        return float(abs(_decimal(found[-1]) - wanted) <= tolerance)
    except ArithmeticError:  # an exponent out of range
        return 0.0


def _f1(answer: str, expected: object) -> Score:
    """Token F1 as in SQuAD's evaluation script (Rajpurkar et al. 2016)."""
    texts = _texts(expected)
    if isinstance(texts, Unscored):
        return texts
    label_text, wanted = _words(answer), _words(texts[0])
    if not label_text or not wanted:
        return float(label_text == wanted)
    common = sum((Counter(label_text) & Counter(wanted)).values())
    return 2 * common / (len(label_text) + len(wanted))


def _choice(answer: str, expected: object) -> Score:
    texts = _texts(expected)
    if isinstance(texts, Unscored):
        return texts
    return float(bare_label(answer) in map(bare_label, texts))


def bare_label(text: str) -> str:
    """Returns the label without case and surrounding marks, as the metric `choice` compares labels."""
    label = _folded(text)
    return label.strip(_AROUND_LABELS) or label


def choice_pair(answer: str | None, expected: object) -> tuple[str, str | None]:
    """Returns the expected and the given label of a row that `choice` has scored: equal if it is right."""
    cells = expected if isinstance(expected, list | tuple) else [expected]
    found = (_texts(cell) for cell in cells if cell is not None)
    choices = [texts for texts in found if not isinstance(texts, Unscored)]
    if answer is None:
        return choices[0][0], None
    label_text = bare_label(answer)
    right = next((texts for texts in choices if label_text in map(bare_label, texts)), None)
    return (choices[0][0], answer) if right is None else (right[0], right[0])


def _json(answer: str, expected: object) -> Score:
    if isinstance(expected, str):
        try:
            wanted = msgspec.json.decode(expected)
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            return Unscored("the expected cell is not JSON")
    else:
        try:
            wanted = msgspec.to_builtins(expected)
        except TypeError:
            return Unscored("the expected cell can't be written as JSON")
    fenced = _FENCE.fullmatch(answer)
    try:
        return float(_same(msgspec.json.decode(fenced["inside"] if fenced else answer), wanted))
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return 0.0


def _same(left: object, right: object) -> bool:
    """Returns whether both are equal as JSON: 1 is 1.0 but not true; a null key equals a missing one."""
    if isinstance(left, dict) and isinstance(right, dict):
        keys = {key for pair in (left, right) for key, value in pair.items() if value is not None}
        return all(_same(left.get(key), right.get(key)) for key in keys)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return isinstance(left, bool) == isinstance(right, bool) and left == right


def _texts(expected: object) -> tuple[str, ...] | Unscored:
    """Returns the accepted spellings of the cell."""
    if isinstance(expected, str):
        return (expected,)
    if isinstance(expected, bool):
        return (str(expected).lower(), str(expected))
    if isinstance(expected, float) and expected.is_integer():
        return (str(int(expected)), str(expected))
    if isinstance(expected, dict | list | tuple | bytes):
        return Unscored("the expected cell is not text")
    return (str(expected),)


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def _words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def _number(cell: object) -> Decimal | None:
    text = str(cell).strip()
    if isinstance(cell, bool) or not _NUMBER.fullmatch(text):
        return None
    try:
        return _decimal(text)
    except ArithmeticError:
        return None


def _decimal(text: str) -> Decimal:
    return Decimal(text.replace(",", "").replace("−", "-"))
