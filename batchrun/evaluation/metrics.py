"""Metrics: from an answer and what was expected to a score from 0 to 1.

A metric is made once from the job's table and is then a plain function of two values. A row that can't
be scored gives an `Unscored` with the reason, never an exception: its answer is paid for. No reason
shows an answer or an expected cell.
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
from math import isnan
from pathlib import Path

import msgspec

from batchrun.evaluation.python_metrics import load_function, score_by
from batchrun.job.evaluation import PYTHON_METRIC, Evaluation

_AROUND_LABELS = string.whitespace + "\"'`.,;:!?*_()[]“”„‘’«»。、！？"  # not +, -, # and the like: C, C++, C#
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_FENCE = re.compile(r"\s*```\w*\s*\n(?P<inside>.*?)```\s*", re.DOTALL)
_NUMBER = re.compile(r"(?<![\w.])[-+−]?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?")


@dataclass(frozen=True, slots=True)
class Unscored:
    """A row without a score, and why, in a few words."""

    reason: str


Score = float | Unscored
Rule = Callable[[str, object], Score]


@dataclass(frozen=True, slots=True)
class Metric:
    """`score(answer, expected)` gives a score from 0 to 1; 0 or 1 where the metric is `binary`.

    The answer None stands for one that is no valid label, and scores 0. An expected cell may be a
    text, number, bool, list, dict, or None, which can't be scored. Nothing is raised.
    """

    name: str
    binary: bool
    score: Callable[[str | None, object], Score]


def make_metric(evaluation: Evaluation, folder: Path) -> Metric:
    """The metric of a job whose paths are relative to `folder`.

    Raises JobError where a function of the person's own can't be imported.
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
    """The score with the best of the expected values, where there are several."""
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
        return Unscored("the expected cell is no text")
    pattern = _compiled(expected)
    if pattern is None:
        return Unscored("the expected cell is no regular expression")
    return float(pattern.search(answer) is not None)


@lru_cache(maxsize=1_024)
def _compiled(pattern: str) -> re.Pattern[str] | None:
    with warnings.catch_warnings(action="ignore"):  # of what future versions of Python may read otherwise
        try:
            return re.compile(pattern)
        except (re.error, RecursionError, OverflowError):
            return None


def _numeric(answer: str, expected: object, tolerance: Decimal) -> Score:
    wanted = _number(expected)
    if wanted is None:
        return Unscored("the expected cell is no number")
    found = [match[0] for match in _NUMBER.finditer(answer)]
    if not found:
        return 0.0
    try:
        return float(abs(_decimal(found[-1]) - wanted) <= tolerance)
    except ArithmeticError:  # an exponent beyond all measure
        return 0.0


def _f1(answer: str, expected: object) -> Score:
    """Token F1 as in SQuAD's evaluation script (Rajpurkar et al. 2016)."""
    texts = _texts(expected)
    if isinstance(texts, Unscored):
        return texts
    said, wanted = _words(answer), _words(texts[0])
    if not said or not wanted:
        return float(said == wanted)
    common = sum((Counter(said) & Counter(wanted)).values())
    return 2 * common / (len(said) + len(wanted))


def _choice(answer: str, expected: object) -> Score:
    texts = _texts(expected)
    if isinstance(texts, Unscored):
        return texts
    return float(bare_label(answer) in map(bare_label, texts))


def bare_label(text: str) -> str:
    """The label without case and marks around it, by which the metric `choice` tells labels apart."""
    label = _folded(text)
    return label.strip(_AROUND_LABELS) or label


def choice_pair(answer: str | None, expected: object) -> tuple[str, str | None]:
    """What was expected and what was said of a row that `choice` has scored: the same where it is right."""
    cells = expected if isinstance(expected, list | tuple) else [expected]
    found = (_texts(cell) for cell in cells if cell is not None)
    choices = [texts for texts in found if not isinstance(texts, Unscored)]
    if answer is None:
        return choices[0][0], None
    said = bare_label(answer)
    right = next((texts for texts in choices if said in map(bare_label, texts)), None)
    return (choices[0][0], answer) if right is None else (right[0], right[0])


def _json(answer: str, expected: object) -> Score:
    if isinstance(expected, str):
        try:
            wanted = msgspec.json.decode(expected)
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            return Unscored("the expected cell is no JSON")
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
    """Equal as JSON: 1 is 1.0 but not true, and a key that is null is as good as none."""
    if isinstance(left, dict) and isinstance(right, dict):
        keys = {key for pair in (left, right) for key, value in pair.items() if value is not None}
        return all(_same(left.get(key), right.get(key)) for key in keys)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return isinstance(left, bool) == isinstance(right, bool) and left == right


def _texts(expected: object) -> tuple[str, ...] | Unscored:
    """How the cell may be written."""
    if isinstance(expected, str):
        return (expected,)
    if isinstance(expected, bool):
        return (str(expected).lower(), str(expected))
    if isinstance(expected, float) and expected.is_integer():
        return (str(int(expected)), str(expected))
    if isinstance(expected, dict | list | tuple | bytes):
        return Unscored("the expected cell is no text")
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
