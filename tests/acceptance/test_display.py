"""The live display's lines: what they say, at widths from 60 columns on, and what they cost."""

import io
import json
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from batchrun.amounts import NOTHING, Amount, usd_text
from batchrun.client.server import Server
from batchrun.engine.ledger import Ledger, caps_of
from batchrun.engine.limits.limiter import Limiter
from batchrun.exchange import BillingStatus, Completion, Failure, FailureAction, Response, Waiting
from batchrun.job.file import make_job
from batchrun.journal import Journal, create_or_open
from batchrun.journal.commits import Commits
from batchrun.rows.observer import AttemptFailed, Observer, RowsScanned, RunAdjusted, RunStarted
from batchrun.rows.result import FAILED, INVALID, OK, RowResult
from batchrun.runs.observers.in_place import ERASE, UP_AND_ERASE, InPlace
from batchrun.runs.observers.progress import Progress
from batchrun.runs.observers.progress_lines import Part, fitted, status_lines
from batchrun.runs.observers.rates import RateMeter
from batchrun.runs.observers.terminal import REFRESHES_PER_SECOND, Display
from batchrun.runs.observers.view import View
from batchrun.runs.run import run_job
from batchrun.runs.timed_commits import timed
from batchrun.sandbox import Settings, background
from tests.money.fanout import request

BEGIN = 1_000.0
WIDTHS = (60, 80, 100, 200)
ROW = request(1)
RESPONSE = Response(b"{}", 10, 50)


