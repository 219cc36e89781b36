"""The rules for a job's tables beyond their types. Each raises JobError, in one or two lines."""

import re
from datetime import date, time
from math import isfinite
from typing import Any
from urllib.parse import SplitResult, urlsplit

from batchrun.errors import JobError
from batchrun.job.error_messages import nearest, shown
from batchrun.job.evaluation import METRICS, PYTHON_METRIC, EarlyStop, Evaluation
from batchrun.job.labels import Labels, check_labels
from batchrun.job.on_finish import check_on_finish
from batchrun.job.parameters import BY_ROW, KEYS
from batchrun.job.presets import is_loopback
from batchrun.job.prices import prices
from batchrun.job.spec import Job, output_path, sends_key
from batchrun.job.workers import check_workers
from batchrun.tables.endings import STORES, WITH_ENDPOINT, WRITTEN, is_written
from batchrun.text import without_secrets

_OWN_HEADERS = {
    "accept-encoding": "batchrun sets it",
    "authorization": "the key comes from endpoint.api_key_env or endpoint.api_key_file",
    "connection": "batchrun sets it",
    "content-length": "batchrun sets it",
    "content-type": "batchrun sets it",
    "cookie": "batchrun sends no cookies",
    "host": "batchrun takes it from endpoint.base_url",
    "proxy-authorization": "a proxy belongs in the environment variable HTTPS_PROXY",
    "transfer-encoding": "batchrun sets it",
    "x-api-key": 'the key comes from endpoint.api_key_env; set endpoint.auth = "x-api-key"',
    "x-free-tier": "set request.free_tier = true",
}
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # token, RFC 9110 section 5.6.2
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def check_job(job: Job, sandbox: bool) -> None:
    """Raises JobError for the first rule that the job breaks. `sandbox`: the run is against a sandbox."""
    _check_prompt(job)
    _check_extra(job)
    _check_columns(job)
    _check_headers(job)
    _check_key_source(job)
    _check_prices(job, sandbox)
    _check_caps(job)
    _check_free_tier(job)
    _check_output(job)
    _check_endpoint_urls(job)
    if job.labels is not None:
        check_labels(job.labels)
        _check_reader(job.labels)
    if job.on_finish is not None:
        check_on_finish(job.on_finish)
    if job.workers is not None:
        check_workers(job.workers)
    if job.evaluation is not None:
        _check_evaluation(job.evaluation, job.output.order)


def normal_base_url(url: str) -> str:
    """Returns an http(s) URL without trailing slash and default port, its scheme and host in lower case.

    Raises JobError for another scheme, a user, a query, a fragment, or a path that repeats `/v1`.
    The text shows no URL that may hold a password.
    """
    parts = _split_url(url)
    path = parts.path.rstrip("/")
    if path.endswith(("/v1", "/v1/messages")):
        raise JobError('[endpoint] base_url: leave out "/v1": batchrun adds /v1/messages itself')
    host = (parts.hostname or "").lower()
    host = f"[{host}]" if ":" in host else host
    default_port = {"http": 80, "https": 443}[parts.scheme]
    port = "" if parts.port in (None, default_port) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}{path}"


