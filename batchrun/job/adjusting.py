"""The keys of a job that can change while its run is going on, and a job with new values of them."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from msgspec import Struct, ValidationError, convert
from msgspec.structs import asdict, replace

from batchrun.errors import JobError
from batchrun.job.budget import Budget
from batchrun.job.caps import CAPS
from batchrun.job.error_messages import refuse_unknown, wrong_value
from batchrun.job.file import exact_usd, read_overrides
from batchrun.job.rules import check_job
from batchrun.job.spec import Job, Limits

ADJUSTABLE = (
    *(cap.name for cap in CAPS if cap.span != "pool"),
    *(f"limits.{key}" for key in Limits.__struct_fields__),
)
_WHY_NOT = {
    "budget.pool": "its caps are in the pool's own file",
    "endpoint": "its connections are open",
    "pricing": "requests in flight are reserved at these prices",
    "retry": "the rows in progress follow its rules",
    "output": "the output's schema was fixed before the first request",
    "labels": "the output's schema was fixed before the first request",
    "evaluation": "its sample was fixed before the first request",
    "telemetry": "it began with the run",
    "on_finish": "it was tried when the run began",
}
"""By table or by key; of all others: they decide what is sent."""


class _Tables(Struct):
    budget: Budget
    limits: Limits


def read_adjustments(assignments: Sequence[str]) -> dict[str, Any]:
    """Returns the new values by key from texts such as `budget.usd=5`.

    Raises JobError for a key that is unknown or can't change in a run, and for a value that its key can't
    have.
    """
    tables: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals or not text or not assignment.isprintable():
            raise JobError(f"expected KEY=VALUE such as budget.usd=5, got {assignment!r}")
        if text == "null":
            raise JobError(f"{key}: can't be removed while a run is going on; give it another value")
        if key == "stop":
            raise JobError("stop: write stop=true; a stop can't be taken back")
        read_overrides(tables, [assignment])
    refuse_unknown(tables)
    values = {f"{name}.{key}": value for name, table in tables.items() for key, value in table.items()}
    for key in values:
        if key not in ADJUSTABLE:
            why = _WHY_NOT.get(key) or _WHY_NOT.get(key.partition(".")[0], "it decides what is sent")
            raise JobError(
                f"{key} can't change while a run is going on: {why}. Only caps and limits can.\n"
                "Next: change the job file; the next run takes it."
            )
    _converted(_Tables(Budget(), Limits()), values)
    return values


def adjusted(job: Job, values: Mapping[str, Any], *, sandbox: bool) -> Job:
    """Returns the job with new `values` by key. Raises JobError where this run of it can't keep them."""
    new = with_values(job, values)
    check_job(new, sandbox)
    _refuse_unreserved(job.budget, new.budget)
    return new


def with_values(job: Job, values: Mapping[str, Any]) -> Job:
    """Returns the job with new `values` by key. Raises JobError for one that its key can't have."""
    tables = _converted(_Tables(job.budget, job.limits), values)
    return replace(job, budget=tables.budget, limits=tables.limits)


def value_text(job: Job, key: str) -> str | None:
    """Returns the value of an adjustable key as in a job file; None if it isn't set."""
    table, _, name = key.partition(".")
    value = getattr(getattr(job, table), name)
    if isinstance(value, Decimal):
        return f"{value:f}"
    return f"{value:.12g}" if isinstance(value, float) else None if value is None else str(value)


def _converted(tables: _Tables, values: Mapping[str, Any]) -> _Tables:
    filled = {"budget": asdict(tables.budget), "limits": asdict(tables.limits)}
    for name, value in values.items():
        table, _, key = name.partition(".")
        is_usd = any(cap.name == name and cap.unit == "nano_usd" for cap in CAPS)
        filled[table][key] = exact_usd(f"[{table}] {key}", value) if is_usd else value
    try:
        return convert(filled, _Tables)
    except ValidationError as error:
        raise wrong_value(error, filled) from None


def _refuse_unreserved(before: Budget, after: Budget) -> None:
    """Raises JobError for a new cap on a cost that the requests in flight have not reserved."""
    credits_known = any(cap.unit == "credits" for cap in before.given())
    for cap in after.given():
        reserved = before.needs_worst_case and (credits_known or cap.unit != "credits")
        if cap not in before.given() and cap.needs_worst_case and not reserved:
            raise JobError(
                f"{cap.name} can't be added to a run without such a cap: it has reserved nothing for the"
                " requests in flight.\nNext: stop the run, put the cap into the job file, then run it again."
            )
