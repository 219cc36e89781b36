"""Rows of several requests, with repairs and votes, killed with SIGKILL in the middle and resumed."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from batchrun.errors import EXIT_BUDGET, EXIT_DONE, EXIT_ROWS_FAILED
from tests.kill.campaign import CONCURRENCY, Evidence, Plan, run_campaign
from tests.kill.label_audit import label_promises_broken

AMPLE = 10 * 10**9
WORTH_A_THIRD = 100 * 10**6
"""Caps in nano-USD."""

pytestmark = pytest.mark.timeout(180)

LABELS = """
[labels]
choices = ["positive", "negative"]
repair = 1
votes = 3
"""
REPLIES = """
[[reply]]
pattern = "not a valid answer"
choices = [{text = "positive", probability = 0.4}, {text = "negative"}, {text = "It depends."}]
[[reply]]
pattern = "Say"
choices = [{text = "Positive.", probability = 0.45}, {text = "negative", probability = 0.3}, {text = "Both?"}]
"""
PLAN = Plan(
    rows=300,
    prompts=290,
    stages=((WORTH_A_THIRD, 2), (AMPLE, 4)),
    seed=5,
    request="temperature = 0.8",
    job=LABELS,
    replies=REPLIES,
)


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> tuple[Evidence, Path]:
    folder = tmp_path_factory.mktemp("labels")
    return run_campaign(PLAN, folder), folder


def test_six_kills_in_the_middle_of_repairs_and_votes(campaign: tuple[Evidence, Path]) -> None:
    """The bill stays under either cap, no answered request is sent again, and all rows come out labelled."""
    evidence, folder = campaign
    assert label_promises_broken(evidence, folder) == []
    assert evidence.kills >= 5, "the last one may come after the end"
    codes = [seen.exit_code for seen in evidence.observations if not seen.killed]
    assert codes[0] == EXIT_BUDGET
    assert codes[-1] in (EXIT_DONE, EXIT_ROWS_FAILED)
    assert max(len(seen.journal.open) for seen in evidence.observations) >= CONCURRENCY // 2
    statuses = evidence.output["status"].to_pylist()
    assert set(statuses) <= {"ok", "invalid"}
    assert statuses.count("ok") > 200
    assert {0.67, 1.0} <= {round(share, 2) for share in evidence.output["agreement"].to_pylist() if share}
    requests = len(evidence.observations[-1].journal.answered)
    assert requests > 2 * 290 * 1.1, "two votes a row at least, and repairs"


def with_a_late_arrival(evidence: Evidence) -> Evidence:
    return replace(evidence, bill=[*evidence.bill, evidence.bill[0]])


def with_a_lost_answer(evidence: Evidence) -> Evidence:
    delivered = [line for line in evidence.bill if line.nano_usd and line.fault is None]
    again = [line._replace(id="msg_lost") for line in delivered[:1] * 60]
    return replace(evidence, bill=[*evidence.bill, *again])


def with_a_row_less(evidence: Evidence) -> Evidence:
    return replace(evidence, output=evidence.output.slice(1))


def with_other_labels(evidence: Evidence) -> Evidence:
    column = evidence.output.column_names.index("label")
    labels = evidence.output["label"].to_pylist()
    return replace(evidence, output=evidence.output.set_column(column, "label", [labels[1:] + labels[:1]]))


@pytest.mark.parametrize(
    ("tamper", "text"),
    [
        (with_a_late_arrival, "without an intent"),
        (with_a_lost_answer, "paid answers"),
        (with_a_row_less, "came out"),
        (with_other_labels, "its answers come to"),
    ],
)
def test_tampered_evidence_is_found_out(
    campaign: tuple[Evidence, Path], tamper: Callable[[Evidence], Evidence], text: str
) -> None:
    evidence, folder = campaign
    assert any(text in sentence for sentence in label_promises_broken(tamper(evidence), folder))
