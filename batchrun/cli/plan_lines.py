"""A plan for people."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from batchrun.amounts import NANO, usd_text
from batchrun.cli.pool_lines import pool_line
from batchrun.cli.summary_lines import caching_line
from batchrun.runs.summary import reason_lines


def plan_lines(plan: dict[str, Any]) -> Iterator[str]:
    """Yields the plan for people, line by line, without the first request."""
    yield _rows(plan["rows"])
    yield from reason_lines(plan["reasons"])
    yield from _expected(plan["expected"], plan["rows"]["to_send"])
    yield _worst(plan["worst"], plan["rows"]["to_send"])
    yield _budget(plan)
    if "pool" in plan:
        yield pool_line(plan["pool"])
    yield from _time(plan)
    if plan["caching"] is not None:
        yield caching_line(plan["caching"])
    if plan["evaluation"] is not None:
        yield f"outlook   {plan['evaluation']['text']}"
    for note in plan["notes"]:
        yield f"note      {note}"


def request_lines(plan: dict[str, Any]) -> Iterator[str]:
    """Yields requests as they would be sent, as JSON with a line above: the first, or those to be shown."""
    for shown in plan["shown"]:
        yield f"row {shown['row']:,}, {'the longest request' if shown['longest'] else 'at random'}:"
        yield from _json_lines(shown["request"])
    if plan["first_request"] is not None and not plan["shown"]:
        yield "first request, as it would be sent:"
        yield from _json_lines(plan["first_request"])


def _json_lines(request: Any) -> list[str]:
    shown = msgspec.json.encode(_without_image_data(request))
    return msgspec.json.format(shown, indent=2).decode().splitlines()


def _rows(rows: dict[str, int]) -> str:
    invalid_labels = f", {rows['invalid_labels']:,} with invalid answers" if rows["invalid_labels"] else ""
    unsendable = f", {rows['invalid']:,} can't be sent" if rows["invalid"] else ""
    in_progress = f", {rows['half_done']:,} of them half done" if rows["half_done"] else ""
    return (
        f"rows      {rows['total']:,}: {rows['answered']:,} answered{invalid_labels}, "
        f"{rows['failed']:,} failed, {rows['duplicates']:,} duplicates{unsendable}, "
        f"{rows['to_send']:,} to send{in_progress}"
    )


def _expected(expected: dict[str, Any], rows: int) -> Iterator[str]:
    requests = _requests(expected["requests"], rows)
    tokens = f"{expected['input_tokens']:,} + {expected['output_tokens']:,} tokens"
    yield f"expected  {_usd(expected['usd'])}, {requests}{tokens} ({expected['basis']})"
    ranges = expected["intervals"]
    if ranges is not None and expected["requests"]:
        cost = "" if ranges["usd"] is None else f"{_usd(ranges['usd'][0])} to {_usd(ranges['usd'][1])}, "
        inputs, outputs = (_range(ranges[kind]) for kind in ("input_tokens", "output_tokens"))
        sure = "with 95 % confidence" if expected["sample"] else "if the other rows are like these"
        yield f"          {cost}{inputs} + {outputs} tokens {sure}"


def _worst(worst: dict[str, Any], rows: int) -> str:
    highest = f"{_usd(worst['usd_per_row'])} for the most expensive row"
    if worst["usd_per_row"] != worst["usd_per_request"]:
        highest += f", {_usd(worst['usd_per_request'])} for its most expensive request"
    if worst["usd_per_row_unrepaired"] != worst["usd_per_row"]:
        highest += f", {_usd(worst['usd_per_row_unrepaired'])} for a row without repairs"
    unrepaired = ""
    if worst["usd_unrepaired"] != worst["usd"]:
        unrepaired = f" ({_usd(worst['usd_unrepaired'])} without repairs)"
    amounts = (
        f"{_usd(worst['usd'])}{unrepaired}, {_requests(worst['requests'], rows)}{worst['tokens']:,} tokens"
    )
    return f"worst     {amounts}; {highest}"


def _budget(plan: dict[str, Any]) -> str:
    budget, rows = plan["budget"], plan["rows"]
    left = budget["usd_left_by_all_caps"]
    if left is None:
        return "budget    no cap in USD; set one with budget.usd or --max-usd"
    told = f"{_usd(left)} left" if budget["usd"] is None else ""
    if budget["usd"] is not None:
        told = f"{_usd(budget['usd_left'])} left of {_usd(budget['usd'])}"
        told += f", {_usd(left)} by all caps" if left < budget["usd_left"] else ""
    return (
        f"budget    {told}: "
        f"about {budget['rows_expected']:,} of {rows['to_send']:,} rows, "
        f"{budget['rows_at_worst']:,} if every response costs its worst case"
    )


def _time(plan: dict[str, Any]) -> Iterator[str]:
    expected = plan["expected"]
    texts = []
    if expected["seconds"]:
        low, high = expected["intervals"]["seconds"]
        texts.append(f"about {_seconds(expected['seconds'])} s ({_seconds(low)} to {_seconds(high)})")
    if plan["seconds_at_best"] is not None:
        texts.append(f"at least {plan['seconds_at_best']:,.0f} s at the given limits")
    if texts:
        yield f"time      {'; '.join(texts)}"


def _requests(requests: int, rows: int) -> str:
    """Returns the number of requests, for jobs whose rows may take more than one."""
    return "" if requests == rows else f"{requests:,} requests, "


def _seconds(seconds: float) -> str:
    return f"{seconds:,.0f}" if seconds >= 10 else f"{seconds:.1f}"


def _range(ends: Sequence[float]) -> str:
    return f"{ends[0]:,} to {ends[1]:,}"


def _without_image_data(value: Any) -> Any:
    """Replaces the base64 text of images in a request shown to people: it would fill the screen."""
    if isinstance(value, list):
        return [_without_image_data(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("type") == "base64" and isinstance(value.get("data"), str):
        return {**value, "data": f"({len(value['data']):,} characters)"}
    return {key: _without_image_data(item) for key, item in value.items()}


def _usd(amount: float | None) -> str:
    return "unknown USD (no prices)" if amount is None else usd_text(round(amount * NANO))
