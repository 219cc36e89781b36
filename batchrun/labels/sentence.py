"""Judges an answer's text around the mention of a choice, as folded by `batchrun.labels.normalize`."""

import re
import unicodedata

from batchrun.labels.normalize import SOFT
from batchrun.labels.word_lists import ANSWERING, ASKING, NEUTRAL, negates, takes_back

_WORD = re.compile(r"[^\s.,!:;\"*_`()\[\]{}|]+")
_MARK = re.compile(r"[-=>#+]+")
_NUMBERING = re.compile(r"\(?(?:\d{1,2}|[a-z])[.)] ")
_SETS_OFF = re.compile(r"[\"'*_`)\]}]*(?P<mark>[.,!;:\n]| ?\(| - | because )[*_]*")
_FEWEST_WORDS = {":": 3, " - ": 2}  # "toxic: low" and "toxic - x" are scores, not explanations


def words(text: str) -> list[str]:
    """Returns a text's words, without the marks between them."""
    found = (word.strip("'") for word in _WORD.findall(text))
    return [word for word in found if word and not _MARK.fullmatch(word)]


def leads_in(before: str, key: str) -> bool:
    """Whether what stands before the mention of `key` only announces it."""
    *lines, last = before.split("\n")
    if not all(map(_is_neutral, lines)):
        return False
    if key[0].isdigit() and last.rstrip().endswith(("-", ">", "+", "#")):
        return False  # "- 1" may be a number below zero
    if _is_neutral(last):
        return True
    name, colon, behind = last.rpartition(":") if ":" in last else last.rpartition("=")
    return bool(colon) and not behind.strip(SOFT + "->") and is_name(words(name))


def is_name(of: list[str]) -> bool:
    """Whether words before a colon name what comes, as in "Sentiment" or "The final answer"."""
    if any(map(takes_back, of)) or not any(character.isalpha() for word in of for character in word):
        return False
    return len(of) <= 3 or NEUTRAL.issuperset(of)


def adds_nothing(rest: str) -> bool:
    """Whether what stands behind the mention changes nothing; further mentions are left out of it."""
    return "?" not in rest and "-" not in rest and NEUTRAL.issuperset(words(rest))


def explains(rest: str, key: str) -> bool:
    """Whether what stands behind the mention of `key` is set off from it and takes nothing of it back."""
    opening = _SETS_OFF.match(rest)
    if opening is None or "?" in rest:
        return False
    explanation = rest[opening.end() :]
    said = words(explanation)
    if len(said) < _FEWEST_WORDS.get(opening["mark"], 0):
        return False
    if opening["mark"] == ":" and (not said[0][0].isalpha() or "\n" in explanation[:2]):
        return False  # a score, or a list of what speaks for it
    if not all(map(_is_plain, explanation)):
        return False
    doubts = list(filter(takes_back, said))
    return not doubts or (takes_back(key.partition(" ")[0]) and all(map(negates, doubts)))


def concludes(before: str, rest: str, key: str) -> bool:
    """Whether a last line gives the label in so many words: "Answer: x", "The label is x."."""
    announcing = words(before)
    announced = ":" in before or "=" in before or "is" in announcing
    names_it = not ANSWERING.isdisjoint(announcing) and NEUTRAL.issuperset(announcing)
    return announced and names_it and leads_in(before, key) and not rest.strip(SOFT)


def _is_neutral(line: str) -> bool:
    numbering = _NUMBERING.match(line)
    said = words(line[numbering.end() :] if numbering else line)
    return NEUTRAL.issuperset(said) and not (said and said[0] in ASKING)


def _is_plain(character: str) -> bool:
    """ASCII, other Latin letters, punctuation: in other scripts, and in pictures, a denial isn't known."""
    if character.isascii():
        return True
    if character.isalpha():
        return character < "\u0250" or "\u1e00" <= character <= "\u1eff"
    return unicodedata.category(character)[0] in "PNZM" or unicodedata.category(character) == "Sc"
