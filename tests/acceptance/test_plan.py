"""`batchrun plan`: a random sample in place of the guess, rows of several requests, evaluations."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from batchrun.journal import create_or_open
from batchrun.rows.ordering import key_of, sort_key
from batchrun.runs.run_folder import RunFolder
from batchrun.runs.run_lock import locked
from tests.acceptance.command import Place, as_options, ended, until

TEXTS = [f"review {number} " + "of some words " * (number % 13) for number in range(60)]


def plan(place: Place, *settings: str, options: tuple[str, ...] = (), code: int = 0) -> dict[str, Any]:
    done = place.command("plan", "job.toml", "--json", "-q", *options, *as_options(settings))
    assert done.code == code, done.err
    return done.summary


def sampled(place: Place, rows: int, *settings: str, code: int = 0) -> dict[str, Any]:
    return plan(place, *settings, options=("--sample", str(rows)), code=code)


def drawn(rows: int, most: int, seed: int = 0) -> list[int]:
    """The indexes of the first rows of the documented random order."""
    key = key_of(seed)
    return sorted(range(rows), key=lambda row: sort_key(row, key))[:most]


def asked(place: Place, *settings: str) -> list[int]:
    """The rows of the input that have an answer, by an export."""
    assert place.command("export", "job.toml", "--to", "so-far.csv", *as_options(settings)).code in (0, 3)
    with (place.folder / "so-far.csv").open(newline="") as file:
        return [number for number, row in enumerate(csv.DictReader(file)) if row["status"] != "pending"]


def test_a_sample_is_asked_once_and_a_run_asks_for_the_others(place: Place) -> None:
    place.texts(*TEXTS)
    first = sampled(place, 12, "budget.usd=1")
    assert place.requests == 12
    assert asked(place) == sorted(drawn(60, 12))
    assert not place.output.exists()
    expected = first["expected"]
    assert (first["rows"]["answered"], first["rows"]["to_send"]) == (12, 48)
    assert (expected["basis"], expected["sample"]) == ("a random sample of 12 rows", 12)
    assert first["budget"]["usd_left"] == round(1 - place.bill()["usd"], 9)
    assert sampled(place, 12, "budget.usd=1") == first
    assert place.requests == 12
    more = sampled(place, 15, "budget.usd=1")
    assert (place.requests, more["expected"]["sample"]) == (15, 15)
    before = place.bill()
    assert place.run("budget.usd=1").code == 0
    after = place.bill()
    assert after["requests"] == 60
    for kind, total in (("usd", "usd"), ("input_tokens", "input_tokens"), ("output_tokens", "output_tokens")):
        low, high = more["expected"]["intervals"][kind]
        assert low <= after[total] - before[total] <= high
    assert low < more["expected"]["output_tokens"] < high


def test_a_sample_is_the_beginning_of_the_order_random(place: Place) -> None:
    place.texts(*TEXTS)
    random = ("output.order=random", "output.seed=5", "limits.concurrency=1")
    sampled(place, 10, "output.seed=5")
    place.run(*random, "budget.rows=5")
    assert asked(place) == sorted(drawn(60, 15, seed=5))
    assert plan(place, *random)["expected"]["sample"] == 0, "too few for an interval nobody asked for"
    place.run(*random, "budget.rows=10")
    assert plan(place, *random)["expected"]["basis"] == "a random sample of 25 rows"


def test_after_a_run_in_the_input_s_order_the_sample_is_one_of_the_rows_that_are_left(place: Place) -> None:
    place.texts(*TEXTS)
    place.run("budget.rows=30", "limits.concurrency=1")
    before = place.requests
    after = sampled(place, 10)
    assert place.requests == before + 10
    assert (after["expected"]["sample"], after["rows"]["to_send"]) == (10, 20)
    assert [row for row in asked(place) if row >= 30] == sorted(
        [row for row in drawn(60, 60) if row >= 30][:10]
    )


def test_a_cap_that_stops_the_sampling_holds_and_the_plan_says_how_many_rows_it_has(place: Place) -> None:
    place.texts(*TEXTS)
    settings = ("budget.usd=0.01", "limits.concurrency=2")
    stopped = sampled(place, 40, *settings, code=4)
    answered = stopped["rows"]["answered"]
    assert 2 < answered < 40
    assert place.bill()["usd"] <= 0.01
    assert stopped["expected"]["basis"] == f"a random sample of {answered} rows, of 40 that were asked for"
    assert "budget.usd" in stopped["stopped"]
    people = place.command("plan", "job.toml", "--sample", "40", *as_options(settings))
    assert people.code == 4
    assert re.search(
        r"Stopped at the cap budget.usd: no row fits, the next one needs \S+ USD at worst, \S+ USD is left. "
        rf"The plan is of the {answered} rows that were sent. To go on: raise budget.usd",
        " ".join(people.err.split()),
    )
    assert f"a random sample of {answered} rows" in people.out
    assert "first request" not in people.out, "the plan stays in sight"


def test_sampling_needs_the_key_and_the_lock_of_a_run(place: Place) -> None:
    place.texts(*TEXTS)
    without_key = place.command("plan", "job.toml", "--sample", "5", environment={"ABLIT_KEY": ""})
    assert (without_key.code, without_key.out) == (2, "")
    assert "ABLIT_KEY" in without_key.err
    sampled(place, 3)
    with locked(RunFolder(place.folder / "out.run")):
        assert place.command("plan", "job.toml").code == 0
        assert place.command("plan", "job.toml", "--sample", "5").code == 75
    assert place.requests == 3


def test_a_signal_drains_the_sampling_and_the_plan_is_said_all_the_same(slow_place: Place) -> None:
    slow_place.texts(*TEXTS)
    command = ("plan", "job.toml", "--json", "--sample", "30", "--set", "limits.concurrency=4")
    with slow_place.start(*command) as process:
        until(lambda: slow_place.requests >= 4)
        process.send_signal(signal.SIGINT)
        done = ended(process)
    assert done.code == 130
    assert "Interrupted by SIGINT." in done.err
    answered = done.summary["rows"]["answered"]
    assert 4 <= answered < 30
    assert answered == slow_place.requests
    assert done.summary["stopped"] == "Interrupted by SIGINT."


def test_a_second_signal_ends_the_sampling_without_a_plan(slow_place: Place) -> None:
    slow_place.texts(*TEXTS)
    command = ("plan", "job.toml", "--sample", "30", "--set", "limits.concurrency=4")
    with slow_place.start(*command) as process:
        until(lambda: slow_place.requests >= 4)
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        done = ended(process)
    assert (done.code, done.out) == (130, "")
    assert "Ended at once by a second signal (SIGINT)." in done.err
    assert slow_place.summary()["usd"]["uncertain"] > 0


def test_a_sample_with_the_sandbox_needs_no_key(place: Place) -> None:
    place.texts(*TEXTS)
    options = ("--sandbox", "--sandbox-latency", "0.01", "--sample", "5")
    done = place.command("plan", "job.toml", *options, environment={"ABLIT_KEY": ""})
    assert done.code == 0
    assert "a random sample of 5 rows" in done.out
    assert "about" in done.out.split("time", 1)[1]
    assert "no model answered" in done.err
    assert place.requests == 0


def test_duplicates_are_drawn_once_and_rows_that_can_t_be_sent_never(place: Place) -> None:
    place.texts(*(["same"] * 20), "", "one", "two")
    after = sampled(place, 10, "prompt.template={{ text }}")
    assert place.requests == 3
    assert (after["rows"]["to_send"], after["expected"]["sample"]) == (0, 3)
    assert after["expected"]["basis"] == "a random sample of 3 rows"


LABELS = ('labels.choices=["yes", "no"]', "labels.repair=1", "labels.votes=3", "request.max_tokens=8")


def test_labelled_rows_are_counted_by_where_they_stand(place: Place) -> None:
    place.texts(*TEXTS[:6], "[sandbox:flag self-harm]")
    before = plan(place, *LABELS)
    assert before["expected"]["requests"] == 7 * 2
    assert before["worst"]["requests"] == 7 * 6
    assert before["worst"]["usd_per_row"] > 6 * before["worst"]["usd_per_request"] / 2
    assert place.run(*LABELS).code == 3
    rows = plan(place, *LABELS)["rows"]
    assert (rows["answered"], rows["invalid_labels"], rows["failed"], rows["to_send"]) == (0, 6, 1, 0)
    people = place.command("plan", "job.toml", *as_options(LABELS)).out
    assert "7: 0 answered, 6 with invalid answers, 1 failed" in people
    assert place.bill()["usd"] <= before["worst"]["usd"]


def test_cut_answers_of_rows_without_labels_are_not_counted_as_answered(place: Place) -> None:
    place.texts(*TEXTS[:6], "[sandbox:flag self-harm]")
    settings = ("request.max_tokens=2", "output.accept=[]")
    assert place.run(*settings).code == 3
    rows = plan(place, *settings)["rows"]
    assert (rows["answered"], rows["invalid_labels"], rows["failed"], rows["to_send"]) == (0, 6, 1, 0)
    rows = plan(place, "request.max_tokens=2")["rows"]
    assert (rows["answered"], rows["invalid_labels"]) == (6, 0)
    assert plan(place, "request.max_tokens=300", "output.accept=[]")["rows"]["to_send"] == 6


@pytest.mark.parametrize(
    ("settings", "note"),
    [
        (("retry.max_tokens=[8, 16, 64]",), "8, 16 have no effect, not above request.max_tokens = 16"),
        (("retry.max_tokens=[16]",), "16 has no effect"),
        (("retry.max_tokens=[17, 64]",), None),
        (("retry.max_tokens=[8]", "request.columns.max_tokens=most"), None),
    ],
)
def test_values_of_retry_max_tokens_without_effect_are_told(
    place: Place, settings: tuple[str, ...], note: str | None
) -> None:
    (place.folder / "in.csv").write_text("text,most\none,4\ntwo,4\n")
    notes = plan(place, *settings)["notes"]
    assert [note in each for each in notes] == [True] if note else notes == []
    assert ("no effect" in place.run(*settings).err) == (note is not None)


def test_rows_that_are_half_done_are_to_be_sent_for_the_rest(place: Place, tmp_path: Path) -> None:
    replies = tmp_path / "replies.toml"
    replies.write_text('[[reply]]\npattern = "."\ntext = "yes"\n')
    place.texts(*TEXTS[:4])
    sandbox = ("--sandbox", "--sandbox-replies", str(replies))
    place.run(*LABELS[:1], options=sandbox)
    votes = (LABELS[0], "labels.votes=5")
    in_progress = plan(place, *votes, options=("--sandbox",))
    assert (in_progress["rows"]["to_send"], in_progress["rows"]["half_done"]) == (4, 4)
    assert in_progress["expected"]["requests"] == 4 * 2
    assert in_progress["worst"]["requests"] == 4 * 4
    assert (
        "4 to send, 4 of them half done"
        in place.command("plan", "job.toml", "--sandbox", *as_options(votes)).out
    )
    assert place.run(*votes, options=sandbox).code == 0
    assert place.summary()["this_run"]["requests"]["sent"] == 4 * 2


def test_the_sample_of_a_labelled_job_counts_all_requests_of_a_row(place: Place) -> None:
    place.texts(*TEXTS)
    after = sampled(place, 10, *LABELS)
    sent = place.requests
    assert sent == 10 * 6, "no answer of the sandbox's own is a label"
    assert after["rows"]["invalid_labels"] == 10
    assert after["expected"]["requests"] == 50 * 6
    assert after["expected"]["usd"] == pytest.approx(place.bill()["usd"] * 5, rel=0.05)


def evaluation(place: Place, rows: int) -> tuple[str, ...]:
    """A job whose answers are right for two rows of three."""
    with (place.folder / "in.csv").open("w", newline="") as file:
        texts = [(row, f"question {row}", "yes" if row % 3 else "no") for row in range(rows)]
        csv.writer(file).writerows([("id", "text", "gold"), *texts])
    (place.folder / "replies.toml").write_text('[[reply]]\npattern = "."\ntext = "yes"\n')
    return ("evaluation.expected=gold", "evaluation.metric=exact", "budget.usd=0.03")


SANDBOX = ("--sandbox", "--sandbox-replies", "replies.toml")


def test_before_a_pilot_an_evaluation_has_the_widest_interval_and_after_it_a_forecast(place: Place) -> None:
    settings = evaluation(place, 400)
    before = plan(place, *settings, options=("--sandbox",))["evaluation"]
    assert (before["pilot"], before["scored"], before["population"]) == (False, 0, 400)
    assert "at the widest; 50 scored rows tell more: --sample 50" in before["text"]
    after = plan(place, *settings, options=(*SANDBOX, "--sample", "50"))["evaluation"]
    assert (after["pilot"], after["scored"]) == (True, 50)
    bought, half_width = after["forecast"]["rows"], after["forecast"]["half_width"]
    assert after["text"].startswith("0.03 USD buys about ")
    assert half_width < 0.5 / bought**0.5
    done = place.run(*settings, options=SANDBOX)
    assert done.code == 4
    report = place.summary()["evaluation"]
    low, high = report["interval"]
    assert report["n"] == pytest.approx(bought, rel=0.1)
    assert (high - low) / 2 == pytest.approx(half_width, rel=0.2)
    assert place.summary()["this_run"]["requests"]["sent"] == report["n"] - 50


def test_a_sample_of_clusters_is_whole_clusters_in_the_order_of_the_evaluation(place: Place) -> None:
    settings = (*evaluation(place, 200), "evaluation.cluster=group", "budget.usd=1")
    with (place.folder / "in.csv").open("w", newline="") as file:
        rows = [(row, f"question {row}", "yes", row // 10) for row in range(200)]
        csv.writer(file).writerows([("id", "text", "gold", "group"), *rows])
    after = plan(place, *settings, options=(*SANDBOX, "--sample", "60"))
    done = place.command("export", "job.toml", "--sandbox", "--to", "so-far.csv", *as_options(settings))
    assert done.code in (0, 3), done.err
    with (place.folder / "so-far.csv").open(newline="") as file:
        groups = [row["group"] for row in csv.DictReader(file) if row["status"] == "ok"]
    assert len(groups) == 60
    assert len(set(groups)) == 6
    assert after["expected"]["sample"] == 60
    assert after["evaluation"]["text"] == "1.00 USD buys all 200 rows"


def test_an_evaluation_in_the_input_s_order_has_no_outlook(place: Place) -> None:
    settings = (*evaluation(place, 20), "output.order=input")
    outlook = plan(place, *settings, options=("--sandbox",))["evaluation"]
    assert (outlook["forecast"], outlook["pilot"]) == (None, False)
    assert "not a random sample" in outlook["text"]


def test_a_plan_that_needs_no_statistics_imports_none(place: Place) -> None:
    place.texts(*TEXTS[:3])
    place.run()
    code = (
        "import sys; from batchrun.cli import batchrun_group; "
        "batchrun_group.main(['plan', 'job.toml'], standalone_mode=False); "
        "heavy = {'scipy', 'pyreqwest', 'anyio', 'batchrun.evaluation.statistics.intervals'}; "
        "heavy.add('batchrun.evaluation.frame'); "
        "print(heavy & set(sys.modules), file=sys.stderr)"
    )
    environment = {**os.environ, "ABLIT_KEY": place.key}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=place.folder, env=environment, capture_output=True, text=True
    )
    assert done.stderr.splitlines()[-1] == "set()"


def test_the_journal_says_how_a_sample_was_drawn_before_its_first_request(place: Place) -> None:
    place.texts(*TEXTS)
    sampled(place, 4, "output.seed=9")
    journal = create_or_open(place.folder / "out.run" / "journal.sqlite")
    notes = [json.loads(note) for note in journal.samplings().values()]
    journal.close()
    assert notes == [{"order": "random", "seed": 9, "cluster": None, "stratify": None, "sample": 4}]
