"""Makes the sandbox's replies: scripted ones from a file, else words drawn by the request's digest."""

import hashlib
import math
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import regex
from msgspec import Meta, Struct

from batchrun.sandbox.errors import SettingsError
from batchrun.sandbox.faults import KINDS, RATE_LIMITED_AT_RANDOM

EXAMPLE_PROMPT = "Write one sentence about Stonehenge."
EXAMPLE_ANSWER = (
    "Stonehenge is a prehistoric monument in Wiltshire, England, consisting of a ring of standing stones "
    "dating back to around 3000 BCE."
)
"""The example of the provider's reference page, answered as the page does."""

_WORD_LIST = """
the a this that river window paper garden signal harbor letter winter copper basket engine mirror quiet
early narrow steady bright hollow gentle common distant honest sudden plain keeps holds turns carries
follows answers shows leaves begins meets needs finds near under beyond against between without slowly
often again today and but while because market bridge kitchen number season teacher question record
"""
_WORDS = _WORD_LIST.split()
_WORDS_PER_SENTENCE = 9
_REFERENCE = re.compile(r"\{(\w+)\}")
MOST_SECONDS = 0.25
FAULT_KINDS = tuple(kind for kind in KINDS if kind != RATE_LIMITED_AT_RANDOM)


class Choice(Struct, forbid_unknown_fields=True):
    text: str
    probability: Annotated[float, Meta(ge=0, le=1)] | None = None


class Entry(Struct, forbid_unknown_fields=True):
    """One `[[reply]]` of the file."""

    pattern: str
    text: str | None = None
    choices: list[Choice] | None = None
    fault: str | None = None
    system: str | None = None


class ReplyFile(Struct, forbid_unknown_fields=True):
    reply: list[Entry]


@dataclass(frozen=True, slots=True)
class Reply:
    """A scripted reply: it is for prompts that `pattern` (and `system`) are found in; `weights` sum to 1.

    Requests for one with a `fault` always meet it; their texts, where it is billed, are drawn words.
    """

    pattern: regex.Pattern[str]
    system: regex.Pattern[str] | None
    texts: list[str]
    weights: list[float]
    fault: str | None = None

    def is_for(self, system: str, prompt: str) -> regex.Match[str] | None:
        if self.system is not None and not _search(self.system, system):
            return None
        return _search(self.pattern, prompt)


