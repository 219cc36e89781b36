"""`batchrun check`: one row end to end, under the budget and journaled, and the journal checked whole."""

from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypedDict

from batchrun.client.messages.response import read_completion
from batchrun.client.request import Request
from batchrun.client.server import Server
from batchrun.engine.limits.known_limits import Pace
from batchrun.engine.usefulness import NEXT_STEPS
from batchrun.errors import EXIT_DONE, EXIT_ROWS_FAILED
from batchrun.job.spec import Job, run_folder
from batchrun.journal import Journal, open_for_reading
from batchrun.journal.checking import check_answers, check_whole
from batchrun.rows.dataset import Dataset, open_dataset
from batchrun.rows.observer import Observer
from batchrun.rows.result import OK, RowResult
from batchrun.rows.selection import pending_rows
from batchrun.runs.begin import RowSubset
from batchrun.runs.observers.view import View
from batchrun.runs.paths import check_paths
from batchrun.runs.run import run_job
from batchrun.runs.run_folder import RunFolder, has_journal


class Check(TypedDict):
    """The result. `row` counts from 1; None if no row is pending and nothing was sent.

    `attempt` has the journal's columns for the last request, None where none was sent. `text` is the
    answer's.
    `requests_per_minute` and `tokens_per_minute` are limits of the job, or of the response's headers.
    """

    exit_code: int
    reason: str
    next_step: str
    sandbox: bool
    row: int | None
    status: str | None
    text: str | None
    response_model: str | None
    stop_reason: str | None
    attempt: dict[str, Any] | None
    requests_per_minute: float | None
    tokens_per_minute: float | None
    journal_answers: int


@dataclass
class _Heard(Observer):
    """Observes the one row's result, and the limits known at the end."""

    view: View | None = None
    result: RowResult | None = None
    pace: Pace | None = None

    def made(self, view: View) -> "_Heard":
        self.view = view
        return self

    def row_ended(self, request: Request, result: RowResult) -> None:
        self.result = result

    def close(self) -> None:
        if self.view is not None:
            self.pace = self.view.limiter.pace


def check_job(job: Job, server: Server) -> Check:
    """Sends the first pending row of a job and checks its journal, every answer in it.

    Raises what `run_job` raises, and JournalError where an answer of the journal is damaged.
    """
    check_paths(job)
    row = _first_pending(job, server)
    if row is None:
        nothing = "Every row has ended: nothing was sent."
        return _check(EXIT_DONE, nothing, "add rows, or change the job", server, None, _Heard(), job)
    heard = _Heard()
    part = RowSubset((row,), '{"drawn": "check"}')
    summary = run_job(job, server, part=part, observers=(heard.made,))
    code, reason = summary["exit_code"], summary["reason"]
    next_step = summary["next_step"]
    if code == EXIT_DONE and (heard.result is None or heard.result.status != OK):
        flaw = None if heard.result is None else heard.result.flaw
        why = "" if flaw is None else f" ({flaw})"
        code, reason = EXIT_ROWS_FAILED, f"Row {row + 1} has no usable answer{why}."
        next_step = NEXT_STEPS.get(flaw or "", "look at the response, and correct the job")
    elif code == EXIT_DONE:
        reason = f"Row {row + 1} has its answer."
    return _check(code, reason, next_step, server, row, heard, job)


def _first_pending(job: Job, server: Server) -> int | None:
    dataset = open_dataset(job, sandbox=server.sandbox)
    folder = RunFolder(run_folder(job))
    reader = open_for_reading(folder.journal) if has_journal(folder) else None
    try:
        if reader is None:
            return _first_sendable(dataset)
        chunks = pending_rows(dataset, reader, Observer(), dataset.labelling)
        return next((rows[0].index for rows in chunks if rows), None)
    finally:
        if reader is not None:
            reader.close()


def _first_sendable(dataset: Dataset) -> int | None:
    for chunk in dataset.chunks([], None):
        for offset, request in enumerate(chunk.requests):
            if isinstance(request, Request):
                return chunk.first + offset
    return None


def _check(
    code: int, reason: str, next_step: str, server: Server, row: int | None, heard: _Heard, job: Job
) -> Check:
    folder = RunFolder(run_folder(job))
    answers, attempt, body = 0, None, None
    if has_journal(folder):  # there is none where no row could be sent
        with closing(open_for_reading(folder.journal)) as journal:
            answers = _check_every_answer(journal)
            attempt, body = _last_attempt(journal) if row is not None else (None, None)
    said = None if body is None else read_completion(body, 0)
    return Check(
        exit_code=code,
        reason=reason,
        next_step=next_step,
        sandbox=server.sandbox,
        row=None if row is None else row + 1,
        status=None if heard.result is None else heard.result.status,
        text=None if said is None else said.text,
        response_model=None if said is None else said.response_model,
        stop_reason=None if said is None else said.stop_reason,
        attempt=attempt,
        requests_per_minute=None if heard.pace is None else heard.pace.requests_per_minute,
        tokens_per_minute=None if heard.pace is None else heard.pace.tokens_per_minute,
        journal_answers=answers,
    )


def _check_every_answer(journal: Journal) -> int:
    """Returns the number of answers, all of which match their checksums. Raises JournalError."""
    check_whole(journal)
    check_answers(journal)
    (answers,) = journal.connection.execute(
        "SELECT count(DISTINCT digest) FROM attempts WHERE outcome = 'answered'"
    ).fetchone()
    return int(answers)


def _last_attempt(journal: Journal) -> tuple[dict[str, Any] | None, bytes | None]:
    cursor = journal.connection.execute(
        "SELECT outcome, nano_usd, credits, input_tokens, output_tokens, remaining_credits, latency_ms,"
        " http_status, error_code, error, response FROM attempts"
        " WHERE run = (SELECT max(run) FROM runs) ORDER BY attempt DESC LIMIT 1"
    )
    found = cursor.fetchone()
    if found is None:
        return None, None
    *values, body = found
    names = [column[0] for column in cursor.description]
    return dict(zip(names, values, strict=False)), body
