"""A job: what to ask, where, under which limits, and where the answers go.

One frozen struct for each table of the job file. The descriptions and bounds below make the JSON
schema (`batchrun schema`) and docs/job-file.md. A `Job` is built by `batchrun.job.file` alone, which
checks everything first: whoever holds a `Job` need not check again.
"""

from dataclasses import dataclass
from decimal import Decimal
from hashlib import sha256
from os.path import normpath
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field, json, to_builtins

from batchrun.job.endpoint import Endpoint as Endpoint
from batchrun.job.evaluation import Evaluation
from batchrun.job.labels import Labels
from batchrun.job.on_finish import OnFinish
from batchrun.job.presets import PROVIDER_USD_PER_MILLION, known_usd_per_million
from batchrun.job.urls import without_secrets

Category = Literal["harassment", "hate", "illicit", "sexual"]

_MOST = 10**15  # of anything counted: sums of many such numbers still fit SQLite's 64 bits


class Input(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table whose rows are asked."""

    path: Annotated[
        str,
        Meta(
            min_length=1,
            description="CSV, TSV, JSONL, Parquet or Arrow IPC file, plain or with .gz or .zst; a glob; "
            "an object-store URL. Relative to the job file.",
        ),
    ]


class Prompt(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked of a row: exactly one of `template` and `messages`."""

    template: Annotated[
        str | None,
        Meta(
            description="The user message, in Jinja syntax over the row's columns. "
            "A name that is no column is an error."
        ),
    ] = None
    image: Annotated[
        str | None,
        Meta(
            description="Column of the image before the text of `template`: a path relative to the job file, "
            "an http(s) URL, or bytes; see [images](#images). A null cell: no image."
        ),
    ] = None
    system: Annotated[
        str | tuple[dict[str, Any], ...] | None,
        Meta(
            description="The system prompt, a template too; or a list of content blocks "
            '`{type = "text", text = "..."}`, whose texts are templates. Left out: none is sent.'
        ),
    ] = None
    messages: Annotated[
        str | None,
        Meta(
            description="Instead of `template`: the column that holds the conversation, a list of "
            "{role, content} or that list as JSON text."
        ),
    ] = None


class Request(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parameters of each request."""

    model: Annotated[str, Meta(min_length=1, description="Model id, such as `abliterated-model`.")]
    max_tokens: Annotated[
        Annotated[int, Meta(ge=1, le=_MOST)] | None,
        Meta(
            description="The most tokens that one answer may have. A cap in USD, credits or tokens needs it: "
            "without it a request has no worst case."
        ),
    ] = None
    temperature: Annotated[
        Annotated[float, Meta(ge=0, le=2)] | None,
        Meta(description="Sampling temperature. Left out: the endpoint's default."),
    ] = None
    flagged_categories: Annotated[
        tuple[Category, ...],
        Meta(description="Moderation categories to block, besides those that the provider always blocks."),
    ] = ()
    stream: Annotated[
        bool, Meta(description="Ask for the answer as a stream of events. The output is the same.")
    ] = False
    free_tier: Annotated[
        bool,
        Meta(
            description="Use the provider's one anonymous free request: no key is sent, one request at most."
        ),
    ] = False
    extra: Annotated[
        dict[str, Any], Meta(description="Other fields of the request body, passed through as they are.")
    ] = field(default_factory=dict)
    columns: Annotated[
        dict[str, str],
        Meta(
            description="Parameters that differ by row: parameter = column. A null cell: the job's value. "
            "Parameters: `model`, `max_tokens`, `temperature`, `flagged_categories`, `top_p`, `top_k`, "
            "`stop_sequences`, `metadata`, and any field that `extra` names."
        ),
    ] = field(default_factory=dict)


class Pricing(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The worst case of a request, and the cost of an answer that names none."""

    input_usd_per_million: Annotated[
        Decimal | None,
        Meta(
            description="USD for a million input tokens. Left out: 5.0 at the provider's own address and for "
            "the sandbox, 0 for the preset `local` on this machine; anywhere else a cap in USD needs it."
        ),
    ] = None
    output_usd_per_million: Annotated[
        Decimal | None, Meta(description="USD for a million output tokens. Left out: as for input tokens.")
    ] = None
    credits_per_million_tokens: Annotated[
        Annotated[int, Meta(ge=0, le=_MOST)] | None,
        Meta(description="Credits for a million tokens, input and output alike."),
    ] = None


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The pace. Limits that are left out are found from the endpoint's headers and 429s."""

    requests_per_minute: Annotated[
        Annotated[int, Meta(ge=1, le=_MOST)] | None, Meta(description="Requests in any 60 seconds.")
    ] = None
    tokens_per_minute: Annotated[
        Annotated[int, Meta(ge=1, le=_MOST)] | None,
        Meta(
            description="Tokens in any 60 seconds, input and output together. Requests in flight count at"
            " what the latest answers used: where answers suddenly grow, these can pass it once."
        ),
    ] = None
    concurrency: Annotated[
        int,
        Meta(
            ge=1,
            le=10_000,
            description="Requests in flight at once. It bounds memory and sockets; the pace is set above.",
        ),
    ] = 256


class Retry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is tried again, and for how long."""

    max_attempts: Annotated[
        int,
        Meta(
            ge=1,
            le=1000,
            description="Attempts for one row, the first included. Those that may have been billed (502, 504,"
            " a time-out, a lost connection) always count, in an outage too. Those that cost nothing count"
            " where the row is to blame and not the endpoint; until that is clear, there may be more.",
        ),
    ] = 6
    max_wait_seconds: Annotated[
        float,
        Meta(
            ge=0,
            le=86_400,
            description="The longest wait before an attempt. A longer Retry-After ends the run, resumable.",
        ),
    ] = 120.0
    outage_seconds: Annotated[
        float,
        Meta(
            ge=0,
            le=604_800,
            description="An endpoint that is down for longer than this ends the run, resumable.",
        ),
    ] = 900.0
    in_doubt: Annotated[
        Literal["ask", "leave"],
        Meta(
            description="For a row whose request was sent but whose answer was lost, so it may have been "
            "billed. `ask`: ask again, and the budget counts both. `leave`: the row has failed."
        ),
    ] = "ask"


class Budget(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Caps. Each may be left out; the first one reached stops the run. 0 lets nothing through."""

    usd: Annotated[
        Decimal | None, Meta(description="USD over the life of this output's journal, all runs together.")
    ] = None
    usd_per_run: Annotated[Decimal | None, Meta(description="USD in this run.")] = None
    usd_per_day: Annotated[Decimal | None, Meta(description="USD in one UTC day, from the journal.")] = None
    credits: Annotated[
        Annotated[int, Meta(ge=0, le=_MOST)] | None, Meta(description="Credits over the life of the journal.")
    ] = None
    keep_credits: Annotated[
        Annotated[int, Meta(ge=0, le=_MOST)] | None,
        Meta(description="Stop when the account's remaining credits fall to this."),
    ] = None
    tokens: Annotated[
        Annotated[int, Meta(ge=0, le=_MOST)] | None,
        Meta(description="Tokens over the life of the journal, input and output together."),
    ] = None
    rows: Annotated[
        Annotated[int, Meta(ge=0, le=_MOST)] | None, Meta(description="Rows answered by this run.")
    ] = None
    seconds: Annotated[
        Annotated[float, Meta(ge=0, le=_MOST)] | None, Meta(description="Wall time of this run.")
    ] = None

    @property
    def nano_usd(self) -> int | None:
        """`usd` in nano-USD (10^-9 USD)."""
        return None if self.usd is None else nano_usd(self.usd)

    @property
    def nano_usd_per_run(self) -> int | None:
        """`usd_per_run` in nano-USD."""
        return None if self.usd_per_run is None else nano_usd(self.usd_per_run)

    @property
    def nano_usd_per_day(self) -> int | None:
        """`usd_per_day` in nano-USD."""
        return None if self.usd_per_day is None else nano_usd(self.usd_per_day)


class Output(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the answers go, and in which order they are asked for."""

    path: Annotated[
        str,
        Meta(
            min_length=1,
            description="Ends in .parquet, .csv or .jsonl. The run's folder lies beside it: `labels.run` for "
            "`labels.parquet`. Relative to the job file.",
        ),
    ]
    duplicates: Annotated[
        Literal["share", "separate"],
        Meta(description="Rows with the same request share one answer, or each is asked on its own."),
    ] = "share"
    order: Annotated[
        Literal["input", "random"] | None,
        Meta(
            description="Order of asking; the output keeps the input's order. "
            'Left out: `"random"` with [evaluation], else `"input"`.'
        ),
    ] = None
    seed: Annotated[
        int, Meta(ge=0, le=2**63 - 1, description="Seed of the random order: the same seed, the same order.")
    ] = 0
    prefix: Annotated[
        str, Meta(description="Put before the names of batchrun's columns, where the input has one of them.")
    ] = ""


class JobTables(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The tables of a job file."""

    input: Input
    prompt: Prompt
    request: Request
    endpoint: Endpoint = field(default_factory=Endpoint)
    pricing: Pricing = field(default_factory=Pricing)
    limits: Limits = field(default_factory=Limits)
    retry: Retry = field(default_factory=Retry)
    budget: Budget = field(default_factory=Budget)
    output: Output
    labels: Labels | None = None
    evaluation: Evaluation | None = None
    on_finish: OnFinish | None = None


class Job(JobTables, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A checked job. `base` is the folder that its relative paths start from."""

    base: Path


@dataclass(frozen=True, slots=True)
class Prices:
    """Nano-USD (10^-9 USD) for a million tokens, as whole numbers."""

    input_nano_usd_per_million: int
    output_nano_usd_per_million: int


def nano_usd(usd: Decimal) -> int:
    """USD as whole nano-USD (10^-9 USD). Raises ValueError below 0, above 10^9 USD, or past 9 decimals."""
    if not usd.is_finite() or not 0 <= usd <= 10**9:
        raise ValueError("expected an amount from 0 to 1000000000 USD")
    if usd != usd.quantize(Decimal("1e-9")):
        raise ValueError("expected at most 9 decimals")
    return int(usd.scaleb(9))


def prices(job: Job, sandbox: bool = False) -> Prices | None:
    """The job's prices; where it names none, those that are known for its server.

    None where nothing is known about the cost, and a loaded job has no cap in USD then.
    """
    server = job.endpoint
    known = known_usd_per_million(server.preset, server.base_url)
    default = PROVIDER_USD_PER_MILLION if sandbox else known
    given = job.pricing
    input_usd = default if given.input_usd_per_million is None else given.input_usd_per_million
    output_usd = default if given.output_usd_per_million is None else given.output_usd_per_million
    if input_usd is None or output_usd is None:
        return None
    return Prices(nano_usd(input_usd), nano_usd(output_usd))


def sends_key(job: Job) -> bool:
    """Whether requests carry a key: the free request is anonymous."""
    return job.endpoint.auth != "none" and not job.request.free_tier


def asks_in_random_order(job: Job) -> bool:
    """Whether rows are asked in the seeded random order, as an evaluation is unless output.order is given."""
    if job.output.order is None:
        return job.evaluation is not None
    return job.output.order == "random"


def input_path(job: Job) -> str:
    """The input's path or glob, absolute; a URL as it stands."""
    return job.input.path if "://" in job.input.path else str(job.base / job.input.path)


def output_path(job: Job) -> Path:
    """The output file, absolute."""
    return Path(normpath(job.base / job.output.path))


def run_folder(job: Job) -> Path:
    """The folder beside the output that holds its journal: `labels.run` for `labels.parquet`."""
    return output_path(job).with_suffix(".run")


def fingerprint(job: Job) -> str:
    """SHA-256, as hex, over what makes the requests: prompt, request parameters and base URL."""
    parts = (job.prompt, job.request, job.endpoint.base_url)
    return sha256(json.encode(parts, order="sorted")).hexdigest()


def public_job(job: Job) -> dict[str, Any]:
    """The job's tables as JSON-able values, fit to be shown: USD as exact decimal text, no secrets.

    Values of headers, and whom `on_finish` tells, are masked; a URL loses its user, password and query (a
    signature, often).
    """
    tables: dict[str, Any] = {name: to_builtins(getattr(job, name)) for name in JobTables.__struct_fields__}
    tables["endpoint"]["headers"] = dict.fromkeys(job.endpoint.headers, "***")
    tables["input"]["path"] = without_secrets(job.input.path)
    if job.on_finish is not None:
        tables["on_finish"] |= {key: "***" for key in ("command", "url") if tables["on_finish"][key]}
    return tables
