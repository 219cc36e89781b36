"""One key's cache of prompts: which parts of a prompt are read from it, and which are written to it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Lifetime = Literal["5m", "1h"]

SECONDS = {"5m": 300, "1h": 3600}

MOST_ENTRIES = 10_000


@dataclass(frozen=True, slots=True)
class CacheMark:
    """A place in a prompt up to which it is to be cached.

    `prefix` is a digest of all that comes before it, `tokens` the number of tokens there.
    """

    prefix: bytes
    tokens: int
    lifetime: Lifetime


@dataclass(frozen=True, slots=True)
class CacheUse:
    """Input tokens of one request: read from the cache, and written to it for 5 minutes or for an hour."""

    read: int = 0
    write_5m: int = 0
    write_1h: int = 0

    @property
    def write(self) -> int:
        return self.write_5m + self.write_1h


NO_CACHE = CacheUse()


@dataclass(slots=True)
class _Entry:
    """A cached prefix, from one instant of the monotonic clock to another."""

    begins: float
    ends: float


class PromptCache:
    """The newest `MOST_ENTRIES` prefixes."""

    def __init__(self) -> None:
        self._entries: dict[bytes, _Entry] = {}

    def look_up(self, marks: Sequence[CacheMark], now: float) -> CacheUse:
        """What a request with these marks, in their order, reads and writes at an instant.

        It reads up to the last mark that is cached. What lies before each later one is written for the
        lifetime of that mark.
        """
        cached = [n for n, mark in enumerate(marks) if self._is_live(mark, now)]
        behind = cached[-1] + 1 if cached else 0
        read = at = marks[behind - 1].tokens if behind else 0
        written = {"5m": 0, "1h": 0}
        for mark in marks[behind:]:
            written[mark.lifetime] += mark.tokens - at
            at = mark.tokens
        return CacheUse(read, written["5m"], written["1h"])

    def keep(self, marks: Sequence[CacheMark], now: float, begins: float) -> None:
        """Caches all that the marks of a request name, once its response begins; a read makes it last."""
        for mark in marks:
            ends = begins + SECONDS[mark.lifetime]
            known = self._entries.pop(mark.prefix, None)
            if known is not None and now < known.ends:
                self._entries[mark.prefix] = _Entry(min(known.begins, begins), max(known.ends, ends))
            else:
                self._entries[mark.prefix] = _Entry(begins, ends)
        while len(self._entries) > MOST_ENTRIES:
            del self._entries[next(iter(self._entries))]

    def _is_live(self, mark: CacheMark, now: float) -> bool:
        entry = self._entries.get(mark.prefix)
        return entry is not None and entry.begins <= now < entry.ends
