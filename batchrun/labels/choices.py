"""Reads answers that name one of the job's choices.

The rule: an answer has a label where it names exactly one choice, and where the rest of its text can't change
that. Mentions are found as whole words; "not good" is one mention where it is a choice itself, and "not"
beside "good" where it isn't. These may surround the mention:

- marks that touch nothing (`folding.SOFT`), bullets and headings;
- words that change nothing (`words.NEUTRAL`), or a name of up to three words before a colon;
- behind it, set off by a mark, an explanation in Latin letters without denial, doubt or a question;
- before it, anything at all, if the last line says plainly that it gives the label ("Final answer: x").

Everything else is unreadable.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from batchrun.labels.label import InvalidLabel, Label, excerpt
from batchrun.labels.normalize import SOFT, choice_key, folded
from batchrun.labels.sentence import adds_nothing, concludes, explains, leads_in, words
from batchrun.labels.unwrap import MOST_CHARACTERS, too_long, without_markup, without_thinking
from batchrun.labels.word_lists import NEUTRAL, takes_back


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
    """Prepares the choices for the search; their keys differ (`batchrun.job.labels` checks that)."""
    spelled = {choice_key(choice): choice for choice in choices}
    starting: dict[str, list[str]] = {}
    for key in sorted(spelled, key=len, reverse=True):
        starting.setdefault(key[0], []).append(key)
    return Choices(spelled, starting)


def read_choice(choices: Choices, text: str, truncated: bool) -> Label | InvalidLabel:
    """Returns the choice that the answer `text` names; `truncated`: it ended at max_tokens."""
    answer = without_thinking(text)
    if not answer.strip():
        return InvalidLabel("empty", "the answer is empty")
    if len(answer) > MOST_CHARACTERS:
        return InvalidLabel("too_long", too_long(answer))
    key = choice_key(answer)
    if key in choices.spelled:
        return _cut_off(choices, key) if truncated else _label(choices, key)
    return _read_sentence(choices, folded(without_markup(answer, choices.spelled)), truncated)


def _read_sentence(choices: Choices, text: str, truncated: bool) -> Label | InvalidLabel:
    mentions = _mentions(choices, text.replace("\n", " "))
    named = list(dict.fromkeys(mention.key for mention in mentions))
    if not named:
        return InvalidLabel("no_choice", "the answer names none of the choices")
    if len(named) > 1:
        return InvalidLabel("two_choices", _names_several([choices.spelled[key] for key in named]))
    plain = [mention for mention in mentions if _stands_alone(text, mention)]
    says_only = bool(plain) and plain[0] == mentions[0] and _says_only(text, plain)
    if not says_only and not (plain and _concludes(text, plain[-1])):
        return InvalidLabel("unclear", _not_plain(choices.spelled[named[0]], text))
    ends_there = not text[plain[-1].end :].strip(SOFT)
    if truncated and ends_there and named[0] in NEUTRAL:
        return InvalidLabel(
            "cut_off", f"the answer was cut off at {choices.spelled[named[0]]}, in a sentence"
        )
    return _cut_off(choices, named[0]) if truncated and ends_there else _label(choices, named[0])


def _label(choices: Choices, key: str) -> Label:
    spelled = choices.spelled[key]
    return Label(spelled, spelled)


def _cut_off(choices: Choices, key: str) -> Label | InvalidLabel:
    """Returns the label, unless the answer was cut where it could have become another choice."""
    for other in choices.starting[key[0]]:
        if other != key and other.startswith(key):
            found, possible = choices.spelled[key], choices.spelled[other]
            return InvalidLabel(
                "cut_off", f"the answer was cut off at {found}: it may have become {possible}"
            )
    return _label(choices, key)


def _mentions(choices: Choices, text: str) -> list[_Mention]:
    """Returns choices found as whole words, the longest at each place, without ones inside a longer one."""
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
    """Whether no word continues across either end."""
    before = start > 0 and _in_word(text[start - 1]) and _in_word(text[start])
    after = end < len(text) and _in_word(text[end]) and _in_word(text[end - 1])
    return not before and not after


def _in_word(character: str) -> bool:
    """Letters and digits, and the vowel signs and accents of scripts that write them on their own."""
    return character.isalnum() or unicodedata.category(character)[0] == "M"


def _stands_alone(text: str, mention: _Mention) -> bool:
    """Whether nothing touches the mention that may change its meaning, as in "A+", "-1" or "1.5"."""
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
    """Whether the text is its first mention, with no lead-in or explanation that could change it."""
    first = plain[0]
    if not leads_in(text[: first.start], first.key):
        return False
    return adds_nothing(_without(text, plain[1:], first.end)) or explains(text[first.end :], first.key)


def _without(text: str, mentions: Sequence[_Mention], begin: int) -> str:
    """Returns the text from `begin` on, with blanks for the mentions."""
    parts = []
    for mention in mentions:
        parts.append(text[begin : mention.start])
        begin = mention.end
    return " ".join([*parts, text[begin:]])


def _concludes(text: str, last: _Mention) -> bool:
    start = text.rfind("\n", 0, last.start) + 1
    return concludes(text[start : last.start], text[last.end :], last.key)


def _names_several(choices: Sequence[str]) -> str:
    number = "two" if len(choices) == 2 else str(len(choices))
    more = ", ..." if len(choices) > 5 else ""
    return f"the answer names {number} of the choices: {', '.join(map(excerpt, choices[:5]))}{more}"


def _not_plain(choice: str, text: str) -> str:
    own = choice_key(choice).split()
    doubts = (word for word in words(text) if takes_back(word) and word not in own)
    doubt = next(doubts, "?" if "?" in text else None)
    if doubt:
        return f'the answer names {excerpt(choice)}, but its "{excerpt(doubt)}" may take that back'
    return f"the answer names {excerpt(choice)} among other words, and may mean something else"
