"""The table [evaluation] of a job file."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

METRICS = ("exact", "contains", "regex", "numeric", "f1", "choice", "json")
PYTHON_METRIC = "python:"

Share = Annotated[float, Meta(gt=0, lt=1)]


class EarlyStop(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When enough is known. Decided by a 95 % confidence sequence, which may be looked at after every row."""

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
    """Each answer is scored against a column of the input; a sample of the rows tells about the whole."""

    expected: Annotated[
        str,
        Meta(
            min_length=1,
            description="Column of the right answers. A null cell: the row isn't scored. "
            "A list of texts: each of them is right.",
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
        Meta(description="For `numeric`: how far from the expected number is still right. Left out: 0."),
    ] = None
    cluster: Annotated[
        str | None,
        Meta(
            description="Column that says which rows belong together, such as an author. Whole clusters are "
            "asked in random order, and the interval allows for rows of a cluster being alike."
        ),
    ] = None
    stratify: Annotated[
        str | None,
        Meta(
            description="Column of the strata, such as a language. However many rows are asked, "
            "each stratum has its share of them."
        ),
    ] = None
    target: Annotated[
        Literal["table", "population"],
        Meta(
            description="What the interval is about: the rows of this `table`, so that nothing is open once "
            "all are asked; or the `population` that they were drawn from, of which even all are a sample."
        ),
    ] = "table"
    stop: Annotated[EarlyStop | None, Meta(description="Stop asking once enough is known.")] = None
