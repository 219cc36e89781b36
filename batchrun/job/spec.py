"""A job: its prompts, endpoint, limits and output.

One frozen struct for each table of the job file. The descriptions and bounds below make the JSON
schema (`batchrun schema`) and docs/job-file.md. Only `batchrun.job.file` builds a `Job`, and checks
everything first: code that has a `Job` need not check again.
"""

from decimal import Decimal
from hashlib import sha256
from os.path import normpath, realpath
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field, json, to_builtins

from batchrun.amounts import MOST_COUNTED
from batchrun.job.budget import Budget
from batchrun.job.endpoint import Endpoint
from batchrun.job.evaluation import Evaluation
from batchrun.job.input import Input, StoreAddress
from batchrun.job.labels import Labels
from batchrun.job.on_finish import OnFinish
from batchrun.job.parameters import BY_ROW, Category
from batchrun.job.telemetry import Telemetry
from batchrun.job.workers import Workers
from batchrun.tables.endings import WRITTEN_IN_WORDS
from batchrun.text import without_secrets


class Prompt(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The prompt of each row: exactly one of `template` and `messages`."""

    template: Annotated[
        str | None,
        Meta(
            description="The user message, in Jinja syntax over the row's columns. "
            "A name that is not a column is an error."
        ),
    ] = None
    template_file: Annotated[
        str | None,
        Meta(
            description="Instead of `template`: the file that holds it, relative to the job file. "
            "Its last line break is left out."
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
    system_file: Annotated[
        str | None, Meta(description="Instead of `system`: the file that holds it, as `template_file`.")
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
        Annotated[int, Meta(ge=1, le=MOST_COUNTED)] | None,
        Meta(
            description="The most tokens that one response may have. A cap in USD, credits or tokens "
            "needs it: without it a request has no worst case."
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
        bool, Meta(description="Request the response as a stream of events. The output is the same.")
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
            f"Parameters: {', '.join(f'`{name}`' for name in BY_ROW)}, and any field that `extra` names."
        ),
    ] = field(default_factory=dict)


class Pricing(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The prices for a request's worst case, and for the cost of a response that states none."""

    input_usd_per_million: Annotated[
        Decimal | None,
        Meta(
            description="USD for a million input tokens. Left out: 5.0 at the provider's own address, for "
            "`--sandbox` and for the preset `sandbox` on this machine, 0 for the preset `local` there; "
            "anywhere else a cap in USD needs it."
        ),
    ] = None
    output_usd_per_million: Annotated[
        Decimal | None, Meta(description="USD for a million output tokens. Left out: as for input tokens.")
    ] = None
    cache_write_usd_per_million: Annotated[
        Decimal | None,
        Meta(
            description="USD for a million input tokens that are written to the server's cache of prompts "
            "for 5 minutes; see [caching](#prompt-caching). Left out: 1.25 times the price of input."
        ),
    ] = None
    cache_write_1h_usd_per_million: Annotated[
        Decimal | None,
        Meta(description="The same for a lifetime of an hour. Left out: 2 times the price of input."),
    ] = None
    cache_read_usd_per_million: Annotated[
        Decimal | None,
        Meta(
            description="USD for a million input tokens that are read from that cache. Left out: 0.1 times "
            "the price of input for the preset `anthropic`, at the provider's own address and for the "
            "sandbox; anywhere else the price of input."
        ),
    ] = None
    credits_per_million_tokens: Annotated[
        Annotated[int, Meta(ge=0, le=MOST_COUNTED)] | None,
        Meta(description="Credits for a million tokens, input and output alike."),
    ] = None


MOST_IN_FLIGHT = 10_000
"""The highest value of limits.concurrency."""


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The pace. Limits that are left out are learned from the endpoint's headers and 429s."""

    requests_per_minute: Annotated[
        Annotated[int, Meta(ge=1, le=MOST_COUNTED)] | None, Meta(description="Requests in any 60 seconds.")
    ] = None
    tokens_per_minute: Annotated[
        Annotated[int, Meta(ge=1, le=MOST_COUNTED)] | None,
        Meta(
            description="Tokens in any 60 seconds, input and output together. Requests in flight count at"
            " what the latest responses used: where responses suddenly grow, they can exceed it once."
        ),
    ] = None
    concurrency: Annotated[
        int,
        Meta(
            ge=1,
            le=MOST_IN_FLIGHT,
            description="Requests in flight at once. Bounds memory and sockets; the limits set the pace.",
        ),
    ] = 256


class Retry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which failures are retried, and for how long."""

    max_attempts: Annotated[
        int,
        Meta(
            ge=1,
            le=1000,
            description="Attempts for one row, the first included. Attempts that may have been billed "
            "(502, 504, a time-out, a lost connection) always count, in an outage too. Free ones count where "
            "the row caused the failure and not the endpoint; until that is clear, there may be more.",
        ),
    ] = 6
    useless_rows: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000_000,
            description="So many consecutive rows without a usable answer (invalid, cut,"
            " empty, refused or failed) end the run with exit code 5, where fewer than one in ten rows of the"
            " run had one. The next run sends the failed rows again. Until the first usable answer"
            " has come, at most 8 requests are in flight. Once there is one, rows that a lost worker"
            " took with it do not count. 0: never.",
        ),
    ] = 25
    max_tokens: Annotated[
        tuple[Annotated[int, Meta(ge=1, le=2**31 - 1)], ...],
        Meta(
            description="Higher values of max_tokens: a row whose response was cut is sent again with "
            "the next higher one, which is reserved only then. Values up to request.max_tokens do nothing."
        ),
    ] = ()
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
            description="For a row whose request was sent but whose response was lost, so it may have been "
            "billed. `ask`: send it again, and the budget counts both. `leave`: the row has failed."
        ),
    ] = "ask"


class Output(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The output file, and the order in which rows are sent."""

    path: Annotated[
        str,
        Meta(
            min_length=1,
            description=f"Ends in {WRITTEN_IN_WORDS}. The run's folder lies beside it: `labels.run` for "
            "`labels.parquet`. Relative to the job file. Of an object-store URL, the file is written beside "
            "the job file, and then uploaded.",
        ),
    ]
    endpoint_url: StoreAddress = None
    duplicates: Annotated[
        Literal["share", "separate"],
        Meta(description="`share`: rows with the same request share one response. `separate`: all are sent."),
    ] = "share"
    order: Annotated[
        Literal["input", "random"] | None,
        Meta(
            description="Order of sending; the output keeps the input's order. "
            'Left out: `"random"` with [evaluation], else `"input"`.'
        ),
    ] = None
    seed: Annotated[
        int, Meta(ge=0, le=2**63 - 1, description="Seed of the random order: the same seed, the same order.")
    ] = 0
    scratch: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(description="Folder of temporary files. Left out: the output's own. Relative to the job file."),
    ] = None
    follow_links: Annotated[
        bool,
        Meta(
            description="Where `path` is a symbolic link, write the file that it points to. Otherwise links "
            "are refused, and so are another user's files."
        ),
    ] = False
    on_change: Annotated[
        Literal["ask-again", "refuse"],
        Meta(
            description="Where most responses of the last run no longer apply (the prompt, the model or the "
            "rows were changed): send their rows again, or end with 2 before anything is sent. On a "
            "terminal, `run` asks."
        ),
    ] = "ask-again"
    csv_safe: Annotated[
        bool,
        Meta(
            description="In a .csv output, put an apostrophe before a cell that a spreadsheet would run "
            "(it begins with =, +, -, @, a tab or a carriage return), but not in the columns of a CSV input."
        ),
    ] = True
    csv_bom: Annotated[
        bool,
        Meta(description="Begin a .csv output with the byte order mark that marks UTF-8 for spreadsheets."),
    ] = False
    report: Annotated[
        Annotated[str, Meta(pattern=r"\.html$")] | None,
        Meta(
            description="An HTML page about the job, with prompts and answers, written at the end of every "
            "run; see docs/looking.md. Relative to the job file."
        ),
    ] = None
    prefix: Annotated[
        str,
        Meta(description="Prefix of batchrun's column names, needed where the input has one of them."),
    ] = ""
    accept: Annotated[
        tuple[Literal["truncated", "empty", "refusal"], ...],
        Meta(
            description="Responses that count as `ok` although they were cut, have no text or are refusals. "
            "For rows with labels, the label decides."
        ),
    ] = ()


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
    telemetry: Telemetry = field(default_factory=Telemetry)
    workers: Workers | None = None


