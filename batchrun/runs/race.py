"""A race: several jobs over the same rows, in turns under one cap, until it is known which one is best."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from shlex import quote
from typing import TYPE_CHECKING, Any, cast

import msgspec

from batchrun.amounts import usd, usd_text
from batchrun.client.server import Server
from batchrun.engine.shutdown import ShutdownRequest, handling_signals
from batchrun.errors import EXIT_DONE, UsageError
from batchrun.job.spec import Job, asks_in_random_order, run_folder
from batchrun.journal import Journal, open_for_reading
from batchrun.rows.chunks import Chunk
from batchrun.rows.dataset import Dataset, open_dataset
from batchrun.rows.history import row_histories_by_digest
from batchrun.runs.begin import RowSubset
from batchrun.runs.observers.race_view import RaceView
from batchrun.runs.observers.view import MakeObserver
from batchrun.runs.paths import check_paths
from batchrun.runs.run import run_job
from batchrun.runs.run_folder import RunFolder, has_journal, make_run_folder
from batchrun.runs.run_lock import locked
from batchrun.runs.status import RACE
from batchrun.runs.summary import Summary
from batchrun.tables.python_rows import expected_value

if TYPE_CHECKING:
    from batchrun.client.builder import InvalidRow
    from batchrun.evaluation.elimination import Elimination
    from batchrun.evaluation.frame import SamplingFrame
    from batchrun.evaluation.race_report import Entry
    from batchrun.evaluation.sample import SampleTally

LEAST_ROWS = 20
"""Rows of the first rounds. Later ones have a quarter of the rows so far: each reads the whole journal."""


@dataclass(frozen=True)
class Candidate:
    """`name` is its name for people, and `server` where its rows go."""

    name: str
    job: Job
    server: Server


@dataclass
class _Race:
    """`stop` is the summary of the run that ended the race before it was decided."""

    candidates: Sequence[Candidate]
    datasets: Sequence[Dataset]
    frame: "SamplingFrame"
    elimination: "Elimination"
    nano_usd: int
    view: RaceView
    entries: "list[Entry]" = field(default_factory=list)
    stop: Summary | None = None

    @property
    def left(self) -> list[int]:
        worse = self.elimination.worse()
        return [place for place in range(len(self.candidates)) if place not in worse]

    @property
    def sent(self) -> int:
        """Returns the rows with an expected value that each candidate that is left has been sent."""
        return min((self.entries[place].tally.sent() for place in self.left), default=0)

    @property
    def is_over(self) -> bool:
        return len(self.left) < 2 or self.sent == self.frame.population


def race_jobs(
    candidates: Sequence[Candidate],
    nano_usd: int,
    *,
    tell: Callable[[str], object] = lambda _: None,
    view: RaceView | None = None,
    shutdown: ShutdownRequest | None = None,
) -> dict[str, Any]:
    """Sends the same rows for each candidate, in the random order of their evaluations; returns the report.

    Rows without an expected value decide nothing, and are not sent. A candidate that is worse than another
    one with 95 % certainty gets no more rows. `nano_usd` is a cap on the lives of all candidates' journals
    together, whatever has spent from them; each job's own caps hold, too. The answers are in the jobs'
    journals: the same call, and a run of a candidate, go on from there. `tell` gets a line before each
    candidate's rows of a round, and one after the round; `view` has what is known meanwhile. The report has
    `exit_code`, `reason` and `next_step` as a summary does. Raises what `run_job` raises, and UsageError if
    the jobs don't evaluate the same rows.
    """
    from batchrun.evaluation.elimination import Elimination
    from batchrun.evaluation.frame import evaluation_of
    from batchrun.evaluation.race_report import standings

    datasets = _checked(candidates)
    frame = _common_frame(candidates, datasets)
    elimination = Elimination(frame, evaluation_of(datasets[0]), len(candidates))
    race = _Race(candidates, datasets, frame, elimination, nano_usd, view or RaceView())
    _look(race)
    race.view.begun(frame.population, nano_usd, standings(race.entries, race.elimination))
    with handling_signals(shutdown) as heard:
        while not race.is_over and race.stop is None:
            before = race.sent
            told = _round_line(race)
            _send_round(race, heard, tell)
            with _holding(race.candidates):
                _look(race)
            race.view.looked(standings(race.entries, race.elimination))
            if (line := _round_line(race)) != told:
                tell(line)
            if race.stop is None and race.sent == before and not race.is_over:
                raise RuntimeError("a round has sent nothing")  # it would go on for ever
    return _report(race)


def _checked(candidates: Sequence[Candidate]) -> list[Dataset]:
    if len(candidates) < 2:
        raise UsageError("A race takes two jobs at least: batchrun race A.toml B.toml --usd 5")
    folders = [run_folder(each.job) for each in candidates]
    for place, (candidate, folder) in enumerate(zip(candidates, folders, strict=True)):
        if folder in folders[:place]:
            other = candidates[folders.index(folder)].name
            raise UsageError(
                f"{other} and {candidate.name} have the same output.path: each needs one of its own."
            )
        _check_evaluation(candidate)
        check_paths(candidate.job)
    return [open_dataset(each.job, sandbox=each.server.sandbox) for each in candidates]


def _check_evaluation(candidate: Candidate) -> None:
    evaluation = candidate.job.evaluation
    if evaluation is None:
        raise UsageError(
            f"{candidate.name} has no [evaluation]. Name there the column of right answers, and how answers "
            'are scored:\n[evaluation] expected = "gold", metric = "exact"'
        )
    if evaluation.stratify is not None:
        raise UsageError(
            f"{candidate.name}: no valid way to give a candidate up early is known to batchrun for a "
            "stratified sample.\nLeave evaluation.stratify out: --set evaluation.stratify=null"
        )
    if not asks_in_random_order(candidate.job):
        raise UsageError(
            f"{candidate.name}: rows in the input's order are not a random sample.\n"
            'Leave output.order = "input" out.'
        )
    if evaluation.target == "population":
        raise UsageError(
            f"{candidate.name}: a race decides about the rows of this table; leave "
            'evaluation.target = "population" out'
        )


def _common_frame(candidates: Sequence[Candidate], datasets: Sequence[Dataset]) -> "SamplingFrame":
    """Returns the frame that all have. Raises UsageError where one has another."""
    import numpy as np

    from batchrun.evaluation.frame import sampling_frame

    first, *others = (sampling_frame(each) for each in datasets)
    names = [each.metric.name for each in datasets if each.metric is not None]
    for place, frame in enumerate(others, start=1):
        a, b = candidates[0].name, candidates[place].name
        if frame.order.size != first.order.size:
            sizes = f"{first.order.size:,} and {frame.order.size:,} rows"
            raise UsageError(f"{a} and {b} have different inputs: {sizes}.\nRace jobs over the same table.")
        if names[place] != names[0]:
            raise UsageError(f"{a} and {b} have different metrics: {names[0]} and {names[place]}.")
        if not np.array_equal(frame.scorable, first.scorable):
            raise UsageError(f"{a} and {b} have expected values for different rows: evaluation.expected.")
        if not np.array_equal(frame.order, first.order):
            raise UsageError(
                f"{a} and {b} ask in different orders.\n"
                "Give them the same output.seed and evaluation.cluster."
            )
    if not first.population:
        raise UsageError(f"{candidates[0].name}: no row has an expected value: evaluation.expected.")
    return first


# Rounds.


def _look(race: _Race) -> None:
    """Reads what the journals have."""
    pairs = zip(race.candidates, race.datasets, strict=True)
    race.entries = [_entry(candidate, dataset, race.frame) for candidate, dataset in pairs]
    race.elimination.feed([entry.sample.scores for entry in race.entries])


def _entry(candidate: Candidate, dataset: Dataset, frame: "SamplingFrame") -> "Entry":
    from batchrun.evaluation.frame import evaluation_of
    from batchrun.evaluation.race_report import Entry
    from batchrun.evaluation.sample import SampleTally

    if dataset.metric is None:
        raise ValueError("the job has no evaluation")
    folder = RunFolder(run_folder(candidate.job))
    tally = SampleTally(frame, dataset.metric, classes=False, ended_only=True)
    if has_journal(folder):
        with closing(open_for_reading(folder.journal)) as journal:
            seen = set[bytes]()
            for chunk in dataset.chunks([evaluation_of(dataset).expected], journal):
                _add_sent(tally, dataset, chunk, journal, seen)
    return Entry(candidate.name, dataset, tally, tally.sample(), _spent(candidate))


def _add_sent(
    tally: "SampleTally", dataset: Dataset, chunk: Chunk, journal: Journal, seen: set[bytes]
) -> None:
    """Adds the chunk's rows. A race sends few of many: only those that the journal knows are looked at."""
    from batchrun.evaluation.frame import evaluation_of

    sent = set(journal.histories(list(set(chunk.sendable_digests))))
    records = row_histories_by_digest(
        sent, lambda: [each for each in chunk.sendable if each.digest in sent], journal, dataset.labelling
    )
    cells = dataset.table.template_values(evaluation_of(dataset).expected, chunk.cells) if records else []
    for place, digest in enumerate(chunk.digests):
        if digest is None:
            tally.add(cast("InvalidRow", chunk.requests[place]), None, duplicate=False)
        elif (record := records.get(digest)) is None:
            tally.add(None, None, duplicate=False)
        else:
            tally.add(record, expected_value(cells[place]), digest in seen)
            seen.add(digest)


