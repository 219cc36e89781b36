"""The table [evaluation] of a job file."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

METRICS = ("exact", "contains", "regex", "numeric", "f1", "choice", "json")
PYTHON_METRIC = "python:"

Share = Annotated[float, Meta(gt=0, lt=1)]


class EarlyStop(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When to stop. Decided by a 95 % confidence sequence, which stays valid when checked after every row."""

    half_width: Annotated[
        Share | None,
        Meta(description="Stop when the interval is this wide to either side: `0.02` is +- 2 points."),
    ] = None
    above: Annotated[
        Share | None, Meta(description="Stop when the mean score is sure to be above this threshold.")
    ] = None
    below: Annotated[
        Share | None,
        Meta(
            description="Stop when the mean score is sure to be below this threshold. "
            "With `above` at the same value: stop when it is decided either way."
        ),
    ] = None


class Evaluation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Scores each answer against an input column; a random sample of rows estimates the score of all."""

    expected: Annotated[
        str,
        Meta(
            min_length=1,
            description="Column of the expected answers. A null cell: the row isn't scored. "
            "A list of texts: each of them is correct.",
        ),
    ]
    metric: Annotated[
        str,
        Meta(
            description="How an answer is scored, from 0 to 1: `exact`, `contains`, `regex`, `numeric`, "
            "`f1`, `choice`, `json`, or `python:module:function`; see [metrics](evaluation.md#metrics)."
        ),
    ]
    tolerance: Annotated[
        Annotated[float, Meta(ge=0)] | None,
        Meta(
            description="For `numeric`: the largest difference from the expected number that is still "
            "correct. "
            "Left out: 0."
        ),
    ] = None
    cluster: Annotated[
        str | None,
        Meta(
            description="Column that groups rows which belong together, such as an author. Whole "
            "clusters are "
            "sent in random order, and the interval allows for similar rows within a cluster."
        ),
    ] = None
    stratify: Annotated[
        str | None,
        Meta(
            description="Column of the strata, such as a language. However many rows are sent, "
            "each stratum has its share of them."
        ),
    ] = None
    target: Annotated[
        Literal["table", "population"],
        Meta(
            description="What the interval describes: the rows of this `table`, so that nothing is "
            "uncertain once all "
            "are scored; or the `population` that they were drawn from, of which all rows are still a sample."
        ),
    ] = "table"
    stop: Annotated[
        EarlyStop | None, Meta(description="Stop sending once the score is known well enough.")
    ] = None
