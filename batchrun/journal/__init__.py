"""The journal: intents before requests are sent, attempts and answers after, in SQLite.

Everything that batchrun knows of the past is derived from it: spend, status, resume, the output.
"""

from batchrun.journal.records import Attempt, Intent, Outcome, RequestHistory, Spend, Totals
from batchrun.journal.storage import Journal, create_or_open, open_for_reading
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
