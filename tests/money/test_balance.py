"""What the account's balance says about requests without a known outcome."""

import json
from pathlib import Path
from urllib.request import Request, urlopen

from batchrun.job.file import make_job
from batchrun.pipeline import Target, run_job
from batchrun.sandbox import Settings, background

ROWS_AT_A_TIME = 60


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
