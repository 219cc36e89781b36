"""What the account's balance says about requests without a known outcome."""

import json
from pathlib import Path
from urllib.request import Request, urlopen

from msgspec.structs import replace

from batchrun.job.file import make_job
from batchrun.journal import Outcome, create_or_open
from batchrun.pipeline import Target, run_job
from batchrun.sandbox import Settings, background
from tests.money.journals import Reports, answer_to, failure_of, intent, start_run, writer_of

ROWS_AT_A_TIME = 60


def test_the_balance_to_begin_with_is_the_lowest_of_the_last_run_less_what_may_have_been_used_since(
    tmp_path: Path,
) -> None:
    """The newest attempt need not be the one that was answered, or charged, last."""
    journal = create_or_open(tmp_path / "journal.sqlite")
    assert journal.lowest_balance(sandbox=False) is None
    reported = {1: 20, 2: 400, 3: 300, 4: 280, 5: 290}  # 1 is of an earlier run, before a top-up
    reports = Reports()
    writer = writer_of(journal, reports)
    for attempt in range(1, 8):
        writer.intend(intent(attempt, run=start_run(journal) if attempt < 3 else 2))
        assert reports.committed.acquire(timeout=20)
    for attempt, balance in reported.items():
        writer.record(replace(answer_to(attempt), remaining_credits=balance))
    lost = failure_of(6, Outcome.UNCERTAIN, final=False)
    before_the_lowest, after_it = (answer_to(4).finished_at + step for step in (-1, 1))
    writer.record(replace(lost, finished_at=before_the_lowest))
    writer.record(replace(lost, attempt=7, finished_at=after_it))
    writer.close()
    assert journal.totals(sandbox=False).remaining_credits == 290
    assert journal.lowest_balance(sandbox=False) == 280 - lost.credits
    assert journal.lowest_balance(sandbox=True) is None
    journal.close()


def test_the_balance_shows_what_lost_answers_used(tmp_path: Path) -> None:
    """Answers are lost in the second of three runs; the bill knows what they cost."""
    job = make_job(
        {
            "input": {"path": "in.csv"},
            "prompt": {"template": "{{ text }}"},
            "request": {"model": "abliterated-model", "max_tokens": 16},
            "output": {"path": "out.parquet"},
            "retry": {"max_wait_seconds": 0.1},
        },
        tmp_path,
        sandbox=True,
    )
    with background(Settings(credits=5_000)) as sandbox:
        for run, faults in enumerate([{}, {"reset-after": 0.1, "reset-before": 0.1}, {}], start=1):
            _set_faults(sandbox.base_url, faults)
            rows = "".join(f"row {row}\n" for row in range(run * ROWS_AT_A_TIME))
            (tmp_path / "in.csv").write_text(f"text\n{rows}")
            summary = run_job(job, Target(sandbox.base_url, "a-key", sandbox=True))
            assert summary["exit_code"] == 0
        billed = sandbox.bill()["total"]["credits"]
    assert summary["uncertain_credits_used"] == billed - summary["credits"]["used"] > 0
    assert summary["uncertain_credits_used"] <= summary["credits"]["uncertain"]


def _set_faults(base_url: str, faults: dict[str, float]) -> None:
    body = json.dumps(faults).encode()
    with urlopen(Request(f"{base_url}/sandbox/faults", data=body, method="POST")) as response:
        assert response.status == 200
