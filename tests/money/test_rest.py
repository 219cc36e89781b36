"""What a stop at a cap says: that no row fits, or how much more would finish the job."""

import re
from pathlib import Path
from typing import Any

import pytest

from batchrun.client.server import Server
from batchrun.engine.ledger import Cap
from batchrun.job.file import make_job
from batchrun.runs.run import run_job
from batchrun.sandbox import Settings, background
from tests.money.dispatching import Desk


def ran(folder: Path, server: Server, **budget: float) -> dict[str, Any]:
    job = make_job(
        {
            "input": {"path": "in.csv"},
            "prompt": {"template": "{{ text }}"},
            "request": {"model": "abliterated-model", "max_tokens": 20},
            "output": {"path": "out.parquet", "order": "random", "accept": ["truncated"]},
            "budget": budget,
        },
        folder,
        sandbox=True,
    )
    return run_job(job, server)


@pytest.mark.parametrize(("cap", "limit"), [("usd", 0.01), ("tokens", 2_000), ("rows", 50)])
def test_a_cap_raised_by_what_the_stop_says_finishes_the_job(tmp_path: Path, cap: str, limit: float) -> None:
    """Within a tenth: the rows left are not those that were answered."""
    (tmp_path / "in.csv").write_text(
        "\n".join(["text", *(f"review {'x' * (n % 50)} {n}" for n in range(200))])
    )
    with background(Settings()) as sandbox:
        server = Server(sandbox.base_url, "key", sandbox=True)
        stopped = ran(tmp_path, server, **{cap: limit})
        assert stopped["exit_code"] == 4
        found = re.search(r"About ([\d.,]+) (USD|tokens) more would finish the job", stopped["reason"])
        assert found is not None, stopped["reason"]
        more = float(found[1].replace(",", ""))
        assert found[2] == ("tokens" if cap == "tokens" else "USD")
        spent = sandbox.bill()["total"]
        finished = ran(tmp_path, server)
        assert finished["exit_code"] == 0
        whole = sandbox.bill()["total"]
        if cap == "tokens":
            needed = whole["input_tokens"] + whole["output_tokens"] - limit
        else:
            needed = whole["usd"] - (limit if cap == "usd" else spent["usd"])
        assert needed * 0.9 <= more <= needed * 1.1 + (200 if cap == "tokens" else 0.001)


def test_where_no_row_fits_the_stop_says_what_the_next_one_needs(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text\n" + "x" * 1_000 + "\n")
    with background(Settings()) as sandbox:
        server = Server(sandbox.base_url, "key", sandbox=True)
        stopped = ran(tmp_path, server, usd=0.001)
        assert re.match(
            r"Stopped at the cap budget.usd: no row fits, the next one needs 0\.00\d+ USD at worst, "
            r"0\.001 USD is left\. 1 row pending\. At most 0\.00\d+ USD more would finish the job\.",
            stopped["reason"],
        )
        assert sandbox.bill()["total"]["requests"] == 0
        left = ran(tmp_path, server, tokens=300)
        assert "needs 1,100 tokens at worst, 300 tokens are left" in left["reason"]


def test_before_the_first_answer_nobody_says_what_all_rows_need(tmp_path: Path) -> None:
    """The worst case of the row that did not fit says nothing about the others."""
    (tmp_path / "in.csv").write_text("text\nshort\n" + "x" * 10_000 + "\n")
    with background(Settings()) as sandbox:
        stopped = ran(tmp_path, Server(sandbox.base_url, "key", sandbox=True), usd=0.00001)
    assert "no row fits" in stopped["reason"]
    assert "would finish the job" not in stopped["reason"]


def test_a_run_that_has_sent_something_does_not_say_that_no_row_fits() -> None:
    desk = Desk(rows=3, caps=[Cap("budget.usd", "nano_usd", 700_000)])
    desk.advance()
    desk.commit()
    desk.end()
    desk.advance()
    stop = desk.dispatcher.stopped_by
    assert stop is not None
    assert stop.reason == "Stopped at the cap budget.usd."