def _split_url(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or not re.fullmatch(r"[\x21-\x7e]+", url):
        raise JobError("[endpoint] base_url: expected an http or https URL such as https://api.example.com")
    if "@" in parts.netloc:
        raise JobError(
            "[endpoint] base_url: no user or password in the URL; the key comes from endpoint.api_key_env"
        )
    if "?" in url or "#" in url:
        raise JobError("[endpoint] base_url: no query (?) and no fragment (#); batchrun adds /v1/messages")
    return parts


def _check_prompt(job: Job) -> None:
    if (job.prompt.template is None) == (job.prompt.messages is None):
        found = "neither" if job.prompt.template is None else "both"
        raise JobError(
            f"[prompt]: give exactly one of prompt.template and prompt.messages; the job has {found}"
        )
    for key in ("template", "messages", "image"):
        text = getattr(job.prompt, key)
        if text is not None and not text.strip():
            raise JobError(f"[prompt] {key}: must not be empty")
    if job.prompt.image is not None and job.prompt.template is None:
        raise JobError(
            "[prompt] image: goes with prompt.template; a column of messages holds images as content blocks"
        )
    if job.prompt.system is not None:
        _check_system(job.prompt.system)


def _check_system(system: str | tuple[dict[str, Any], ...]) -> None:
    if not system or (isinstance(system, str) and not system.strip()):
        raise JobError("[prompt] system: must not be empty; leave it out")
    for index, block in enumerate(system if isinstance(system, tuple) else ()):
        where = f"[prompt] system[{index}]"
        text = block.get("text")
        if block.get("type") != "text" or not isinstance(text, str) or not text.strip():
            raise JobError(f'{where}: expected {{type = "text", text = "..."}} whose text is not empty')
        _check_json(where, block)


def _check_extra(job: Job) -> None:
    for name, value in job.request.extra.items():
        if name in KEYS:
            raise JobError(f"[request.extra] {name}: set {KEYS[name]} instead")
        _check_json(f"[request.extra] {name}", value)


def _check_json(where: str, value: Any) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _check_json(f"{where}.{key}", item)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check_json(f"{where}[{index}]", item)
    elif isinstance(value, float) and not isfinite(value):
        raise JobError(f"{where}: {value} can't be sent as JSON")
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise JobError(f"{where}: a whole number of more than 64 bits can't be sent")
    elif value is not None and not isinstance(value, str | int | float):
        kind = "date or time" if isinstance(value, date | time) else f"value of type {type(value).__name__}"
        raise JobError(f"{where}: a {kind} can't be sent as JSON; write it as text, in quotes")


def _check_columns(job: Job) -> None:
    known = {*BY_ROW, *job.request.extra}
    for parameter, column in job.request.columns.items():
        if parameter not in known:
            raise JobError(f"[request.columns] {parameter}: {_not_by_row(parameter, known)}")
        if not column:
            raise JobError(f"[request.columns] {parameter}: expected the name of a column, got an empty text")


def _not_by_row(parameter: str, known: set[str]) -> str:
    if parameter in KEYS:
        return f"can't differ by row; see {KEYS[parameter]}"
    near = nearest(parameter, sorted(known))
    if near:
        return f"unknown parameter; did you mean {near}?"
    return (
        f"unknown parameter. Known: {', '.join(sorted(known))}, and any that [request.extra] gives a default"
    )


def _check_headers(job: Job) -> None:
    seen: set[str] = set()
    for name, value in job.endpoint.headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise JobError("[endpoint] headers: a name is made of letters, digits and hyphens; one isn't")
        lower = name.lower()
        if lower in _OWN_HEADERS:
            raise JobError(f"[endpoint] headers.{name}: not to be set here; {_OWN_HEADERS[lower]}")
        if lower in seen:
            raise JobError(f"[endpoint] headers.{name}: given twice, in upper and lower case")
        if not _HEADER_VALUE.fullmatch(value):
            raise JobError(
                f"[endpoint] headers.{name}: the value holds a line break, a control or a non-ASCII character"
            )
        seen.add(lower)


def _check_key_source(job: Job) -> None:
    if not _VARIABLE_NAME.fullmatch(job.endpoint.api_key_env):
        raise JobError(
            "[endpoint] api_key_env: expected the name of an environment variable, such as ABLIT_KEY, "
            "not the key itself"
        )
    if job.endpoint.api_key_file == "":
        raise JobError("[endpoint] api_key_file: must not be empty; leave it out")
    url = urlsplit(job.endpoint.base_url)
    if sends_key(job) and url.scheme == "http" and not is_loopback(url.hostname or ""):
        raise JobError(
            f"[endpoint] base_url: the key would go unencrypted to {url.hostname}.\n"
            'Use https://, or set endpoint.auth = "none" if the server wants no key.'
        )


def _check_prices(job: Job, sandbox: bool) -> None:
    if prices(job, sandbox) is not None:
        return
    given = (job.pricing.input_usd_per_million, job.pricing.output_usd_per_million)
    if given != (None, None):
        raise JobError(
            "[pricing]: give both input_usd_per_million and output_usd_per_million; one alone is of no use"
        )
    for key in (
        "cache_write_usd_per_million",
        "cache_write_1h_usd_per_million",
        "cache_read_usd_per_million",
    ):
        if getattr(job.pricing, key) is not None:
            raise JobError(
                f"[pricing] {key}: is of no use without input_usd_per_million and output_usd_per_million"
            )
    caps = [cap for cap in job.budget.given() if cap.unit == "nano_usd"]
    if caps:
        raise JobError(
            f"[budget] {caps[0].key}: a cap in USD needs prices; "
            f"none are known for {job.endpoint.base_url}.\n"
            "Set pricing.input_usd_per_million and pricing.output_usd_per_million."
        )


def _check_caps(job: Job) -> None:
    if job.request.max_tokens is not None or "max_tokens" in job.request.columns:
        return
    for cap in job.budget.given():
        if cap.needs_worst_case:
            raise JobError(
                f"[budget] {cap.key}: without request.max_tokens a request has no worst case.\n"
                "Set request.max_tokens: the cap can't hold without it."
            )


def unused_retry_caps(job: Job) -> list[str]:
    """Returns a note on the values of retry.max_tokens that no row can be sent again with."""
    if not job.retry.max_tokens or "max_tokens" in job.request.columns:
        return []
    own = job.request.max_tokens
    if own is None:
        return ["retry.max_tokens has no effect without request.max_tokens"]
    unused = [str(cap) for cap in job.retry.max_tokens if cap <= own]
    if not unused:
        return []
    has = "has" if len(unused) == 1 else "have"
    return [f"retry.max_tokens: {', '.join(unused)} {has} no effect, not above request.max_tokens = {own}"]


def _check_free_tier(job: Job) -> None:
    """Returns the keys that need more than the single request that free_tier allows."""
    asks_more = {
        "[evaluation]": job.evaluation is not None,
        "labels.votes": job.labels is not None and job.labels.votes > 1,
        "labels.repair": job.labels is not None and job.labels.repair > 0,
        "retry.max_tokens": bool(job.retry.max_tokens),
    }
    key = next((key for key, is_so in asks_more.items() if is_so), None)
    if job.request.free_tier and key is not None:
        raise JobError(f"[request] free_tier: allows one request; leave {key} out, or set a key instead")


def _check_output(job: Job) -> None:
    name = job.output.path
    path = output_path(job)
    if "://" in name and name.partition("://")[0] not in STORES:
        known = " ".join(f"{scheme}://" for scheme in STORES)
        raise JobError(f"[output] path: must be a file on this machine, or in an object store: {known}")
    if not is_written(path):
        raise JobError(f"[output] path: must end in {', '.join(WRITTEN)}, got {shown(without_secrets(name))}")


def _check_endpoint_urls(job: Job) -> None:
    for table, name, url in (
        ("input", job.input.path, job.input.endpoint_url),
        ("output", job.output.path, job.output.endpoint_url),
    ):
        if url is None:
            continue
        address = urlsplit(url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise JobError(f"[{table}] endpoint_url: must begin with http:// or https://")
        if "@" in address.netloc or address.query or address.path.strip("/"):
            raise JobError(f"[{table}] endpoint_url: must be an address alone, such as https://minio:9000")
        if name.partition("://")[0] not in WITH_ENDPOINT:
            raise JobError(f"[{table}] endpoint_url: only s3:// and gs:// URLs have one")


def _check_reader(labels: Labels) -> None:
    """Raises JobError for a pattern or a schema that can't be used."""
    from batchrun.labels.parser import make_parser

    names = [column.name for column in make_parser(labels).columns]
    for name in labels.vote_on:
        if name not in names:
            near = nearest(name, names)
            hint = f"did you mean {near}?" if near else f"properties are {', '.join(names)}"
            raise JobError(f"[labels] vote_on: {name} is not a property of the schema; {hint}")


def _check_evaluation(evaluation: Evaluation, order: str | None) -> None:
    _check_metric(evaluation.metric)
    if evaluation.tolerance is not None and evaluation.metric != "numeric":
        raise JobError('[evaluation] tolerance: goes with metric = "numeric"')
    for key in ("cluster", "stratify"):
        if getattr(evaluation, key) == "":
            raise JobError(f"[evaluation] {key}: expected the name of a column, got an empty text")
    if evaluation.cluster is not None and evaluation.stratify is not None:
        raise JobError("[evaluation]: give one of cluster and stratify; both together aren't supported")
    if evaluation.stop is None:
        return
    _check_early_stop(evaluation.stop, evaluation.stratify)
    if order == "input":
        raise JobError(
            "[evaluation] stop: rows in the input's order are not a random sample.\n"
            'Leave output.order = "input" out.'
        )
    if evaluation.target == "population":
        raise JobError(
            '[evaluation] stop: decides about the rows of this table; leave target = "population" out'
        )


def _check_metric(metric: str) -> None:
    if metric in METRICS:
        return
    module, colon, function = metric.removeprefix(PYTHON_METRIC).partition(":")
    if metric.startswith(PYTHON_METRIC):
        if not colon or not function.isidentifier() or not all(map(str.isidentifier, module.split("."))):
            raise JobError(
                f"[evaluation] metric: expected python:module:function, such as python:scores:similarity, "
                f"got {shown(metric)}"
            )
        return
    near = nearest(metric, METRICS)
    hint = f"did you mean {near}?" if near else f"metrics are {', '.join(METRICS)}, python:module:function"
    raise JobError(f"[evaluation] metric: there is no metric {shown(metric)}; {hint}")


def _check_early_stop(stop: EarlyStop, stratify: str | None) -> None:
    if stop == EarlyStop():
        raise JobError("[evaluation] stop: give half_width, above or below")
    if stratify is not None:
        raise JobError(
            "[evaluation] stop: doesn't go with stratify: no valid way to stop early is known to batchrun "
            "for a stratified sample.\nLeave out one of the two."
        )
    if stop.above is not None and stop.below is not None and stop.above < stop.below:
        raise JobError(
            "[evaluation] stop: above must not be smaller than below, else one of them always holds"
        )
