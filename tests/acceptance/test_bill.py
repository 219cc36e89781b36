"""What the output says was spent is what the sandbox has charged, to the last nano-USD."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from tests.acceptance.command import Place, as_options, sandbox_process

TEXTS = [f"text number {n % 30}" for n in range(40)]  # ten of them are duplicates
QUICK = ("retry.max_wait_seconds=1", "retry.max_attempts=12")


def sums(place: Place) -> dict[str, Any]:
    """The output's columns, summed up in the terms of the bill."""
    rows = place.rows()
    return {
        "input_tokens": sum(row["input_tokens"] or 0 for row in rows),
        "output_tokens": sum(row["output_tokens"] or 0 for row in rows),
        "credits": sum(row["credits_used"] or 0 for row in rows),
        "nano_usd": round(sum(row["cost_usd"] or 0 for row in rows) * 10**9),
        "requests": sum(row["attempts"] for row in rows),
    }


def of_bill(place: Place) -> dict[str, Any]:
    bill = place.bill()
    return {name: bill[name] for name in ("input_tokens", "output_tokens", "credits", "nano_usd", "requests")}


def spent(place: Place) -> tuple[int, int]:
    """The journal's settled and uncertain nano-USD."""
    ((settled, uncertain),) = place.journal(
        "SELECT sum(nano_usd) FILTER (WHERE outcome = 'answered'),"
        " ifnull(sum(nano_usd) FILTER (WHERE outcome = 'uncertain'), 0) FROM attempts"
    )
    return settled, uncertain


@contextmanager
def faulty(place: Place, fault: str) -> Iterator[Place]:
    """The place with a sandbox of its own, in which the same arrivals meet the same faults every time."""
    with sandbox_process("--fault", f"{fault}=0.3", "--seed", "1") as sandbox:
        yield replace(place, sandbox=sandbox)


@pytest.mark.parametrize("stream", ["false", "true"])
@pytest.mark.parametrize("duplicates", ["share", "separate"])
def test_rows_tokens_credits_and_usd_add_up_to_the_bill(place: Place, duplicates: str, stream: str) -> None:
    place.texts(*TEXTS)
    assert place.run(f"output.duplicates={duplicates}", f"request.stream={stream}").code == 0
    assert sums(place) == of_bill(place)
    assert place.requests == (30 if duplicates == "share" else 40)
    assert place.column("shared").count(True) == (10 if duplicates == "share" else 0)
    assert spent(place) == (place.bill()["nano_usd"], 0)


def test_rows_that_share_an_answer_have_it_and_cost_nothing(place: Place) -> None:
    place.texts("same", "other", "same")
    place.run()
    first, _, second = place.rows()
    assert second["output"] == first["output"]
    assert (first["shared"], second["shared"]) == (False, True)
    assert (second["cost_usd"], second["credits_used"], second["input_tokens"], second["attempts"]) == (
        (0, 0, 0, 0)
    )


@pytest.mark.parametrize("fault", ["500", "429", "529", "reset-before"])
def test_retries_of_what_was_not_billed_add_up_too(place: Place, fault: str) -> None:
    rows = 4 if fault == "429" else 12  # each 429 is a second's pause
    place.texts(*TEXTS[:rows])
    with faulty(place, fault) as place:
        check_retries(place, fault, rows)


def check_retries(place: Place, fault: str, rows: int) -> None:
    assert place.run(f"endpoint.base_url={place.sandbox.base_url}", *QUICK).code == 0
    assert place.column("status") == ["ok"] * rows
    if fault == "reset-before":  # nobody on this side can know that it was not billed
        settled, uncertain = spent(place)
        assert settled == place.bill()["nano_usd"]
        assert settled <= place.bill()["nano_usd"] <= settled + uncertain
    else:
        assert {**of_bill(place), "requests": 0} == {**sums(place), "requests": 0}
        assert spent(place) == (place.bill()["nano_usd"], 0)
    assert sum(place.column("attempts")) == len(place.journal("SELECT 1 FROM attempts"))
    assert place.summary()["requests"]["retried"] > 0


