"""Every way a run ends has its exit code, a last line that says how to go on, and whole answers kept."""

import socket

import pytest

from tests.acceptance.answering import answering, error
from tests.acceptance.command import Place, sandbox_process, until

TEXTS = [f"text {n}" for n in range(20)]
FLAGGED = "[sandbox:flag self-harm]"


def statuses(place: Place) -> dict[str, int]:
    column = place.column("status")
    return {status: column.count(status) for status in set(column)}


def test_rows_that_are_refused_end_in_3_and_the_others_have_their_answers(place: Place) -> None:
    place.texts("one", FLAGGED, "two")
    done = place.run()
    assert done.code == 3
    assert "1 row of 3 failed" in done.last_line
    assert "--retry-failed" in done.last_line
    one, refused, two = place.rows()
    assert (one["status"], two["status"]) == ("ok", "ok")
    assert (refused["status"], refused["error_code"], refused["output"]) == (
        "failed",
        "content_flagged",
        None,
    )
    assert "self-harm" in refused["error"]
    assert refused["attempts"] == 1


def test_flagged_categories_of_the_job_are_sent(place: Place) -> None:
    place.texts("[sandbox:flag hate] a", "[sandbox:flag illicit] b")
    assert place.run('request.flagged_categories=["hate"]').code == 3
    assert place.column("status") == ["failed", "ok"]


def test_failed_rows_are_asked_again_with_retry_failed_alone(place: Place) -> None:
    place.texts("one", FLAGGED)
    place.run()
    assert place.requests == 2
    assert place.run().code == 3
    assert place.requests == 2
    assert place.run(options=["--retry-failed"]).code == 3
    assert place.requests == 3


def test_retry_failed_mends_rows_whose_cause_has_gone(place: Place) -> None:
    place.texts(*TEXTS[:4])
    place.sandbox.set("faults", {"reset-before": 1})
    done = place.run("retry.max_attempts=2", "retry.max_wait_seconds=0.1")
    assert (done.code, statuses(place)) == (3, {"failed": 4})
    assert set(place.column("attempts")) == {2}
    place.sandbox.set("faults", {})
    assert place.run(options=["--retry-failed"]).code == 0
    assert statuses(place) == {"ok": 4}
    assert set(place.column("attempts")) == {3}


CAPS = {
    "usd": ("budget.usd=0.002", "budget.usd=1"),
    "usd_per_run": ("budget.usd_per_run=0.002", "budget.usd_per_run=1"),
    "usd_per_day": ("budget.usd_per_day=0.002", "budget.usd_per_day=1"),
    "credits": ("budget.credits=6", "budget.credits=1000"),
    "keep_credits": ("budget.keep_credits=990", "budget.keep_credits=1"),
    "tokens": ("budget.tokens=400", "budget.tokens=100000"),
    "rows": ("budget.rows=6", "budget.rows=1000"),
}


@pytest.mark.parametrize("cap", CAPS)
def test_a_cap_stops_the_run_before_it_is_passed_and_a_higher_one_goes_on(place: Place, cap: str) -> None:
    low, high = CAPS[cap]
    place.texts(*TEXTS)
    place.sandbox.set("credits", {"credits": 1000})
    done = place.run(low, "limits.concurrency=4")
    assert done.code == 4
    assert f"budget.{cap}" in done.last_line
    assert "the same command" in done.last_line
    bill, count = place.bill(), statuses(place)
    assert 0 < count["ok"] < len(TEXTS)
    assert count == {"ok": bill["requests"], "pending": len(TEXTS) - bill["requests"]}
    limit = float(low.partition("=")[2])
    spent = {
        "credits": bill["credits"],
        "keep_credits": 1980 - 990 - bill["credits"],
        "rows": bill["requests"],
    }
    tokens = bill["input_tokens"] + bill["output_tokens"]
    assert {**spent, "tokens": tokens}.get(cap, bill["usd"]) <= limit
    topped_up = ["--topped-up"] if cap == "keep_credits" else []
    assert place.run(high, options=topped_up).code == 0
    assert place.requests == len(TEXTS), "no row was asked twice"


def test_the_cap_over_the_life_of_the_journal_holds_over_several_runs(place: Place) -> None:
    place.texts(*TEXTS)
    for _ in range(3):
        assert place.run("budget.usd=0.002").code == 4
    assert place.bill()["usd"] <= 0.002
    assert place.summary()["usd"]["budget"] == 0.002