def load_replies(path: str | Path) -> list[Reply]:
    """The replies of a TOML file, in its order. Raises SettingsError, which names the entry."""
    try:
        document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        entries = msgspec.convert(document, ReplyFile).reply
    except OSError as error:
        raise SettingsError(f"reply file {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"reply file {path} is not valid TOML: {error}") from None
    except msgspec.ValidationError as error:
        raise SettingsError(f"reply file {path}: {_entry_named(error)}") from None
    return [_reply(entry, f"reply file {path}: [[reply]] number {n}") for n, entry in enumerate(entries, 1)]


def _entry_named(error: msgspec.ValidationError) -> str:
    """msgspec's `$.reply[0].text` with the entry's number as a person counts."""
    what, _, path = str(error).partition(" - at `$.reply[")
    index, _, field = path.rstrip("`").partition("]")
    return f"[[reply]] number {int(index) + 1}{field}: {what}" if index.isdecimal() else what


def _reply(entry: Entry, where: str) -> Reply:
    choices = _choices(entry, where)
    pattern = _compiled(entry.pattern, f"{where}: pattern")
    for choice in choices:
        _check_references(choice.text, pattern, where)
    return Reply(
        pattern=pattern,
        system=None if entry.system is None else _compiled(entry.system, f"{where}: system"),
        texts=[choice.text for choice in choices],
        weights=_weights(choices, where) if choices else [],
        fault=entry.fault,
    )


def _choices(entry: Entry, where: str) -> list[Choice]:
    if sum(given is not None for given in (entry.text, entry.choices, entry.fault)) != 1:
        raise SettingsError(f"{where}: give one of text, choices and fault")
    if entry.fault is not None:
        if entry.fault not in FAULT_KINDS:
            raise SettingsError(
                f"{where}: unknown fault {entry.fault!r}; the kinds are {', '.join(FAULT_KINDS)}"
            )
        return []
    choices = [Choice(entry.text)] if entry.text is not None else entry.choices
    if not choices or not all(choice.text.strip() for choice in choices):
        raise SettingsError(f"{where}: there must be a text, and none may be empty")
    return choices


def _compiled(expression: str, where: str) -> regex.Pattern[str]:
    try:
        return regex.compile(expression)
    except (regex.error, RecursionError, OverflowError) as error:
        raise SettingsError(f"{where} {expression!r} is not a regular expression: {error}") from None


def _check_references(text: str, pattern: regex.Pattern[str], where: str) -> None:
    for name in _REFERENCE.findall(text):
        if name.isdecimal() and int(name) > pattern.groups:
            raise SettingsError(f"{where}: {{{name}}} has no group; the pattern has {pattern.groups}")


def _weights(choices: Sequence[Choice], where: str) -> list[float]:
    """Choices without a probability share equally what the others leave."""
    given = [choice.probability for choice in choices if choice.probability is not None]
    unnamed = len(choices) - len(given)
    rest = 1 - sum(given)
    if rest < -1e-9 or (not unnamed and rest > 1e-9):
        raise SettingsError(f"{where}: the probabilities must sum to 1, not {sum(given):g}")
    share = max(rest, 0.0) / unnamed if unnamed else 0.0
    return [share if choice.probability is None else choice.probability for choice in choices]


class Repetitions:
    """How often each request has been answered, for those that a model would answer again each time.

    Of the requests that were answered last, at most `most` are known.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._times: dict[bytes, int] = {}

    def draw(self, digest: bytes) -> bytes:
        """What the next answer to the request `digest` is drawn by: at first the digest itself."""
        times = self._times.pop(digest, 0)
        self._times[digest] = times + 1
        if len(self._times) > self._most:
            del self._times[next(iter(self._times))]
        return hashlib.sha256(digest + times.to_bytes(8, "big")).digest() if times else digest


def reply_text(
    replies: Sequence[Reply], system: str, prompt: str, digest: bytes, answers: Sequence[str] = ()
) -> str:
    """The answer to `prompt`, the last user text; the same `digest` always gets the same one.

    Where no reply is for the prompt it is one of the `answers`, or drawn words where there are none.
    """
    for reply in replies:
        if found := reply.is_for(system, prompt):
            if reply.fault is not None:
                break
            return _expanded(_chosen(reply, digest), found)
    if answers:
        return answers[int.from_bytes(digest[:8], "big") % len(answers)]
    return EXAMPLE_ANSWER if prompt == EXAMPLE_PROMPT else _drawn_words(digest)


def scripted_fault(replies: Sequence[Reply], system: str, prompt: str) -> str | None:
    """Returns the fault of the first reply for `prompt`, None if that is a text."""
    return next((reply.fault for reply in replies if reply.is_for(system, prompt)), None)


def _search(pattern: regex.Pattern[str], text: str) -> regex.Match[str] | None:
    """Searches with a time-out, since the text is arbitrary: a longer search counts as no match."""
    try:
        return pattern.search(text, timeout=MOST_SECONDS)
    except TimeoutError:
        return None


def _chosen(reply: Reply, digest: bytes) -> str:
    point = int.from_bytes(digest[:8], "big") / 2**64
    for text, weight in zip(reply.texts, reply.weights, strict=True):
        point -= weight
        if point < 0:
            return text
    # Rounding may leave a sliver above the last weight; a choice of probability 0 must not get it.
    return max(zip(reply.weights, reply.texts, strict=True))[1]


def _expanded(text: str, found: regex.Match[str]) -> str:
    """`{1}` and `{name}` stand for groups of the pattern; other braces are left alone, for JSON."""

    def group(reference: re.Match[str]) -> str:
        name = reference[1]
        if name.isdecimal():
            return found[int(name)] or ""
        return (found[name] or "") if name in found.re.groupindex else reference[0]

    return _REFERENCE.sub(group, text)


def _drawn_words(digest: bytes) -> str:
    """6 to 53 words in sentences of at most nine."""
    count = 6 + digest[0] % 48
    draws = hashlib.shake_128(digest).digest(count)
    words = [_WORDS[draw % len(_WORDS)] for draw in draws]
    size = math.ceil(count / math.ceil(count / _WORDS_PER_SENTENCE))
    sentences = (" ".join(words[start : start + size]) for start in range(0, count, size))
    return " ".join(f"{sentence.capitalize()}." for sentence in sentences)
