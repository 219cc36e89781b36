"""The live display's lines: what they say, at widths from 60 columns on, and what they cost."""

import io
import re
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from batchrun.amounts import NOTHING, Amount
from batchrun.cli.display import REFRESHES_PER_SECOND
from batchrun.cli.status_lines import Part, Speedometer, fitted, status_lines
from batchrun.exchange import Billed, Failure, Remedy
from batchrun.job.file import make_job
from batchrun.journal import Journal, create_or_open
from batchrun.ledger import Ledger, caps_of
from batchrun.limits.limiter import Limiter
from batchrun.pipeline import Target, View
from batchrun.progress import Progress

WIDTHS = (60, 80, 100, 200)


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
        self.progress = Progress(rows=1_000)
        self.ledger = Ledger(caps_of(job.budget, NOTHING, NOTHING))
        self.limiter = Limiter(job.limits.requests_per_minute, job.limits.tokens_per_minute)
        before = journal.totals(sandbox=True)
        target = Target("http://127.0.0.1:1", None, sandbox=True)
        self.view = View(job, target, self.ledger, self.progress, self.limiter, before)
        self.speedometer = Speedometer(self.view)
        self.speedometer._looks = [(time.monotonic() - 10, (0, 0, 0))]
        self._answer(200)

    def _answer(self, rows: int) -> None:
        for _ in range(rows):
            reservation = self.ledger.reserve(Amount(30_000_000, 0, 100, 1))
            assert not hasattr(reservation, "may_pass")
            self.ledger.settle(reservation, Amount(20_000_000, 0, 60, 1))
            self.progress.sent(1)
            self.progress.answered(60)
            self.progress.row_ended(failed=False, invalid=False)

    def lines(self, width: int = 200) -> list[str]:
        return status_lines(self.view, self.speedometer, width)


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


@pytest.mark.parametrize("limits", [{"requests_per_minute": 600}, {"tokens_per_minute": 36_000}])
def test_a_given_limit_bounds_the_rate_that_is_expected(
    journal: Journal, tmp_path: Path, limits: dict[str, object]
) -> None:
    """10 rows a second in the long run, whatever the first seconds were like."""
    assert "1:20 to go" in Shown(journal, tmp_path, limits=limits).lines()[0]


def test_the_pace_stands_beside_the_limit(journal: Journal, tmp_path: Path) -> None:
    given = Shown(journal, tmp_path, limits={"requests_per_minute": 1_500, "tokens_per_minute": 90_000})
    # Measured up to now: some milliseconds more than the ten seconds in which it was sent.
    assert re.search(r"(1,200|1,19\d) of 1,500 requests/min \(given\)", given.lines()[1])
    assert re.search(r"(72,000|71,9\d\d) of 90,000 tokens/min", given.lines()[1])
    assert "of 6,000 requests/min (found so far)" in Shown(journal, tmp_path).lines()[1]


def test_what_holds_the_run_back_is_named(journal: Journal, tmp_path: Path) -> None:
    """The limiter, a pause after a 429, the endpoint, a cap, or the number in flight; nothing, if none is."""
    shown = Shown(journal, tmp_path, limits={"concurrency": 2})
    assert "held back" not in shown.lines()[1]
    shown.progress.in_flight = 2
    assert "held back by limits.concurrency" in shown.lines()[1]
    shown.progress.slowed_by = "rate limit"
    assert "held back by the rate limit" in shown.lines()[1]
    shown.limiter.paused_until = time.monotonic() + 30.4
    assert "held back by a 429, 30 s more" in shown.lines()[1]
    shown.progress.slowed_by = "endpoint"
    assert "held back by the endpoint, which fails" in shown.lines()[1]
    shown.progress.held_by = "budget.usd"
    assert "held back by budget.usd" in shown.lines()[1]


def in_trouble(journal: Journal, folder: Path) -> Shown:
    limits = {"requests_per_minute": 1_500, "tokens_per_minute": 90_000}
    shown = Shown(journal, folder, limits=limits, budget={"usd": 600.0})
    failure = Failure(
        "http_529", "overloaded, and that at length: " + "x" * 100, Remedy.RETRY, Billed.NO, 529
    )
    for attempt in range(12):
        shown.progress.sent(2)
        shown.progress.attempt_failed(failure, attempt, final=False)
    shown.progress.row_ended(failed=True, invalid=False)
    shown.progress.slowed_by = "endpoint"
    return shown


@pytest.mark.parametrize("width", WIDTHS)
def test_three_lines_fit_and_keep_what_matters_most(journal: Journal, tmp_path: Path, width: int) -> None:
    lines = in_trouble(journal, tmp_path).lines(width)
    assert len(lines) == 3
    assert max(map(len, lines)) <= width
    assert "201 of 1,000 rows" in lines[0]
    assert "to go" in lines[0]
    assert "rows/s, held back by the endpoint" in lines[1]
    assert "reserved of 600.00 USD" in lines[2]
    if width >= 200:
        assert "retried 12: http_529 x12" in lines[1]
        assert lines[0].startswith("[####")


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
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    shown = in_trouble(journal, tmp_path)
    console = Console(file=io.StringIO(), force_terminal=True, width=200, markup=False, highlight=False)
    with Live(
        console=console,
        get_renderable=lambda: Text("\n".join(shown.lines(200)), no_wrap=True, overflow="ellipsis"),
        auto_refresh=False,
    ) as live:
        live.refresh()
        before = time.thread_time()
        for _ in range(100):
            live.refresh()
        seconds = (time.thread_time() - before) / 100
    assert seconds * REFRESHES_PER_SECOND < 0.02
    print(f"{seconds * 1000:.2f} ms a refresh")
