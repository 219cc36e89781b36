"""What a run would send and cost, without sending anything."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from batchrun.amounts import NOTHING, Amount, usd, usd_text
from batchrun.job import Job, output_path, run_folder
from batchrun.journal import Journal, Totals, open_for_reading
from batchrun.occurrences import OccurrenceCounter
from batchrun.opening import opening_tariff
from batchrun.pricing import Tariff
from batchrun.prompts import InvalidRow, Request
from batchrun.run_folder import RunFolder
from batchrun.tables.reader import Table
from batchrun.tables.writer import check_writable
from batchrun.workload import Workload, open_workload

BYTES_PER_TOKEN = 4
SHARE_OF_MAX_TOKENS = 0.5
"""The guess before any answer: text has about four bytes a token, answers use half of max_tokens."""


@dataclass(slots=True)
class _Counts:
    total: int = 0
    answered: int = 0
    failed: int = 0
    duplicates: int = 0
    invalid: int = 0
    to_send: int = 0
    worst: Amount = NOTHING
    most_expensive: int = 0
    input_guess: int = 0
    output_bound: int = 0
    first: Request | None = None


def plan_job(job: Job, *, sandbox: bool = False, table: Table | None = None) -> dict[str, Any]:
    """The plan as JSON-able values.

    `expected` rests on the answers in the journal where there are any (`basis` says so), else on a guess;
    `worst` is what a run reserves. A `table` takes the place of the job's input. Amounts are in USD and
    tokens, times in seconds. Raises UsageError for whatever a run would refuse.
    """
    workload = open_workload(job, sandbox=sandbox, table=table)
    check_writable(output_path(job), workload.schema)
    path = RunFolder(run_folder(job)).journal
    journal = open_for_reading(path) if path.exists() else None
    try:
        before = journal.totals(sandbox) if journal is not None else Totals()
        tariff = opening_tariff(job, sandbox, before)
        counts = _count(workload, journal, tariff)
    finally:
        if journal is not None:
            journal.close()
    return _plan(job, counts, tariff, before)


def _count(workload: Workload, journal: Journal | None, tariff: Tariff) -> _Counts:
    counts = _Counts()
    occurrences = OccurrenceCounter()
    for chunk in workload.chunks([]):
        requests = [request for request in chunk.requests if not isinstance(request, InvalidRow)]
        counts.total += len(chunk.requests)
        counts.invalid += len(chunk.requests) - len(requests)
        digests = tuple({request.digest for request in requests})
        settled = journal.settled_digests(digests) if journal is not None else {}
        for request in requests:
            if occurrences.count(request.digest) > 1:
                counts.duplicates += 1
            elif request.digest in settled:
                counts.failed += settled[request.digest]
                counts.answered += not settled[request.digest]
            else:
                _add(counts, request, tariff)
    return counts


def _add(counts: _Counts, request: Request, tariff: Tariff) -> None:
    worst = tariff.worst_case(request.input_bound, request.output_bound or 0)
    counts.to_send += 1
    counts.worst = counts.worst.plus(worst)
    counts.most_expensive = max(counts.most_expensive, worst.nano_usd)
    # An image has far fewer tokens than bytes: the bound, which counts it as an image, says how few.
    counts.input_guess += min(len(request.body) // BYTES_PER_TOKEN, request.input_bound)
    counts.output_bound += request.output_bound or 0
    counts.first = counts.first or request


def _plan(job: Job, counts: _Counts, tariff: Tariff, before: Totals) -> dict[str, Any]:
    input_tokens, output_tokens, basis = _expected_tokens(counts, before)
    expected = tariff.worst_case(input_tokens, output_tokens).nano_usd if tariff.priced else None
    left = (
        None if job.budget.nano_usd is None else max(0, job.budget.nano_usd - before.spend.committed.nano_usd)
    )
    return {
        "rows": {
            "total": counts.total,
            "answered": counts.answered,
            "failed": counts.failed,
            "duplicates": counts.duplicates,
            "invalid": counts.invalid,
            "to_send": counts.to_send,
        },
        "expected": {
            "input_tokens": input_tokens,
            "output_tokens": output_tokens,
            "usd": None if expected is None else usd(expected),
            "basis": basis,
        },
        "worst": {
            "tokens": counts.worst.tokens,
            "usd": usd(counts.worst.nano_usd) if tariff.priced else None,
            "usd_per_row": usd(counts.most_expensive) if tariff.priced else None,
        },
        "budget": {
            "usd": None if job.budget.nano_usd is None else usd(job.budget.nano_usd),
            "usd_left": None if left is None else usd(left),
            "rows_expected": _rows_bought(left, expected, counts.to_send),
            "rows_at_worst": _rows_bought(left, counts.worst.nano_usd, counts.to_send),
        },
        "seconds_at_best": _seconds_at_best(job, counts.to_send, input_tokens + output_tokens),
        "first_request": None if counts.first is None else msgspec.json.decode(counts.first.body),
    }


def _expected_tokens(counts: _Counts, before: Totals) -> tuple[int, int, str]:
    if before.answered and counts.to_send:
        share = counts.to_send / before.answered
        basis = f"the {before.answered:,} answers in the journal"
        return round(before.input_tokens * share), round(before.output_tokens * share), basis
    guess = f"a guess: {BYTES_PER_TOKEN} bytes a token, answers of half of max_tokens"
    return counts.input_guess, int(counts.output_bound * SHARE_OF_MAX_TOKENS), guess


def _rows_bought(left: int | None, whole: int | None, rows: int) -> int | None:
    if left is None or whole is None:
        return None
    return rows if whole <= left else rows * left // whole


def _seconds_at_best(job: Job, requests: int, tokens: int) -> float | None:
    limits = job.limits
    minutes = [
        amount / limit
        for amount, limit in ((requests, limits.requests_per_minute), (tokens, limits.tokens_per_minute))
        if limit is not None
    ]
    return round(max(minutes) * 60, 1) if minutes else None


def plan_lines(plan: dict[str, Any]) -> list[str]:
    """The plan for people."""
    return list(_lines(plan))


def _lines(plan: dict[str, Any]) -> Iterator[str]:
    rows, expected, worst, budget = plan["rows"], plan["expected"], plan["worst"], plan["budget"]
    yield (
        f"rows      {rows['total']:,}: {rows['answered']:,} answered, {rows['failed']:,} failed, "
        f"{rows['duplicates']:,} duplicates, {rows['invalid']:,} invalid, {rows['to_send']:,} to send"
    )
    tokens = f"{expected['input_tokens']:,} + {expected['output_tokens']:,} tokens"
    yield f"expected  {_usd(expected['usd'])}, {tokens} ({expected['basis']})"
    dearest = _usd(worst["usd_per_row"])
    yield f"worst     {_usd(worst['usd'])}, {worst['tokens']:,} tokens; {dearest} for the dearest row"
    if budget["usd"] is not None:
        yield (
            f"budget    {_usd(budget['usd_left'])} left of {_usd(budget['usd'])}: "
            f"about {budget['rows_expected']:,} of {rows['to_send']:,} rows, "
            f"{budget['rows_at_worst']:,} if every answer is as dear as it can be"
        )
    else:
        yield "budget    no cap in USD; set one with budget.usd or --max-usd"
    if plan["seconds_at_best"] is not None:
        yield f"time      at least {plan['seconds_at_best']:,.0f} s at the given limits"
    if plan["first_request"] is not None:
        yield "first request, as it would be sent:"
        shown = msgspec.json.encode(_without_image_data(plan["first_request"]))
        yield from msgspec.json.format(shown, indent=2).decode().splitlines()


def _without_image_data(value: Any) -> Any:
    """A request for people: the base64 text of images would fill the screen."""
    if isinstance(value, list):
        return [_without_image_data(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("type") == "base64" and isinstance(value.get("data"), str):
        return {**value, "data": f"({len(value['data']):,} characters)"}
    return {key: _without_image_data(item) for key, item in value.items()}


def _usd(amount: float | None) -> str:
    return "unknown USD (no prices)" if amount is None else usd_text(round(amount * 10**9))