@pytest.fixture(autouse=True)
def _time_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is."""
    monkeypatch.setattr(time, "monotonic", lambda: BEGIN)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return create_or_open(tmp_path / "journal.sqlite")


class Shown:
    """A run that is being shown: 1,000 rows, 200 of them done in the last 10 seconds for 0.02 USD each."""

    def __init__(self, journal: Journal, folder: Path, **tables: Mapping[str, object]) -> None:
        job = make_job(
            {
                "input": {"path": "in.csv"},
                "prompt": {"template": "{{ text }}"},
                "request": {"model": "m", "max_tokens": 16},
                "output": {"path": "out.parquet"},
                **tables,
            },
            folder,
            sandbox=True,
        )
        self.progress = Progress(rows=1_000, started=BEGIN)
        self.ledger = Ledger(caps_of(job.budget, NOTHING, NOTHING))
        self.limiter = Limiter(job.limits.requests_per_minute, job.limits.tokens_per_minute)
        before = journal.totals(sandbox=True)
        server = Server("http://127.0.0.1:1", None, sandbox=True)
        self.view = View(job, server, self.ledger, self.progress, self.limiter, before)
        self.meter = RateMeter(self.progress, BEGIN - 10)
        self._answer(200)

    def _answer(self, rows: int) -> None:
        for _ in range(rows):
            reservation = self.ledger.reserve(Amount(30_000_000, 0, 100, 1))
            assert not hasattr(reservation, "may_pass")
            self.ledger.settle(reservation, Amount(20_000_000, 0, 60, 1))
            self.progress.request_sent(1)
            self.progress.response_received(RESPONSE, 60)
            self.progress.row_ended(ROW, RowResult(OK))

    def lines(self, width: int = 200) -> list[str]:
        return status_lines(self.view, self.meter, width)


def test_time_to_go_is_that_of_the_rows_at_the_rate_of_the_last_seconds(
    journal: Journal, tmp_path: Path
) -> None:
    """800 rows at 20 a second."""
    rows, pace, money = Shown(journal, tmp_path).lines()
    assert "200 of 1,000 rows (20%), 0:40 to go" in rows
    assert pace.startswith("20.0 rows/s")
    assert money.startswith("spent 4.00 USD + 0.00 USD reserved")


@pytest.mark.parametrize(
    ("budget", "says"),
    [
        ({"usd": 6.0}, "0:05 to budget.usd"),
        ({"usd": 600.0}, "0:40 to go"),
        ({"rows": 220}, "0:01 to budget.rows"),
        ({"tokens": 18_000}, "0:05 to budget.tokens"),
        ({"seconds": 7}, "0:07 to budget.seconds"),
        ({"usd": 6.0, "rows": 220}, "0:01 to budget.rows"),
    ],
)
def test_a_cap_that_comes_first_is_where_the_time_goes_to(
    journal: Journal, tmp_path: Path, budget: dict[str, object], says: str
) -> None:
    assert says in Shown(journal, tmp_path, budget=budget).lines()[0]


def test_no_name_steers_the_terminal(journal: Journal, tmp_path: Path) -> None:
    shown = Shown(journal, tmp_path, output={"path": "a\x1b[31m\u202e.csv"})
    shown.progress.writing = True
    assert shown.lines() == ["writing a [31m .csv ..."]


@pytest.mark.parametrize("limits", [{"requests_per_minute": 600}, {"tokens_per_minute": 36_000}])
def test_a_given_limit_bounds_the_rate_that_is_expected(
    journal: Journal, tmp_path: Path, limits: dict[str, object]
) -> None:
    """10 rows a second in the long run, whatever the first seconds were like."""
    assert "1:20 to go" in Shown(journal, tmp_path, limits=limits).lines()[0]


def test_the_pace_stands_beside_the_limit(journal: Journal, tmp_path: Path) -> None:
    given = Shown(journal, tmp_path, limits={"requests_per_minute": 1_500, "tokens_per_minute": 90_000})
    # Measured up to now: some milliseconds more than the ten seconds in which it was sent.
    assert re.search(r"(1,200|1,19\d) of 1,500 requests/min \(limit of the job\)", given.lines()[1])
    assert re.search(r"(72,000|71,9\d\d) of 90,000 tokens/min", given.lines()[1])
    assert "of 6,000 requests/min (found so far)" in Shown(journal, tmp_path).lines()[1]


def test_a_bound_on_concurrent_requests_that_was_found_stands_beside_those_in_flight(
    journal: Journal, tmp_path: Path
) -> None:
    """Of twelve that are out together after some single ones, the last four are refused."""
    shown, limiter = Shown(journal, tmp_path), Limiter()
    assert "0 in flight" in shown.lines()[1]
    for index in range(40):
        limiter.answered(limiter.admit(index / 100, 10), index / 100 + 0.005, 10, None)
    out = [limiter.admit(0.4 + index / 100, 10) for index in range(12)]
    refused = Failure("rate_limit_error", "", FailureAction.SLOW_DOWN, BillingStatus.NO, 429)
    for admission in out[8:]:
        limiter.failed(admission, admission.sent_at + 0.02, refused)
    limiter.delay(0.6, 10)
    shown.view.limiter = limiter
    assert "0 of 8 in flight (found so far)" in shown.lines()[1]


def test_what_holds_the_run_back_is_named(journal: Journal, tmp_path: Path) -> None:
    """The limiter, a pause after a 429, the endpoint, a cap, or the number in flight; nothing, if none is."""
    shown = Shown(journal, tmp_path, limits={"concurrency": 2})
    assert "held back" not in shown.lines()[1]
    shown.progress.in_flight = 2
    assert "held back by limits.concurrency" in shown.lines()[1]
    shown.progress.waiting = Waiting("rate limit", BEGIN + 0.3)
    assert "held back by the rate limit, 1,200 of 6,000 requests/min" in shown.lines()[1]
    shown.limiter.paused_until = BEGIN + 30.4
    shown.progress.waiting = Waiting("rate limit", BEGIN + 30.4)
    assert "held back by a 429, next request in 30 s" in shown.lines()[1]
    shown.progress.waiting = Waiting("endpoint", math.inf, gives_up_at=BEGIN + 754)
    assert "the endpoint fails, gives up in 12:34" in shown.lines()[1]
    shown.progress.blocked_by = "budget.usd"
    assert "held back by budget.usd" in shown.lines()[1]


def test_a_commit_that_takes_long_is_named_with_the_process_that_makes_it(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = Shown(journal, tmp_path)
    seen: list[str] = []

    class SlowCommits(Commits):
        process: int | None = 77

        def write(self, *_: object) -> frozenset[int]:
            seen.extend(shown.lines())
            monkeypatch.setattr(time, "monotonic", lambda: BEGIN + 8)
            seen.extend(shown.lines())
            shown.progress.stopping_for = "Interrupted by SIGINT."
            seen.extend(shown.lines())
            return frozenset()

    commits = timed(lambda *_: SlowCommits(journal.connection, journal.path), shown.progress)
    commits(journal, lambda: None).write([], None)
    assert "journal" not in seen[1]
    assert "held back by the journal: no commit by process 77 for 8 s, " in seen[4]
    assert seen[6] == "Interrupted by SIGINT. Waiting for the journal (no commit by process 77 for 8 s)."
    assert not any("journal" in line for line in shown.lines())


@dataclass(frozen=True)
class SomeWorker:
    ended: int
    name: str = "node/1"
    in_flight: int = 8


def test_workers_and_what_each_has_sent_are_shown(journal: Journal, tmp_path: Path) -> None:
    shown = Shown(journal, tmp_path, workers={"kind": "local"})
    assert "no worker is connected" in shown.lines()[1]
    workers = [SomeWorker(1_200 + number) for number in range(5)]
    shown.progress.worker_joined(workers[0])
    assert "1 worker: 1,200 requests" in shown.lines()[1]
    shown.progress.worker_joined(workers[1])
    assert "2 workers: 1,200 + 1,201 requests" in shown.lines()[1]
    for worker in workers[2:]:
        shown.progress.worker_joined(worker)
    assert "5 workers: 1,200 to 1,204 requests each" in shown.lines()[1]
    shown.progress.worker_left(workers[4], "killed")
    assert "4 workers: 1,200 + 1,201 + 1,202 + 1,203 requests" in shown.lines()[1]
    assert "worker" not in Shown(journal, tmp_path).lines()[1]


def in_trouble(journal: Journal, folder: Path) -> Shown:
    limits = {"requests_per_minute": 1_500, "tokens_per_minute": 90_000}
    shown = Shown(journal, folder, limits=limits, budget={"usd": 600.0})
    failure = Failure(
        "http_529", "overloaded, and that at length: " + "x" * 100, FailureAction.RETRY, BillingStatus.NO, 529
    )
    for attempt in range(12):
        shown.progress.request_sent(2)
        shown.progress.attempt_failed(AttemptFailed(attempt, failure, final=False))
    shown.progress.row_ended(ROW, RowResult(FAILED))
    shown.progress.waiting = Waiting("endpoint", BEGIN + 3, BEGIN + 860)
    return shown


@pytest.mark.parametrize("width", WIDTHS)
def test_the_lines_fit_and_keep_what_matters_most(journal: Journal, tmp_path: Path, width: int) -> None:
    """The last error has a line of its own, which the terminal's width cuts."""
    *lines, error = in_trouble(journal, tmp_path).lines(width)
    assert len(lines) == 3
    assert max(map(len, lines)) <= width
    assert "201 of 1,000 rows" in lines[0]
    assert "to go" in lines[0]
    assert "rows/s, the endpoint fails, " in lines[1]
    assert "gives up in 14:20" in lines[1]
    assert "reserved of 600.00 USD" in lines[2]
    assert error.startswith("last error: overloaded, and that at length")
    if width >= 80:
        assert "the endpoint fails, next request in 3 s, gives up in 14:20" in lines[1]
    if width >= 200:
        assert "retried 12, errors: http_529 x12" in lines[1]
        assert lines[0].startswith("[####")


