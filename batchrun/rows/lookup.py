"""Looks up requests of rows in input order: most were sent in that order, and are found page by page."""

from collections.abc import Collection

from batchrun.journal import Journal, RequestHistory
from batchrun.journal.answers import AnswerPage, answers_after, repeated_requests

LOOKED_UP_AT_ONCE = 4_096
"""Digests in one query: SQLite takes 32,766 question marks."""
_ANSWERS_IN_A_PAGE = 1_024
_MOST_REPEATED = 100_000
"""Digests of requests that were sent more than once: with more of them nothing is read by pages."""
_NO_PAGE = AnswerPage({}, 0)


def look_up(journal: Journal, digests: Collection[bytes]) -> dict[bytes, RequestHistory]:
    """Returns the history of each request; unsent ones are left out. Raises JournalError."""
    wanted = tuple(digests)
    found: dict[bytes, RequestHistory] = {}
    for start in range(0, len(wanted), LOOKED_UP_AT_ONCE):
        found |= journal.histories(wanted[start : start + LOOKED_UP_AT_ONCE])
    return found


class PagedLookup:
    """Looks up the requests of one pass over the rows.

    Two pages of answers are in memory. Requests that are in neither are looked up by their digests, and
    where most of a chunk's are, the next page begins behind them. It is read only if they lie together: in
    a random order pages would be read in vain.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._repeated = repeated_requests(journal, _MOST_REPEATED)
        self._in_order = self._repeated is not None
        self._older = self._newer = _NO_PAGE

    def find(self, digests: Collection[bytes]) -> dict[bytes, RequestHistory]:
        """Returns the history of each request; unsent ones are left out. Raises JournalError."""
        wanted = set(digests)
        found = self._in_pages(wanted)
        if self._in_order and 8 * (len(wanted) - len(found)) > len(wanted):
            self._turn_page()
            found = self._in_pages(wanted)
        others = look_up(self._journal, wanted - found.keys())
        if 2 * len(others) > len(wanted):
            self._go_on_behind(others)
        return found | others

    def _in_pages(self, wanted: set[bytes]) -> dict[bytes, RequestHistory]:
        older, newer = self._older.histories, self._newer.histories
        found = {digest: newer[digest] for digest in wanted & newer.keys()}
        if len(found) < len(wanted):
            found |= {digest: older[digest] for digest in wanted & older.keys()}
        return found

    def _turn_page(self) -> None:
        if self._repeated is not None:
            self._older = self._newer
            last = self._newer.last
            self._newer = answers_after(self._journal, last, _ANSWERS_IN_A_PAGE, self._repeated)

    def _go_on_behind(self, found: dict[bytes, RequestHistory]) -> None:
        attempts = [history.first for history in found.values()]
        last = max(attempts)
        self._in_order = self._repeated is not None and last - min(attempts) < 4 * len(attempts)
        self._older, self._newer = _NO_PAGE, AnswerPage({}, last)
