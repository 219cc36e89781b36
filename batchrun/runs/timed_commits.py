"""Notes for the display since when a commit of the journal is being written."""

import time
from collections.abc import Callable, Sequence

from batchrun.journal import Journal
from batchrun.journal.commits import Record
from batchrun.journal.writer import CommitsSomewhere, OpenCommits
from batchrun.runs.observers.progress import Progress


def timed(open_commits: OpenCommits, progress: Progress) -> OpenCommits:
    """Returns what opens the same commits, whose times `progress` has."""

    def opened(journal: Journal, lost: Callable[[], object]) -> CommitsSomewhere:
        return _TimedCommits(open_commits(journal, lost), progress)

    return opened


class _TimedCommits:
    def __init__(self, commits: CommitsSomewhere, progress: Progress) -> None:
        self.process = commits.process
        self.index_digests, self.give_up, self.close = commits.index_digests, commits.give_up, commits.close
        self._commits = commits
        self._progress = progress

    def write(self, batch: Sequence[Record], row_counts: tuple[str, int] | None) -> frozenset[int]:
        self._progress.commit = (time.monotonic(), self.process)
        try:
            return self._commits.write(batch, row_counts)
        finally:
            self._progress.commit = None
