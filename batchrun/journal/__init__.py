"""The journal, in SQLite: intents before requests are sent, attempts and responses afterwards.

Everything that batchrun knows about the past is derived from it: spend, status, resume, the output.
"""

from batchrun.journal.journal import Journal
from batchrun.journal.opening import create_or_open, open_for_reading
from batchrun.journal.records import Attempt, Intent, Outcome, RequestHistory, Spend, Totals
from batchrun.journal.writer import JournalWriter

__all__ = [
    "Attempt",
    "Intent",
    "Journal",
    "JournalWriter",
    "Outcome",
    "RequestHistory",
    "Spend",
    "Totals",
    "create_or_open",
    "open_for_reading",
]
