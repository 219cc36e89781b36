"""The state of a job that may be running. Its journal stays open, and only what is new in it is read."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from batchrun.amounts import NANO
from batchrun.clock import milliseconds
from batchrun.job.spec import Job, run_folder
from batchrun.journal import Journal
from batchrun.journal.follow import LEAST_MILLISECONDS, MOST_INTERVALS, Follower
from batchrun.journal.samples import samples_of
from batchrun.journal.timeline import FailureKind, RunRecord, failure_kinds, runs_of
from batchrun.rows.result import STATUSES
from batchrun.runs.adjust.record import in_force, made_in
from batchrun.runs.report import timeline
from batchrun.runs.report.course import course_of
from batchrun.runs.report.facts import RunFacts
from batchrun.runs.run_folder import RunFolder, open_journal_of
from batchrun.runs.status import read_status

Stamp = tuple[int, ...]
"""Changes with every commit to a journal."""


class Watch:
    """Looks at a job's journal again and again. `sandbox`: its runs with the sandbox, even if it has others.

    A look reads what has ended since the last one; none where nothing was written since a run's end.
    """

    def __init__(self, job: Job, *, sandbox: bool = False) -> None:
        self.sandbox = sandbox
        self._job = job
        self._only_sandbox = sandbox
        self._path = RunFolder(run_folder(job)).journal
        self._opened: _Opened | None = None
        self._seen: tuple[Stamp, RunFacts] | None = None

    def look(self) -> RunFacts | None:
        """Returns what is known now; None where nothing has been run. Raises JournalError, StorageError."""
        stamp = self.stamp()
        if stamp is None:
            self.close()
            return None
        if self._seen is not None and self._seen[0] == stamp and not self._seen[1].status["running"]:
            return self._seen[1]
        try:
            opened = self._open(stamp)
            self._seen = None if opened is None else (stamp, _facts(self._job, opened, self.sandbox))
        except BaseException:
            self.close()
            raise
        return None if self._seen is None else self._seen[1]

    def stamp(self) -> Stamp | None:
        """Returns what tells one state of the journal from another; None without a journal."""
        try:
            found = self._path.stat()
        except OSError:
            return None
        try:
            log = self._path.with_name(f"{self._path.name}-wal").stat()
        except OSError:
            return found.st_ino, found.st_mtime_ns, found.st_size
        return found.st_ino, found.st_mtime_ns, found.st_size, log.st_mtime_ns, log.st_size

    def close(self) -> None:
        if self._opened is not None:
            self._opened.journal.close()
        self._opened = self._seen = None

    def _open(self, stamp: Stamp) -> "_Opened | None":
        """Opens the journal again where it is another file, or another run has begun."""
        opened = self._opened
        if opened is not None and opened.file == stamp[0] and newest_run(opened.journal) == opened.newest:
            return opened
        self.close()
        journal = open_journal_of(self._job)
        self.sandbox = self._only_sandbox or journal.last_run(sandbox=False) is None
        if journal.last_run(self.sandbox) is None:
            journal.close()
            return None
        self._opened = _Opened(journal, stamp[0], runs_of(journal, self.sandbox), self.sandbox)
        return self._opened


class _Opened:
    """An open journal, and the follower of the run that is shown: the last one that has sent anything."""

    def __init__(self, journal: Journal, file: int, runs: Sequence[RunRecord], sandbox: bool) -> None:
        self.journal = journal
        self.file = file
        self.newest = newest_run(journal)
        shown = next((run for run in reversed(runs) if run.requests or run.finished_at is None), runs[-1])
        self.follower = Follower(journal, shown.run, shown.started_at, _width_of(shown))
        self.failures_before = failure_kinds(journal, sandbox, without=shown.run)
        self.usd_at_worst = 0.0

    def look(self) -> None:
        self.follower.look()
        in_flight = self.follower.open
        if in_flight:  # else that of the last ones is still the best guess
            self.usd_at_worst = sum(intent.nano_usd for intent in in_flight) / NANO / len(in_flight)


def newest_run(journal: Journal) -> int:
    """Returns the number of the newest run of any kind, 0 without one."""
    return max(0 if run is None else int(run["run"]) for run in map(journal.last_run, (False, True)))


def _width_of(run: RunRecord) -> int:
    width = LEAST_MILLISECONDS
    while milliseconds() - run.started_at > MOST_INTERVALS * width:
        width *= 2
    return width


def _facts(job: Job, opened: _Opened, sandbox: bool) -> RunFacts:
    follower, journal = opened.follower, opened.journal
    opened.look()
    status = read_status(job, journal, follower.answers_since, sandbox)
    runs = runs_of(journal, sandbox)
    shown = next(run for run in runs if run.run == follower.run)
    made = made_in(journal, follower.run)
    now = milliseconds()
    series = _timeline(follower, runs, shown, now if status["running"] else None)
    return RunFacts(
        job=job,
        sandbox=sandbox,
        made_at=now,
        status=status,
        rows=known_rows(status["rows"]),
        findings={"reasons": status["reasons"]},
        runs=runs,
        failures=_together(opened.failures_before, follower.failures()),
        next_step=status["last_run"]["next_step"],
        shown_run=shown,
        shown_job=in_force(job, made),
        adjustments=made,
        timeline=series,
        course=course_of(samples_of(journal, shown.run), series.ends),
        rows_of_run=shown.answered + sum(kind.final for kind in follower.failures()),
        usd_at_worst=opened.usd_at_worst,
    )


def known_rows(rows: dict[str, Any] | None) -> dict[str, int]:
    """Returns the counts of rows, 0 for what a run doesn't know yet."""
    return {name: (rows or {}).get(name) or 0 for name in ("total", *STATUSES, "shared")}


def _together(*parts: Sequence[FailureKind]) -> list[FailureKind]:
    attempts, final = Counter[str](), Counter[str]()
    examples: dict[str, str] = {}
    for kind in (kind for part in parts for kind in part):
        attempts[kind.error_code] += kind.attempts
        final[kind.error_code] += kind.final
        examples[kind.error_code] = kind.example
    return [FailureKind(code, n, final[code], examples[code]) for code, n in attempts.most_common()]


def _timeline(
    follower: Follower, runs: Sequence[RunRecord], shown: RunRecord, now: int | None
) -> timeline.Timeline:
    """Returns the series of the run up to `now`, or of one that has ended."""
    ended = follower.ended()
    if now is None:
        now = shown.finished_at or shown.started_at + follower.width * (
            1 + max((interval.number for interval in ended), default=0)
        )
    length = max(now - shown.started_at, 1)
    # Intervals of the chart are whole numbers of the follower's, and a second unless the run is short: a slow
    # run has answers in few shorter ones.
    least = max(length / timeline.MOST_INTERVALS, min(1_000, length / 20))
    together = max(1, math.ceil(least / follower.width))
    begun = Counter[int]()
    for number, attempts in follower.begun().items():
        begun[number // together] += attempts
    before = [run for run in runs if run.run < shown.run]
    return timeline.timeline(
        [interval._replace(number=interval.number // together) for interval in ended],
        begun,
        follower.width * together,
        length,
        (sum(run.nano_usd for run in before), sum(run.uncertain_nano_usd for run in before)),
    )