def _send_round(race: _Race, shutdown: ShutdownRequest, tell: Callable[[str], object]) -> None:
    """Sends the next rows for each candidate that is left; notes why the race stops, if it does."""
    left, target = race.left, _target(race)
    race.view.rounds += 1
    rows = race.frame.scorable_order[:target].tolist()
    for place in left:
        if (sent := race.entries[place].tally.sent()) < target:
            count = f"{target - sent:,} row{'s' if target - sent > 1 else ''}"
            tell(f"round {race.view.rounds}: {count} for {race.candidates[place].name} ...")
            summary = _sent(race, place, rows, race.view.turn_of(place, target - sent), shutdown)
            if summary["exit_code"] != EXIT_DONE:
                race.stop = summary
                return


def _target(race: _Race) -> int:
    """Returns how many rows each candidate that is left has been sent after the next round.

    The last rounds have half of the rows that the rest of the cap buys, since a row needs its worst case to
    begin: so all of them have nearly the same rows in the end.
    """
    sent, samples = race.sent, [race.entries[place].sample for place in race.left]
    rows = max(LEAST_ROWS, sent // 4)
    a_row_of_each = sum(float(each.costs.mean()) for each in samples if each.costs.size)
    if a_row_of_each:
        bought = (race.nano_usd - sum(map(_spent, race.candidates))) / a_row_of_each
        rows = min(rows, max(1, int(bought / 2)))
    return min(sent + rows, race.frame.population)


def _sent(
    race: _Race, place: int, rows: Sequence[int], observer: MakeObserver, shutdown: ShutdownRequest
) -> Summary:
    """Sends rows for a candidate, which may spend for its life what the others leave of the cap.

    Nobody can spend from the others' journals meanwhile.
    """
    from batchrun.evaluation.frame import sampling_plan

    candidate = race.candidates[place]
    others = [other for other in race.candidates if other is not candidate]
    with _holding(others):
        left = max(0, race.nano_usd - sum(map(_spent, others)))
        own = candidate.job.budget.nano_usd
        is_ours = own is None or own > left
        job = _with_cap(candidate.job, left) if is_ours else candidate.job
        plan = sampling_plan(race.datasets[place], race.frame)
        part = RowSubset(rows, msgspec.json.encode(plan | {"drawn": RACE}).decode(), holds_usd=True)
        summary = run_job(job, candidate.server, part=part, observers=(observer,), shutdown=shutdown)
    reason = summary["reason"]
    if is_ours and _AT_OUR_CAP.match(reason):
        return summary | {
            "reason": reason.replace("budget.usd", "--usd", 1),
            "next_step": "raise --usd, then run the same command",
        }
    return summary | {"reason": f"{candidate.name}: {reason}"}


_AT_OUR_CAP = re.compile(r"Stopped at the cap budget\.usd\b")


@contextmanager
def _holding(candidates: Sequence[Candidate]) -> Iterator[None]:
    """Keeps every other run of these candidates away. Raises LockedError."""
    with ExitStack() as held:
        for each in candidates:
            held.enter_context(locked(make_run_folder(run_folder(each.job))))
        yield


def _with_cap(job: Job, nano_usd: int) -> Job:
    budget = msgspec.structs.replace(job.budget, usd=Decimal(nano_usd).scaleb(-9))
    return msgspec.structs.replace(job, budget=budget)


def _spent(candidate: Candidate) -> int:
    """Returns what a journal has spent, in nano-USD, with what a killed run may have."""
    folder = RunFolder(run_folder(candidate.job))
    if not has_journal(folder):
        return 0
    with closing(open_for_reading(folder.journal)) as journal:
        life = journal.totals(candidate.server.sandbox)
    return life.spend.committed.nano_usd + life.open.nano_usd


# What is told.


def _round_line(race: _Race) -> str:
    left = [race.entries[place] for place in race.left]
    spent = sum(entry.nano_usd for entry in race.entries)
    scores = ", ".join(f"{entry.name} {_mean(entry)}" for entry in left)
    return f"scores so far: {scores}; {usd_text(spent)} of {usd_text(race.nano_usd)} spent"


def _mean(entry: "Entry") -> str:
    from batchrun.evaluation.race_report import mean_score

    mean, rows = mean_score(entry)
    return "- (rows: 0)" if mean is None else f"{mean:.3f} (rows: {rows:,})"


def _next_step(race: _Race, best: str | None) -> str | None:
    if best is None:
        return None
    has_unsent = any(each.tally.unsent() for each in race.entries if each.name == best)
    return f"batchrun run {quote(best)} {'sends the other rows' if has_unsent else 'writes its output'}"


def _report(race: _Race) -> dict[str, Any]:
    from batchrun.evaluation.race_report import race_report

    report = race_report(race.entries, race.elimination)
    best = report["best"]
    if race.stop is not None and not race.is_over:
        code, reason, next_step = (race.stop[key] for key in ("exit_code", "reason", "next_step"))
    else:
        code, next_step = EXIT_DONE, _next_step(race, best)
        every = "All rows" if not report["not_scorable"] else "All rows with an expected answer"
        reason = f"{every} were sent." if best is None else "It is decided."
    sandbox = race.candidates[0].server.sandbox
    spent = {"spent": usd(sum(entry.nano_usd for entry in race.entries)), "budget": usd(race.nano_usd)}
    ending = {"exit_code": code, "reason": reason, "next_step": next_step, "sandbox": sandbox}
    return {**ending, **report, "usd": spent}