def test_the_cap_of_a_run_lets_the_next_run_go_on(place: Place) -> None:
    place.texts(*TEXTS)
    codes = [place.run("budget.rows=8").code for _ in range(3)]
    assert codes == [4, 4, 0]
    assert place.requests == len(TEXTS)


SPENT = {
    "usd": ("budget.usd=0.0001", "raise budget.usd"),
    "usd_per_day": ("budget.usd_per_day=0.0001", "after midnight UTC"),
    "credits": ("budget.credits=1", "raise budget.credits"),
    "tokens": ("budget.tokens=10", "raise budget.tokens"),
}


@pytest.mark.parametrize("cap", SPENT)
def test_a_cap_below_what_is_spent_lets_nothing_through_and_keeps_what_is_there(
    place: Place, cap: str
) -> None:
    lowered, how_to_go_on = SPENT[cap]
    place.texts(*TEXTS)
    place.sandbox.set("credits", {"credits": 1000})
    assert place.run("budget.rows=6").code == 4
    done = place.run(lowered)
    assert done.code == 4
    assert f"budget.{cap}" in done.last_line
    assert how_to_go_on in done.last_line
    assert place.requests == 6
    assert statuses(place) == {"ok": 6, "pending": 14}
    planned = place.command("plan", "job.toml", "--json", "--set", lowered).summary
    assert planned["budget"]["usd_left"] == (0 if cap == "usd" else None)


def test_an_answer_above_its_worst_case_is_booked_in_full_and_said(place: Place) -> None:
    """The price was set a thousand times too low."""
    place.texts("one", "two", "three")
    low = ("pricing.input_usd_per_million=0.005", "pricing.output_usd_per_million=0.005")
    done = place.run(*low, "budget.usd=1", "limits.concurrency=1")
    assert done.code == 0
    summary, bill = place.summary(), place.bill()
    assert summary["usd"]["settled"] == bill["usd"] > 0
    assert summary["overruns"] >= 1
    assert "raise the prices" in done.err
    ((first,),) = place.journal("SELECT nano_usd FROM attempts ORDER BY attempt LIMIT 1")
    assert first > 0


def test_a_cap_of_nothing_lets_nothing_through(place: Place) -> None:
    place.texts("one")
    assert place.run("budget.usd=0").code == 4
    assert place.requests == 0
    assert statuses(place) == {"pending": 1}


def test_the_cap_in_seconds_drains_and_goes_on_later(slow_place: Place) -> None:
    slow_place.texts(*TEXTS)
    done = slow_place.run("budget.seconds=0.6", "limits.concurrency=4")
    assert done.code == 4
    assert "budget.seconds" in done.last_line
    bill = slow_place.bill()
    assert statuses(slow_place) == {"ok": bill["requests"], "pending": len(TEXTS) - bill["requests"]}
    assert slow_place.run().code == 0
    assert slow_place.requests == len(TEXTS)


def test_a_wrong_key_stops_the_run_at_once(place: Place) -> None:
    place.texts(*TEXTS)
    with sandbox_process("--key", "sk-right") as sandbox:
        done = place.run(f"endpoint.base_url={sandbox.base_url}", "limits.concurrency=2")
        refused = sandbox.bill(place.key)["requests"]
    assert done.code == 5
    assert "the API key is not known. 20 rows pending." in done.last_line
    assert refused <= 2
    assert statuses(place) == {"pending": len(TEXTS)}


def test_the_run_goes_on_after_a_top_up(place: Place) -> None:
    place.texts(*TEXTS)
    place.sandbox.set("credits", {"credits": 5})
    done = place.run("limits.concurrency=2")
    assert done.code == 5
    assert "top up" in done.last_line
    assert statuses(place) == {"ok": 5, "pending": 15}
    place.sandbox.set("credits", {"credits": 100})
    assert place.run().code == 0
    assert place.bill()["billed_requests"] == len(TEXTS)


def test_a_wrong_url_is_named(place: Place) -> None:
    place.texts("one")
    done = place.run(f"endpoint.base_url={place.sandbox.base_url}/wrong")
    assert done.code == 5
    assert "/wrong/v1/messages" in done.last_line


