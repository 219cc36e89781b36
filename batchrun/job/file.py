"""Reads and checks a `Job` from a TOML file and overrides; makes the JSON schema of job files."""

import tomllib
from collections.abc import Mapping, Sequence
from datetime import date, time
from decimal import Decimal
from os import PathLike
from pathlib import Path
from shlex import quote
from typing import Any

import msgspec

from batchrun.errors import JobError
from batchrun.job.budget import nano_usd
from batchrun.job.caps import CAPS
from batchrun.job.error_messages import OFF_UNLESS_GIVEN, STRUCTS, refuse_unknown, shown, wrong_value
from batchrun.job.labels import LABEL_KINDS, with_schema
from batchrun.job.lines import placed
from batchrun.job.presets import with_preset
from batchrun.job.profiles import PROFILES, variables, with_profile
from batchrun.job.rules import check_job, normal_base_url
from batchrun.job.spec import Job, JobTables, Prompt, fingerprint, public_job
from batchrun.job.texts import check_texts
from batchrun.tables.endings import is_table
from batchrun.tables.near_paths import did_you_mean

_AMOUNTS = (
    ("pricing", "input_usd_per_million"),
    ("pricing", "output_usd_per_million"),
    ("pricing", "cache_write_usd_per_million"),
    ("pricing", "cache_write_1h_usd_per_million"),
    ("pricing", "cache_read_usd_per_million"),
    *(("budget", cap.key) for cap in CAPS if cap.unit == "nano_usd" and cap.span != "pool"),
)