@pytest.mark.parametrize(
    ("fault", "settings"),
    [
        ("reset-after", ()),
        ("truncated", ()),
        ("hang", ("endpoint.timeout_seconds=1",)),
        ("slow-headers", ("endpoint.timeout_seconds=1",)),
        ("stream-error", ("request.stream=true",)),
    ],
)
def test_what_was_billed_without_an_answer_is_covered_by_the_uncertain_part(
    place: Place, fault: str, settings: tuple[str, ...]
) -> None:
    place.texts(*TEXTS[:10])
    with faulty(place, fault) as place:
        assert place.run(f"endpoint.base_url={place.sandbox.base_url}", *QUICK, *settings).code == 0
        bill = place.bill()["nano_usd"]
    settled, uncertain = spent(place)
    assert settled < bill <= settled + uncertain
    usd = place.summary()["usd"]
    assert (usd["settled"], usd["uncertain"]) == (settled / 10**9, uncertain / 10**9)
    assert round(sum(place.column("uncertain_usd")) * 10**9) == uncertain
    assert round(sum(place.column("cost_usd")) * 10**9) == settled


def test_an_answer_that_names_no_cost_is_booked_at_the_job_s_prices(place: Place) -> None:
    place.texts("one", "two")
    with sandbox_process("--cost-fields", "absent") as sandbox:
        assert place.run(f"endpoint.base_url={sandbox.base_url}").code == 0
        bill = sandbox.bill(place.key)
    assert spent(place)[0] == bill["nano_usd"]
    assert round(sum(place.column("cost_usd")) * 10**9) == bill["nano_usd"]


@pytest.mark.parametrize("cost_fields", ["present", "null"])
def test_without_prices_the_cost_is_what_the_answer_says_and_null_where_it_says_nothing(
    place: Place, cost_fields: str
) -> None:
    place.texts("one")
    text = place.job_file.read_text()
    place.job_file.write_text(text.replace("input_usd_per_million = 5.0\noutput_usd_per_million = 5.0\n", ""))
    with sandbox_process("--cost-fields", cost_fields) as sandbox:
        done = place.run(f"endpoint.base_url={sandbox.base_url}")
        bill = sandbox.bill(place.key)
    assert done.code == 0
    (row,) = place.rows()
    assert row["cost_usd"] == (bill["usd"] if cost_fields == "present" else None)
    assert row["input_tokens"] == bill["input_tokens"]
    assert "[pricing]" not in done.err, "no worst case was named that could have been passed"


SYSTEM = 'prompt.system=[{type = "text", text = "You label %s.", cache_control = {type = "ephemeral"%s}}]'


@pytest.mark.parametrize("lifetime", ["", ', ttl = "1h"'])
@pytest.mark.parametrize("cost_fields", ["present", "absent"])
def test_cached_input_is_booked_as_it_is_billed(place: Place, cost_fields: str, lifetime: str) -> None:
    place.texts(*TEXTS[:6])
    system = SYSTEM % ("reviews of many kinds " * 20, lifetime)
    of_cache = "pricing.cache_read_usd_per_million=0.5"
    with sandbox_process("--cost-fields", cost_fields, "--latency", "0.05") as sandbox:
        url = sandbox.base_url
        done = place.run(f"endpoint.base_url={url}", system, of_cache)
        bill = sandbox.bill(place.key)
    assert done.code == 0
    assert spent(place) == (bill["nano_usd"], 0)
    for kind in ("cache_read_tokens", "cache_write_tokens"):
        assert sum(place.column(kind)) == bill[kind] > 0
    assert place.column("cache_read_tokens").count(0) == 1, "the first row has filled the cache"
    assert sum(place.column("input_tokens")) == bill["input_tokens"]
    assert place.summary()["overruns"] == 0
    caching = place.summary()["caching"]
    assert (caching["read_tokens"], caching["write_tokens"]) == (
        bill["cache_read_tokens"],
        bill["cache_write_tokens"],
    )
    plain = (bill["input_tokens"] + bill["output_tokens"]) * 5_000
    assert round(caching["saved_usd"] * 10**9) == plain - bill["nano_usd"] > 0
    assert "USD saved" in done.err
    plan = place.command(
        "plan", "job.toml", "--json", *as_options((system, of_cache, f"endpoint.base_url={url}"))
    )
    assert json.loads(plan.out)["caching"] == caching