def test_rows_of_this_run_are_told_from_those_of_all_runs(journal: Journal, tmp_path: Path) -> None:
    """The rows that are done are those of all runs; what is wrong with them is known of this run alone."""
    shown = Shown(journal, tmp_path)
    shown.progress.row_ended(ROW, RowResult(FAILED))
    for _ in range(3):
        shown.progress.row_ended(ROW, RowResult(INVALID, Completion("posi", "max_tokens")))
    assert "204 of 1,000 rows (20%), 1 failed, 3 invalid, 0:39 to go" in shown.lines()[0]
    shown.progress.rows_scanned(RowsScanned(600, unsendable=7, answered=500, failed=0))
    (rows, *_) = shown.lines()
    assert "711 of 1,000 rows (71%)" in rows
    assert "1 failed, 3 invalid in this run, 7 can't be sent" in rows


def test_a_duplicate_is_done_when_the_row_is_whose_answer_it_shares(journal: Journal, tmp_path: Path) -> None:
    shown, first, other = Shown(journal, tmp_path), request(2), request(3)
    for _ in range(40):
        shown.progress.row_shared(first, ended=False)
    shown.progress.row_shared(other, ended=False)
    assert "200 of 1,000 rows" in shown.lines()[0]
    shown.progress.row_ended(first, RowResult(OK))
    assert "241 of 1,000 rows" in shown.lines()[0]
    shown.progress.row_shared(other, ended=True)
    assert "243 of 1,000 rows" in shown.lines()[0]


class AtTheEnd(Observer):
    """Keeps what the display says once the last request has ended."""

    def __init__(self, view: View, said: list[list[str]]) -> None:
        self._view = view
        self._said = said

    def output_begun(self) -> None:
        view = replace(self._view, progress=replace(self._view.progress, writing=False))
        self._said.append(status_lines(view, RateMeter(view.progress, 0.0), 0))