class Job(JobTables, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A checked job. Its relative paths start from the folder `base`.

    `files` are its sources by name: the job file, and files that its keys name.
    """

    base: Path
    files: tuple[tuple[str, Path], ...] = ()


def sends_key(job: Job) -> bool:
    """Whether requests carry a key: the free request is anonymous."""
    return job.endpoint.auth != "none" and not job.request.free_tier


def asks_in_random_order(job: Job) -> bool:
    """Whether rows are sent in the seeded random order, the default of an evaluation."""
    if job.output.order is None:
        return job.evaluation is not None
    return job.output.order == "random"


def input_path(job: Job) -> str:
    """The input's path or glob, absolute; a URL unchanged."""
    if "://" in job.input.path:
        return job.input.path
    return plain_path(job.base / Path(job.input.path).expanduser())


def output_path(job: Job) -> Path:
    """The output file on this machine, absolute. Of a URL, it has its last name, beside the job file."""
    if "://" in job.output.path:
        return Path(normpath(job.base / PurePosixPath(job.output.path.partition("?")[0]).name))
    return Path(normpath(job.base / Path(job.output.path).expanduser()))


def plain_path(path: Path) -> str:
    """Returns the path without `..`, unless that would be another file, where a folder is a link."""
    plain = normpath(path)
    return plain if realpath(plain) == realpath(path) else str(path)


def run_folder(job: Job) -> Path:
    """The folder beside the output that holds its journal: `labels.run` for `labels.parquet`."""
    return output_path(job).with_suffix(".run")


def fingerprint(job: Job) -> str:
    """SHA-256, as hex, over everything that determines the requests: prompt, parameters and base URL."""
    parts = (job.prompt, job.request, job.endpoint.base_url)
    return sha256(json.encode(parts, order="sorted")).hexdigest()


def public_job(job: Job) -> dict[str, Any]:
    """Returns the job's tables as JSON-able values fit to be shown: USD as exact decimal text, no secrets.

    Header values and the receivers of `on_finish` are masked; a URL loses its user, password and query
    (often a signature).
    """
    tables: dict[str, Any] = {name: to_builtins(getattr(job, name)) for name in JobTables.__struct_fields__}
    tables["endpoint"]["headers"] = dict.fromkeys(job.endpoint.headers, "***")
    for table in ("input", "output"):
        tables[table]["path"] = without_secrets(tables[table]["path"])
    if job.on_finish is not None:
        tables["on_finish"] |= {key: "***" for key in ("command", "url") if tables["on_finish"][key]}
    return tables