REFUSALS = {
    "permission": (error(403, "this key may not do this"), "this key may not do this"),
    "redirect": (
        error(308, "", location="https://example.com/v1/messages"),
        "redirects to https://example.com",
    ),
    "no method": ((405, {}, b""), "base_url"),
    "page of a proxy": ((404, {"content-type": "text/html"}, b"<title>Nothing here</title>"), "Nothing here"),
    "a long wait": (error(429, "come back tomorrow", retry_after="86400"), "retry.max_wait_seconds"),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_an_endpoint_that_wont_have_it_ends_the_run_in_5(place: Place, refusal: str) -> None:
    reply, named = REFUSALS[refusal]
    place.texts("one", "two")
    with answering(lambda _: reply) as base_url:
        done = place.run(f"endpoint.base_url={base_url}")
    assert done.code == 5, done.err
    assert named in done.last_line
    assert statuses(place) == {"pending": 2}


def test_an_endpoint_that_stays_down_ends_the_run_in_5(place: Place) -> None:
    place.texts("one", "two")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        done = place.run(f"endpoint.base_url={url}", "retry.outage_seconds=1", "retry.max_wait_seconds=0.2")
    assert done.code == 5, done.err
    assert statuses(place) == {"pending": 2}
    assert place.run().code == 0


def test_another_run_of_the_same_output_is_turned_away_until_the_first_is_dead(slow_place: Place) -> None:
    slow_place.texts(*TEXTS)
    with slow_place.start("run", "job.toml", "--set", "limits.concurrency=1") as process:
        until(lambda: slow_place.requests >= 1)
        second = slow_place.run()
        assert process.poll() is None, "the run has ended too early to prove anything"
        process.kill()
    assert second.code == 75
    assert second.err.count("\n") == 1
    assert "out.run" in second.err
    assert slow_place.run("limits.concurrency=20").code == 0, "the kernel has released the lock"


def test_the_free_request_is_one_request_without_a_key(place: Place) -> None:
    place.texts("one", "two")
    with sandbox_process() as sandbox:
        done = place.run(f"endpoint.base_url={sandbox.base_url}", "request.free_tier=true")
    assert done.code == 4
    assert "free tier" in done.last_line
    assert statuses(place) == {"ok": 1, "pending": 1}


@pytest.mark.parametrize("fault", ["400-credit", "503-no-retry", "403"])
def test_what_concerns_every_request_fails_no_row(place: Place, fault: str) -> None:
    place.texts(*TEXTS)
    place.sandbox.set("faults", {fault: 1})
    done = place.run("retry.outage_seconds=0.5", "retry.max_wait_seconds=0.1", "retry.max_attempts=2")
    assert done.code == 5, done.err
    assert f"/v1/messages answered {fault[:3]} for row " in done.last_line
    assert statuses(place) == {"pending": len(TEXTS)}
    place.sandbox.set("faults", {})
    assert place.run().code == 0


def test_a_wrong_model_is_asked_for_no_more_rows_than_the_cap_allows(place: Place) -> None:
    place.texts(*TEXTS)
    done = place.run('request.model="no-such-model"', "budget.rows=2")
    assert done.code == 4
    assert "2 model_not_found (first: row 1)" in done.err
    assert sum(place.column("attempts")) == 2
    assert place.run("budget.rows=3").code == 4
    assert place.requests == 2 + 3


def test_status_says_how_to_go_on_and_the_summary_of_another_run_does_not(place: Place) -> None:
    place.texts(*TEXTS)
    place.run("budget.rows=2")
    (last,) = [line for line in place.command("status", "job.toml").out.splitlines() if "last run" in line]
    assert last.endswith("To go on: the same command sends the next rows.")
    summary = place.folder / "out.run" / "summary.json"
    summary.write_text(summary.read_text().replace('"started_at": "20', '"started_at": "19'))
    assert "To go on" not in place.command("status", "job.toml").out


def test_cut_answers_are_not_advised_to_be_sent_as_they_were(place: Place) -> None:
    place.texts(*TEXTS[:3])
    done = place.run("request.max_tokens=1", "output.accept=[]")
    assert (done.code, statuses(place)) == (3, {"invalid": 3})
    assert "raise request.max_tokens" in done.last_line
    assert "--retry-failed" not in done.last_line