def load_job(
    path: str | PathLike[str] | None,
    overrides: Sequence[str] = (),
    *,
    sandbox: bool = False,
    profile: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> Job:
    """Returns the job in the TOML file at `path`, with overrides such as `budget.usd=2.5` applied.

    Without a file (None) the overrides are the job, its paths relative to the current folder. The
    value of an override is read as TOML; anything that is not a TOML value is taken as text, and `null`
    removes the key. `profile` names one of the file's profiles. Overrides win over
    variables in `environ` such as BATCHRUN_BUDGET__USD, these over the profile, and that over the job's own
    keys. `sandbox` says that the run is against a sandbox, whose prices are known. Raises JobError for
    whatever is wrong.
    """
    file = None if path is None else Path(path)
    base = Path.cwd() if file is None else file.absolute().parent
    text, from_environment = "", dict[str, str]()
    try:
        text = "" if file is None else read_text(file)
        tables = with_profile(read_tables(text), profile)
        from_environment = variables(environ or {})
        read_overrides(tables, [*from_environment.values(), *overrides])
        job = make_job(tables, base, sandbox=sandbox)
        return job if file is None else with_file(job, file)
    except JobError as error:
        above = [*from_environment.values(), *overrides]
        named = f" with {', '.join(from_environment)}" if from_environment else ""
        named += " with the options given" if overrides else ""
        raise placed(error, file, text, profile, above, named) from None


def read_tables(text: str) -> dict[str, Any]:
    """Returns a job file's tables, unchecked: table -> key -> value, numbers with a point as Decimal."""
    try:
        return tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise JobError(f"not valid TOML: {error}{_backslash_hint(str(error))}") from None
    except (ValueError, ArithmeticError, RecursionError):
        raise JobError("a number in it is too long, or its lists are nested too deep") from None


def _backslash_hint(complaint: str) -> str:
    """Regular expressions and Windows paths in double quotes are where such complaints come from."""
    if "scape" not in complaint and "hex value" not in complaint:
        return ""
    return ". Between double quotes a backslash is written \\\\; between single quotes it stands for itself"


def read_overrides(tables: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Returns `tables` with overrides such as `budget.usd=2.5` applied."""
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals or not _is_key(name):
            raise JobError("expected --set TABLE.KEY=VALUE, such as --set budget.usd=2.5")
        if text.strip() == "null":  # Helm's word for the same
            unset(tables, name)
        else:
            put(tables, name, _override_value(text.strip()))
    return tables


def unset(tables: dict[str, Any], name: str) -> None:
    """Removes a key or a table by its full name, as if the job did not have it."""
    path, _, key = name.strip().rpartition(".")
    table: Any = tables
    for part in path.split(".") if path else ():
        table = table.get(part.strip()) if isinstance(table, dict) else None
    if isinstance(table, dict):
        table.pop(key.strip(), None)


def put(tables: dict[str, Any], name: str, value: Any) -> None:
    """Sets a key by its full name, such as `budget.usd` or `endpoint.headers.x-team`."""
    if not _is_key(name):
        raise JobError(f"{name!r} is not a key: expected TABLE.KEY, such as budget.usd")
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
    """Returns the job in `tables` (table -> key -> value, as in a job file), its paths relative to `base`.

    USD may be int, float or Decimal; a float counts as the shortest decimal that it prints as.
    Raises JobError.
    """
    refuse_unknown(tables)
    names = [name for name in STRUCTS if name in tables or name not in OFF_UNLESS_GIVEN]
    filled: dict[str, Any] = {name: dict(tables.get(name, {})) for name in names}
    check_texts(filled)
    filled["endpoint"] = with_preset(filled["endpoint"])
    for table, key in _AMOUNTS:
        if key in filled[table]:
            filled[table][key] = exact_usd(f"[{table}] {key}", filled[table][key])
    for table, key in (("request", "extra"), ("prompt", "system"), ("labels", "json_schema")):
        if key in filled.get(table, ()):
            filled[table][key] = _with_floats(filled[table][key])
    try:
        checked = msgspec.convert(filled, JobTables)
    except msgspec.ValidationError as error:
        raise wrong_value(error, filled) from None
    with_texts = msgspec.structs.replace(checked, prompt=_with_files(checked.prompt, base))
    job = _job(with_texts, base, _files(checked, base.absolute()))
    check_job(job, sandbox)
    _check_text(job)
    return job


def with_file(job: Job, path: Path) -> Job:
    """Returns the job with the job file that it was read from."""
    return msgspec.structs.replace(job, files=(("the job file", path.absolute()), *job.files))


def _with_files(prompt: Prompt, base: Path) -> Prompt:
    """Returns the prompt with its files replaced by their texts."""
    for key in ("template", "system"):
        name = getattr(prompt, f"{key}_file")
        if name is None:
            continue
        if getattr(prompt, key) is not None:
            raise JobError(f"[prompt]: give prompt.{key} or prompt.{key}_file, not both")
        path = base / Path(name).expanduser()
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except OSError as error:
            why = f"{error.strerror}{did_you_mean(path)}"
            raise JobError(f"[prompt] {key}_file: {name} can't be read: {why}") from None
        except UnicodeDecodeError:
            raise JobError(f"[prompt] {key}_file: {name} is not UTF-8") from None
        text = text.removesuffix("\n").removesuffix("\r")
        prompt = msgspec.structs.replace(prompt, **{key: text, f"{key}_file": None})
    return prompt


def job_schema() -> dict[str, Any]:
    """Returns the JSON schema of job files, for editors."""
    schema = msgspec.json.schema(JobTables)
    definitions = schema["$defs"]
    top = definitions.pop("JobTables")
    definitions["Prompt"]["oneOf"] = [
        {"required": [key]} for key in ("template", "template_file", "messages")
    ]
    definitions["Labels"]["oneOf"] = [{"required": [kind]} for kind in LABEL_KINDS]
    top["properties"][PROFILES] = _schema_of_profiles(definitions)
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **top,
        "title": "batchrun job file",
        "$defs": definitions,
    }
    plain: dict[str, Any] = _for_toml(whole)
    return plain


def _schema_of_profiles(definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the schema of [profiles]: by name, any keys of any tables."""
    tables = {
        name: {
            "type": "object",
            "properties": definitions[struct.__name__]["properties"],
            "additionalProperties": False,
        }
        for name, struct in STRUCTS.items()
    }
    profile = {"type": "object", "properties": tables, "additionalProperties": False}
    text = (
        "Keys that take the place of the job's with `--profile NAME`, by the profile's name and their table."
    )
    return {"type": "object", "description": text, "additionalProperties": profile, "default": {}}


def _job(tables: JobTables, base: Path, files: tuple[tuple[str, Path], ...]) -> Job:
    endpoint = msgspec.structs.replace(tables.endpoint, base_url=normal_base_url(tables.endpoint.base_url))
    labels = None if tables.labels is None else with_schema(tables.labels, base)
    parts = {**msgspec.structs.asdict(tables), "endpoint": endpoint, "labels": labels}
    return Job(base=base.absolute(), files=files, **parts)


def _files(tables: JobTables, base: Path) -> tuple[tuple[str, Path], ...]:
    named = {
        "labels.json_schema": None if tables.labels is None else tables.labels.json_schema,
        "prompt.template_file": tables.prompt.template_file,
        "prompt.system_file": tables.prompt.system_file,
    }
    return tuple(
        (name, base / Path(path).expanduser()) for name, path in named.items() if isinstance(path, str)
    )


def _check_text(job: Job) -> None:
    try:
        fingerprint(job)
        msgspec.json.encode(public_job(job))
    except UnicodeEncodeError:  # from the command line, where such bytes become lone surrogates
        raise JobError("a text of the job holds bytes that are not UTF-8") from None


def read_text(path: Path) -> str:
    """Returns the text of a job file. Raises JobError."""
    if is_table(path.name):
        raise JobError(f"that is a table. `batchrun init {quote(str(path))}` writes a job file for it")
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
    missing = "" if folder.is_dir() else f"; the folder {folder} doesn't exist"
    return did_you_mean(path, ending=".toml") or missing


def _override_value(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}", parse_float=Decimal)
    except (ValueError, ArithmeticError, RecursionError):
        return text
    # No key takes a date: 2023-06-01 is the version in a header, a text.
    return text if len(parsed) != 1 or isinstance(parsed["value"], date | time) else parsed["value"]


def exact_usd(where: str, value: object) -> Decimal:
    """Returns an amount in USD as it was written. Raises JobError, whose text begins with `where`."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise JobError(f"{where}: expected a number, got {shown(value)}")
    amount = Decimal(str(value))
    try:
        nano_usd(amount)
    except ValueError as error:
        raise JobError(f"{where}: {error}, got {shown(value)}") from None
    return amount


def _with_floats(value: Any) -> Any:
    """Returns the value with floats for decimals: only amounts of money are kept exact."""
    if isinstance(value, dict):
        return {key: _with_floats(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_floats(item) for item in value]
    return float(value) if isinstance(value, Decimal) else value


def _for_toml(schema: Any) -> Any:
    """Returns the schema in TOML's terms: no null (a key is left out instead), and amounts are numbers."""
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