def test_the_numbers_of_the_display_are_those_of_the_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that are answered, fail, are cut or can't be sent; in two runs."""
    monkeypatch.undo()  # time goes on
    texts = [*(f"text {n}" for n in range(60)), "", *(f"bad {n}" for n in range(30))]
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    (tmp_path / "replies.toml").write_text(
        '[[reply]]\npattern = "bad"\ntext = "one two three four five six"\n'
        '[[reply]]\npattern = "."\ntext = "yes"\n'
    )
    job = make_job(
        {
            "input": {"path": "in.jsonl"},
            "prompt": {"template": "{{ text }}"},
            "request": {"model": "abliterated-model", "max_tokens": 3},
            "output": {"path": "out.parquet", "order": "random"},
            "retry": {"max_attempts": 1, "useless_rows": 0},
            "budget": {"usd": 2, "rows": 50},
        },
        tmp_path,
        sandbox=True,
    )
    said: list[list[str]] = []
    settings = Settings(replies=tmp_path / "replies.toml", faults={"500": 0.2}, seed=3)
    with background(settings) as sandbox:
        server = Server(sandbox.base_url, "key", sandbox=True)
        summaries = [run_job(job, server, observers=[partial(AtTheEnd, said=said)]) for _ in range(2)]
    for (rows, _, money), summary in zip(said, summaries, strict=True):
        counts, life = summary["rows"], summary["usd"]
        done = counts["total"] - counts["pending"]
        assert f"{done:,} of {counts['total']:,} rows" in rows
        assert f"spent {usd_text(round(life['settled'] * 10**9))} + 0.00 USD reserved of 2.00 USD" in money
    first, second = (summary["rows"] for summary in summaries)
    assert first["failed"] > 1
    assert first["invalid"] > 0
    assert f"{first['failed'] - 1} failed, {first['invalid']} invalid, 1 can't be sent" in said[0][0]
    more = {status: second[status] - first[status] for status in ("failed", "invalid")}
    assert min(more.values()) > 0
    told = f"{more['failed']} failed, {more['invalid']} invalid in this run, 1 can't be sent"
    assert told in said[1][0]


def test_what_is_set_is_a_line_of_its_own_above_the_live_lines(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The live lines are erased before it, and drawn again after it."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    display = Display(Shown(journal, tmp_path).view)
    display.run_started(RunStarted(1, True, 1_000))
    display.adjusted(RunAdjusted("ann@host", {"budget.usd": ("2", "5")}))
    display.adjusted(RunAdjusted("ann@host", {"stop": (None, "true")}))
    _, shown, after = re.split(r"ann@host set .*\n", terminal.getvalue())
    assert "200 of 1,000 rows" in shown
    assert shown.endswith(UP_AND_ERASE * 3)
    assert "200 of 1,000 rows" in after
    display.close()


def test_lines_leave_no_dead_rows_behind_when_the_terminal_was_resized(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A narrower terminal has broken the longer ones; ^C is echoed below them."""
    terminal = io.StringIO()
    place = InPlace(terminal)

    def at(columns: int, *lines: str) -> str:
        monkeypatch.setenv("COLUMNS", str(columns))
        terminal.seek(0)
        terminal.truncate()
        place.show(lines)
        return terminal.getvalue()

    assert at(60, "a" * 60, "b", "") == f"{'a' * 60}\nb\n\n"
    assert at(60, "a" * 60, "b", "") == "", "nothing has changed"
    assert at(25, "a" * 60, "b", "äß" * 20) == f"{ERASE}{UP_AND_ERASE * 5}{'a' * 24}…\nb\n{'äß' * 12}…\n"
    assert at(60, "c") == f"{ERASE}{UP_AND_ERASE * 3}c\n"
    monkeypatch.setenv("LINES", "4")
    assert at(60, "a", "b", "c", "d", "e") == f"{ERASE}{UP_AND_ERASE}a\nb\ne\n", "what scrolls away stays"
    assert at(60, "c") == f"{ERASE}{UP_AND_ERASE * 3}c\n"
    place.say("stays")
    place.clear()
    assert terminal.getvalue().endswith(f"{ERASE}{UP_AND_ERASE}stays\nc\n{ERASE}{UP_AND_ERASE}")


def test_the_least_important_parts_go_first_and_the_first_one_never() -> None:
    parts = [Part("aaaa", 0), Part("bbbb", 2), Part("cccc", 1)]
    assert [fitted(parts, width) for width in (0, 16, 15, 9, 1)] == [
        "aaaa, bbbb, cccc",
        "aaaa, bbbb, cccc",
        "aaaa, cccc",
        "aaaa",
        "aaaa",
    ]


def test_the_display_takes_less_than_2_percent_of_a_processor(journal: Journal, tmp_path: Path) -> None:
    """Lines made and drawn as often as in a second, a hundred times over: by CPU time of this thread."""
    shown, place = in_trouble(journal, tmp_path), InPlace(io.StringIO())
    before = time.thread_time()
    for second in range(100):
        place.show([*shown.lines(200), str(second)])
    seconds = (time.thread_time() - before) / 100
    assert seconds * REFRESHES_PER_SECOND < 0.02
    print(f"{seconds * 1000:.2f} ms a refresh")
