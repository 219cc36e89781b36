"""The worst case of rows with repairs, and beside it the one without."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from batchrun.cli.plan_lines import plan_lines
from batchrun.client.server import Server
from batchrun.exchange import Completion
from batchrun.job.file import make_job
from batchrun.job.labels import Labels
from batchrun.job.spec import Job
from batchrun.labels.parser import make_parser
from batchrun.rows.labelling import Labelling
from batchrun.runs.plan.plan import plan_job
from batchrun.runs.run import run_job
from batchrun.sandbox import Settings, background
from tests.labels.test_labelling import ROW


def job_of(folder: Path, repair: int, usd: float | None = None) -> Job:
    labels: dict[str, Any] = {"choices": ["yes", "no"], "repair": repair}
    return make_job(
        {
            "input": {"path": "in.csv"},
            "prompt": {"template": "{{ text }}"},
            "request": {"model": "abliterated-model", "max_tokens": 8},
            "output": {"path": "out.parquet"},
            "labels": labels,
            "retry": {"useless_rows": 0},
            "budget": {} if usd is None else {"usd": usd},
        },
        folder,
        sandbox=True,
    )


@pytest.mark.parametrize("answer", ["perhaps", "\\\\n" * 8, '\\"' * 32])
def test_the_worst_case_lets_every_row_be_repaired_as_often_as_it_may(tmp_path: Path, answer: str) -> None:
    """The answers of the last two take more bytes as JSON than as text."""
    (tmp_path / "in.csv").write_text("text\n" + "".join(f"review {n}\n" for n in range(6)))
    (tmp_path / "replies.toml").write_text(f'[[reply]]\npattern = "."\ntext = "{answer}"\n')
    worst = plan_job(job_of(tmp_path, 2), sandbox=True)["worst"]
    with background(Settings(replies=tmp_path / "replies.toml")) as sandbox:
        server = Server(sandbox.base_url, "key", sandbox=True)
        summary = run_job(job_of(tmp_path, 2, usd=worst["usd"]), server)
        assert summary["exit_code"] == 3, summary["reason"]
        assert summary["requests"]["sent"] == worst["requests"] == 18


def test_the_plan_says_the_worst_case_with_and_without_repairs(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text\nreview\n")
    plain = plan_job(job_of(tmp_path, 0), sandbox=True)
    repaired = plan_job(job_of(tmp_path, 1), sandbox=True)
    worst = repaired["worst"]
    assert worst["usd_per_row_unrepaired"] == plain["worst"]["usd_per_row"] < worst["usd_per_row"]
    assert "for a row without repairs" in "\n".join(plan_lines(repaired))
    assert worst["usd_unrepaired"] == plain["worst"]["usd"] < worst["usd"]
    assert "USD without repairs)" in "\n".join(plan_lines(repaired))
    assert "without repairs" not in "\n".join(plan_lines(plain))
    assert "for a row without repairs" not in "\n".join(plan_lines(plain))


def test_a_repair_is_reckoned_by_what_its_answer_can_hold(tmp_path: Path) -> None:
    """Not by the longest answer that any request is sent back: 8 tokens hold a few words."""
    (tmp_path / "in.csv").write_text("text\nreview\n")
    plain, repaired = (plan_job(job_of(tmp_path, repair), sandbox=True)["worst"] for repair in (0, 1))
    assert repaired["usd"] - plain["usd"] < 0.01
    with_room = job_of(tmp_path, 1)
    request = msgspec.structs.replace(with_room.request, max_tokens=10_000)
    longest = plan_job(msgspec.structs.replace(with_room, request=request), sandbox=True)["worst"]
    assert longest["usd"] - 2 * 10_000 * 5e-6 > 12_000 * 5e-6, "all of what is sent back, escaped"


@pytest.mark.parametrize("answer", ["hm " * 30, "été €uro 漢字 " * 8, "a\\n\\t" * 20, '\\"' * 40, "🙂" * 20])
def test_no_repair_that_is_sent_adds_more_than_the_plan_reckons(tmp_path: Path, answer: str) -> None:
    """By the requests' own bounds: answers of the sandbox, cut at max_tokens."""
    (tmp_path / "in.csv").write_text("text\n" + "".join(f"review {n}\n" for n in range(3)))
    (tmp_path / "replies.toml").write_text(f'[[reply]]\npattern = "."\ntext = "{answer}"\n')
    plan = plan_job(job_of(tmp_path, 1), sandbox=True)
    with background(Settings(replies=tmp_path / "replies.toml")) as sandbox:
        server = Server(sandbox.base_url, "key", sandbox=True)
        summary = run_job(job_of(tmp_path, 1, usd=plan["worst"]["usd"]), server)
    assert summary["requests"]["sent"] == 6, summary["reason"]


def test_a_repair_that_is_cut_to_the_plan_s_bound_is_identified_as_one_that_is_not() -> None:
    """So a journal from before, or under another max_tokens, has its response; 3,000 control characters."""
    labelling = Labelling(make_parser(Labels(choices=("yes", "no"))), repair=2)
    digests, lengths = [], []
    for cap in (2, 4_000):
        row = msgspec.structs.replace(ROW, output_bound=cap)
        known: dict[bytes, Completion] = {}
        request = row
        for _ in range(3):
            known[request.digest] = Completion("\x01" * 3_000, cap=cap)
            (request, *_) = labelling.state(row, known.get).open or (request,)
        digests.append(request.digest)
        lengths.append(len(request.body))
    assert digests[0] == digests[1]
    assert len(known) == 3
    assert lengths[0] < 3_000 < 12_000 < lengths[1]
