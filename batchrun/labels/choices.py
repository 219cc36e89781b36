"""Answers that name one of the job's choices.

The rule: a label is read where the answer names one choice and no other, anywhere, and where whatever
else it says can't change that. Mentions are found as whole words; "not good" is one mention where it is a
choice itself, and "not" beside "good" where it isn't. Around the mention may stand

- marks that touch nothing (`folding.SOFT`), bullets and headings;
- words that change nothing (`words.NEUTRAL`), or a name of up to three words before a colon;
- behind it, set off by a mark, an explanation in Latin letters without denial, doubt or a question;
- before it, anything at all, if the last line says plainly that it gives the label ("Final answer: x").

Everything else is unreadable.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from batchrun.labels import Label, Unreadable, excerpt
from batchrun.labels.folding import SOFT, choice_key, folded
from batchrun.labels.words import ANSWERING, NEUTRAL, negates, takes_back
from batchrun.labels.wrapping import MOST_CHARACTERS, is_lead_in, too_long, without_markup, without_thinking

_WORD = re.compile(r"[^\s.,!:;\"*_`()\[\]{}|]+")
_MARK = re.compile(r"[-=>#+]+")
_NUMBERING = re.compile(r"\(?(?:\d{1,2}|[a-z])[.)] ")
_EXPLAINS = re.compile(r"[\"'*_`)\]}]*(?:[.,!;:\n]| ?\(| - | because )")


@dataclass(frozen=True, slots=True)
class Choices:
    """`spelled`: key -> the choice as the job has it. `starting`: first character -> keys, longest first."""

    spelled: Mapping[str, str]
    starting: Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class _Mention:
    key: str
    start: int
    end: int


def make_choices(choices: Sequence[str]) -> Choices:
    """The choices, to be looked for; their keys differ (`batchrun.job.labels` checks that)."""
    spelled = {choice_key(choice): choice for choice in choices}
    starting: dict[str, list[str]] = {}
    for key in sorted(spelled, key=len, reverse=True):
        starting.setdefault(key[0], []).append(key)
    return Choices(spelled, starting)


def read_choice(choices: Choices, text: str, cut: bool) -> Label | Unreadable:
    """The choice that the answer `text` names; `cut` says that it ended at max_tokens."""
    answer = without_thinking(text)
    if not answer.strip():
        return Unreadable("empty", "the answer is empty")
    if len(answer) > MOST_CHARACTERS:
        return Unreadable("too_long", too_long(answer))
    key = choice_key(answer)
    if key in choices.spelled:
        return _cut_off(choices, key) if cut else _label(choices, key)
    return _read_sentence(choices, folded(without_markup(answer, choices.spelled)), cut)


def _read_sentence(choices: Choices, text: str, cut: bool) -> Label | Unreadable:
    mentions = _mentions(choices, text.replace("\n", " "))
    named = list(dict.fromkeys(mention.key for mention in mentions))
    if not named:
        return Unreadable("no_choice", "the answer names none of the choices")
    if len(named) > 1:
        return Unreadable("two_choices", _names_several([choices.spelled[key] for key in named]))
    plain = [mention for mention in mentions if _stands_alone(text, mention)]
    says_only = bool(plain) and plain[0] == mentions[0] and _says_only(text, plain)
    if not says_only and not (plain and _concludes(text, plain[-1])):
        return Unreadable("unclear", _not_plain(choices.spelled[named[0]], text))
    ends_there = not text[plain[-1].end :].strip(SOFT)
    if cut and ends_there and named[0] in NEUTRAL:
        return Unreadable("cut_off", f"the answer was cut off at {choices.spelled[named[0]]}, in a sentence")
    return _cut_off(choices, named[0]) if cut and ends_there else _label(choices, named[0])


def _label(choices: Choices, key: str) -> Label:
    spelled = choices.spelled[key]
    return Label(spelled, spelled)


def _cut_off(choices: Choices, key: str) -> Label | Unreadable:
    """The label, unless the answer was cut at what could have become another choice."""
    for other in choices.starting[key[0]]:
        if other != key and other.startswith(key):
            found, possible = choices.spelled[key], choices.spelled[other]
            return Unreadable("cut_off", f"the answer was cut off at {found}: it may have become {possible}")
    return _label(choices, key)


def _mentions(choices: Choices, text: str) -> list[_Mention]:
    """Choices as whole words, the longest at each place, without those inside a longer one."""
    mentions: list[_Mention] = []
    for start, character in enumerate(text):
        for key in choices.starting.get(character, ()):
            end = start + len(key)
            if text.startswith(key, start) and _is_whole(text, start, end):
                if not mentions or end > mentions[-1].end:
                    mentions.append(_Mention(key, start, end))
                break
    return mentions


def _is_whole(text: str, start: int, end: int) -> bool:
    """Whether no word goes on over either end."""
    before = start > 0 and _in_word(text[start - 1]) and _in_word(text[start])
    after = end < len(text) and _in_word(text[end]) and _in_word(text[end - 1])
    return not before and not after


def _in_word(character: str) -> bool:
    """Letters and digits, and the vowel signs and accents of scripts that write them on their own."""
    return character.isalnum() or unicodedata.category(character)[0] == "M"


def _stands_alone(text: str, mention: _Mention) -> bool:
    """Whether nothing touches the mention that may make it another thing, as in "A+", "-1" or "1.5"."""
    before, after = text[: mention.start][-2:], text[mention.end : mention.end + 2]
    if before and (before[-1] not in SOFT or before[-1] in ")]}"):
        return False
    if after and (after[0] not in SOFT or after[0] in "([{"):
        return False
    joined_behind = len(after) == 2 and after[0] not in " \n" and _in_word(after[1])
    joined_before = len(before) == 2 and before[1] not in " \n:" and _in_word(before[0])
    number = mention.key[0].isdigit() and before[-1:] in (".", ",", ":") and before[:1] != " "
    # A choice such as "A" is an article where a word follows.
    word = mention.key in NEUTRAL and after[:1] == " " and _in_word(after[1:] or " ")
    return not joined_behind and not joined_before and not number and not word


def _says_only(text: str, plain: Sequence[_Mention]) -> bool:
    """Whether the text is its first mention, led in and explained by nothing that could change it."""
    first = plain[0]
    if not _leads_in(text[: first.start], first.key):
        return False
    rest = text[first.end :]
    return _adds_nothing(rest, plain[1:], first.end) or _explains(rest, first.key)


def _leads_in(before: str, key: str) -> bool:
    *lines, last = before.split("\n")
    if not all(map(_is_neutral, lines)):
        return False
    if key[0].isdigit() and last.rstrip().endswith(("-", ">", "+", "#")):
        return False  # "- 1" may be a number below zero
    if _is_neutral(last):
        return True
    name, colon, behind = last.rpartition(":") if ":" in last else last.rpartition("=")
    return bool(colon) and not behind.strip(SOFT + "->") and is_lead_in(_words(name))


def _is_neutral(line: str) -> bool:
    numbering = _NUMBERING.match(line)
    return NEUTRAL.issuperset(_words(line[numbering.end() :] if numbering else line))


def _words(text: str) -> list[str]:
    words = (word.strip("'") for word in _WORD.findall(text))
    return [word for word in words if word and not _MARK.fullmatch(word)]


def _adds_nothing(rest: str, again: Sequence[_Mention], offset: int) -> bool:
    """Whether behind the first mention there are neutral words, and the same choice again, alone."""
    for mention in reversed(again):
        rest = rest[: mention.start - offset] + " " + rest[mention.end - offset :]
    return "?" not in rest and "-" not in rest and NEUTRAL.issuperset(_words(rest))


def _explains(rest: str, key: str) -> bool:
    opening = _EXPLAINS.match(rest)
    if opening is None:
        return False
    explanation = rest[opening.end() :]
    if opening[0].endswith(":") and explanation.strip(SOFT)[:1].isdigit():
        return False  # a score of the label: it may be low
    if "?" in rest or not all(map(_is_latin, filter(str.isalpha, explanation))):
        return False
    doubts = [word for word in _words(explanation) if takes_back(word)]
    return not doubts or (takes_back(key.partition(" ")[0]) and all(map(negates, doubts)))


def _is_latin(character: str) -> bool:
    return character < "\u0250" or "\u1e00" <= character <= "\u1eff"


def _concludes(text: str, last: _Mention) -> bool:
    """Whether the last line gives the label in so many words: "Answer: x", "The label is x."."""
    start = text.rfind("\n", 0, last.start) + 1
    before, rest = text[start : last.start], text[last.end :]
    words = _words(before)
    announced = ":" in before or "is" in words or "=" in before
    return (
        announced
        and not ANSWERING.isdisjoint(words)
        and NEUTRAL.issuperset(words)
        and _leads_in(before, last.key)
        and not rest.strip(SOFT)
    )


def _names_several(choices: Sequence[str]) -> str:
    number = "two" if len(choices) == 2 else str(len(choices))
    more = ", ..." if len(choices) > 5 else ""
    return f"the answer names {number} of the choices: {', '.join(map(excerpt, choices[:5]))}{more}"


def _not_plain(choice: str, text: str) -> str:
    own = choice_key(choice).split()
    doubts = (word for word in _words(text) if takes_back(word) and word not in own)
    doubt = next(doubts, "?" if "?" in text else None)
    if doubt:
        return f'the answer names {excerpt(choice)}, but its "{excerpt(doubt)}" may take that back'
    return f"the answer names {excerpt(choice)} among other words, and may mean something else"
