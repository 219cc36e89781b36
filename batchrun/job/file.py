"""From a TOML file, overrides and options to a checked `Job`; the JSON schema of job files."""

import tomllib
from collections.abc import Mapping, Sequence
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from batchrun.errors import JobError
from batchrun.job import Job, JobTables, fingerprint, nano_usd, public_job
from batchrun.job.labels import LABEL_KINDS, with_schema
from batchrun.job.mistakes import OFF_UNLESS_GIVEN, STRUCTS, nearest, refuse_unknown, shown, wrong_value
from batchrun.job.presets import with_preset
from batchrun.job.rules import check_job, normal_base_url

_AMOUNTS = (
    ("pricing", "input_usd_per_million"),
    ("pricing", "output_usd_per_million"),
    ("budget", "usd"),
    ("budget", "usd_per_run"),
    ("budget", "usd_per_day"),
)


def load_job(path: Path | None, overrides: Sequence[str] = (), *, sandbox: bool = False) -> Job:
    """The job in the TOML file at `path`, with overrides such as `budget.usd=2.5` put on top.

    Without a file (None) the overrides are the job, its paths relative to the present folder. The
    value of an override is read as TOML; what is no TOML value is taken as text. `sandbox` says that
    the run is against a sandbox, whose prices are known. Raises JobError for whatever is wrong.
    """
    base = Path.cwd() if path is None else path.absolute().parent
    try:
        tables = read_overrides({} if path is None else read_tables(path), overrides)
        return make_job(tables, base, sandbox=sandbox)
    except JobError as error:
        if path is None:
            raise
        raise JobError(f"{path}{' with the options given' if overrides else ''}: {error}") from None


def read_tables(path: Path) -> dict[str, Any]:
    """The tables of a job file, unchecked: table -> key -> value, numbers with a point as Decimal."""
    return _parse(_read(path))


def read_overrides(tables: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """`tables` with overrides such as `budget.usd=2.5` put into them."""
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals or not _is_key(name):
            raise JobError("expected --set TABLE.KEY=VALUE, such as --set budget.usd=2.5")
        put(tables, name, _override_value(text.strip()))
    return tables


def put(tables: dict[str, Any], name: str, value: Any) -> None:
    """Sets the key that `name` names, such as `budget.usd` or `endpoint.headers.x-team`."""
    if not _is_key(name):
        raise JobError(f"{name!r} is no key: expected TABLE.KEY, such as budget.usd")
    *path, key = (part.strip() for part in name.split("."))
    table = tables
    for part in path:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise JobError(f"{name.strip()}: {part} is not a table")
    table[key] = value


def _is_key(name: str) -> bool:
    return all(part.strip() for part in name.split("."))


def make_job(tables: Mapping[str, Any], base: Path, *, sandbox: bool = False) -> Job:
    """The job in `tables` (table -> key -> value, as in a job file), its paths relative to `base`.

    USD may be int, float or Decimal; a float counts as the shortest decimal that it prints as.
    Raises JobError.
    """
    refuse_unknown(tables)
    names = [name for name in STRUCTS if name in tables or name not in OFF_UNLESS_GIVEN]
    filled: dict[str, Any] = {name: dict(tables.get(name, {})) for name in names}
    filled["endpoint"] = with_preset(filled["endpoint"])
    for table, key in _AMOUNTS:
        if key in filled[table]:
            filled[table][key] = _exact_usd(f"[{table}] {key}", filled[table][key])
    for table, key in (("request", "extra"), ("prompt", "system"), ("labels", "json_schema")):
        if key in filled.get(table, ()):
            filled[table][key] = _with_floats(filled[table][key])
    try:
        checked = msgspec.convert(filled, JobTables)
    except msgspec.ValidationError as error:
        raise wrong_value(error, filled) from None
    job = _job(checked, base)
    check_job(job, sandbox)
    _check_text(job)
    return job


def job_schema() -> dict[str, Any]:
    """The JSON schema of job files, for editors."""
    schema = msgspec.json.schema(JobTables)
    definitions = schema["$defs"]
    top = definitions.pop("JobTables")
    definitions["Prompt"]["oneOf"] = [{"required": ["template"]}, {"required": ["messages"]}]
    definitions["Labels"]["oneOf"] = [{"required": [kind]} for kind in LABEL_KINDS]
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **top,
        "title": "batchrun job file",
        "$defs": definitions,
    }
    plain: dict[str, Any] = _for_toml(whole)
    return plain


def _job(tables: JobTables, base: Path) -> Job:
    endpoint = msgspec.structs.replace(tables.endpoint, base_url=normal_base_url(tables.endpoint.base_url))
    labels = None if tables.labels is None else with_schema(tables.labels, base)
    parts = {**msgspec.structs.asdict(tables), "endpoint": endpoint, "labels": labels}
    return Job(base=base.absolute(), **parts)


def _check_text(job: Job) -> None:
    try:
        fingerprint(job)
        msgspec.json.encode(public_job(job))
    except UnicodeEncodeError:  # from the command line, where such bytes become lone surrogates
        raise JobError("a text of the job holds bytes that are not UTF-8") from None


def _read(path: Path) -> str:
    if path.suffix.lower() in (".csv", ".tsv", ".jsonl", ".parquet", ".arrow"):
        raise JobError(f"that is a table. `batchrun init {path}` writes a job file for it")
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise JobError(f"there is no such job file{_near_file(path)}") from None
    except UnicodeDecodeError as error:
        raise JobError(f"not UTF-8 at byte {error.start}; TOML files are UTF-8") from None
    except OSError as error:
        raise JobError(f"can't read the job file: {error.strerror}") from None


def _near_file(path: Path) -> str:
    folder = path.absolute().parent
    if not folder.is_dir():
        return f"; the folder {folder} doesn't exist"
    near = nearest(path.name, sorted(file.name for file in folder.glob("*.toml")))
    return f"; did you mean {path.with_name(near)}?" if near else ""


def _parse(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise JobError(f"not valid TOML: {error}") from None
    except (ValueError, ArithmeticError, RecursionError):
        raise JobError("a number in it is too long, or its lists are nested too deep") from None


def _override_value(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}", parse_float=Decimal)
    except (ValueError, ArithmeticError, RecursionError):
        return text
    # A date is no value of any key: 2023-06-01 is the version in a header.
    return text if len(parsed) != 1 or isinstance(parsed["value"], date | time) else parsed["value"]


def _exact_usd(where: str, value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise JobError(f"{where}: expected a number, got {shown(value)}")
    amount = Decimal(str(value))
    try:
        nano_usd(amount)
    except ValueError as error:
        raise JobError(f"{where}: {error}, got {shown(value)}") from None
    return amount


def _with_floats(value: Any) -> Any:
    """The same with floats for decimals: only amounts of money are kept exact."""
    if isinstance(value, dict):
        return {key: _with_floats(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_floats(item) for item in value]
    return float(value) if isinstance(value, Decimal) else value


def _for_toml(schema: Any) -> Any:
    """The schema in TOML's terms: no null (a key is left out instead), and amounts are numbers."""
    if isinstance(schema, list):
        return [_for_toml(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("format") == "decimal":
        return {"type": "number", "minimum": 0}
    plain = {key: _for_toml(item) for key, item in schema.items() if (key, item) != ("default", None)}
    if {"type": "null"} in plain.get("anyOf", ()):
        kinds = [item for item in plain.pop("anyOf") if item != {"type": "null"}]
        plain = {**(kinds[0] if len(kinds) == 1 else {"anyOf": kinds}), **plain}
    return plain
