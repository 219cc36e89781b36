"""Error texts for unknown keys and wrong types in a job's tables, which say how to correct them."""

import difflib
import re
from collections.abc import Iterable, Mapping
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import msgspec

from batchrun.errors import JobError
from batchrun.job.spec import JobTables


def _struct(kind: Any) -> Any:
    """Returns the struct of a table whose type may be `Annotated`, or a union with None."""
    return next((_struct(part) for part in get_args(kind) if part is not NoneType), kind)


STRUCTS: Mapping[str, type[msgspec.Struct]] = {
    info.name: _struct(info.type) for info in msgspec.structs.fields(JobTables)
}
OFF_UNLESS_GIVEN = {info.name for info in msgspec.structs.fields(JobTables) if info.default is None}
"""Tables whose presence has a meaning: left out, they are None."""
KEYS = {name: struct.__struct_fields__ for name, struct in STRUCTS.items()}

_OPTION_NAMES = {
    "prompt": "prompt.template",
    "max_usd": "budget.usd",
    "max_rows": "budget.rows",
    "rpm": "limits.requests_per_minute",
    "tpm": "limits.tokens_per_minute",
}
_FORMS = {
    "output.report": "a name that ends in .html",
    "telemetry.prometheus": "a name that ends in .prom",
    "telemetry.otlp": "an http or https URL without a user, a query and a fragment",
}
"""What the patterns of these keys say."""
_SECRETIVE = {"headers", "api_key_env", "api_key_file", "base_url", "otlp"}  # a key without its table
_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "decimal": "a number",
    "bool": "true or false",
    "str": "text",
    "array": "a list",
    "object": "a table",
}
_VALIDATION = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<path>.*)`)?")
_EXPECTED = re.compile(r"Expected `(?P<type>\w+)[^`]*`(?P<bound> [<>]=? \S+)?.*")


def refuse_unknown(tables: Mapping[str, object]) -> None:
    """Raises JobError for the first unknown table or key, naming the nearest known one."""
    for name, table in tables.items():
        if name not in KEYS:
            near = _near_table(name) or _near_key(name, "")
            hint = _suggestion(near) or f"; tables are {', '.join(KEYS)}"
            raise JobError(f"{name}: unknown {'table' if isinstance(table, dict) else 'key'}{hint}")
        if not isinstance(table, dict):
            example = KEYS[name][0]
            raise JobError(
                f"{name}: expected a table, [{name}], with keys such as {example}, got {shown(table)}"
            )
        for key in table:
            if key not in KEYS[name]:
                raise JobError(f"[{name}] {key}: unknown key{_key_hint(key, name)}")


def wrong_value(error: msgspec.ValidationError, tables: Mapping[str, Any]) -> JobError:
    """Returns msgspec's complaint about `tables` in the job file's terms."""
    match = _VALIDATION.fullmatch(str(error))
    what, path = (match["what"], match["path"] or "") if match else (str(error), "")
    table, _, key = path.partition(".")
    missing = re.fullmatch(r"Object missing required field `(\w+)`", what)
    if missing:
        needing = f"[{table}]" if table in OFF_UNLESS_GIVEN else "every job"
        return JobError(f"[{table}] {missing[1]}: missing; {needing} needs {table}.{missing[1]}")
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", what, re.DOTALL)
    if unknown:
        return JobError(f"[{table}] {key}.{unknown[1]}: unknown key{_inner_hint(unknown[1], table, key)}")
    where = key.replace("[...]", ": each value in it")
    return JobError(f"[{table}] {where}: {_expected(what, table, key)}{_got(tables, path)}")


def nearest(name: str, known: Iterable[str], likeness: float = 0.6) -> str | None:
    """Returns the most similar known name, if it is at least so alike (from 0 to 1)."""
    matches = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=likeness)
    return matches[0] if matches else None


def shown(value: object) -> str:
    """Formats a value for an error text, as in a job file; shortens long ones."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        return str(value)
    short = value if len(value) <= 60 else value[:57] + "..."
    return msgspec.json.encode(short).decode()


def _key_hint(key: str, table: str) -> str:
    near = _near_key(key, table)
    if near:
        return _suggestion(near)
    if table == "request":
        return "; other fields of the request body belong in [request.extra]"
    return f"; keys of [{table}] are {', '.join(KEYS[table])}"


def _inner_hint(name: str, table: str, key: str) -> str:
    """Returns the hint for a key in a nested table, such as evaluation.stop."""
    infos = {info.name: info.type for info in msgspec.structs.fields(STRUCTS[table])}
    known = _struct(infos[key]).__struct_fields__
    near = nearest(name, known)
    return f"; did you mean {key}.{near}?" if near else f"; keys of {key} are {', '.join(known)}"


def _near_key(name: str, table: str) -> str | None:
    """Returns the same key in another table, else a similar one in this table, else a very similar one."""
    if name in _OPTION_NAMES:
        return _OPTION_NAMES[name]
    homes = [f"{other}.{name}" for other, keys in KEYS.items() if name in keys]
    if homes:
        return " or ".join(homes)
    own = nearest(name, KEYS.get(table, ()))
    if own:
        return f"{table}.{own}"
    owners = {key: other for other, keys in KEYS.items() if other not in OFF_UNLESS_GIVEN for key in keys}
    like = nearest(name, owners, likeness=0.75)
    return f"{owners[like]}.{like}" if like else None


def _near_table(name: str) -> str | None:
    like = nearest(name, KEYS)
    return f"[{like}]" if like else None


def _suggestion(near: str | None) -> str:
    return f"; did you mean {near}?" if near else ""


def _expected(what: str, table: str, key: str) -> str:
    match = _EXPECTED.fullmatch(what)
    choices = _choices(table, key)
    if choices and (match is None or match["type"] == "str"):
        return f"expected {' or '.join(map(shown, choices))}"
    if match is None:
        return what
    if "of length >= 1" in what:
        return "must not be empty"
    if "matching regex" in what:
        return f"expected {_FORMS[f'{table}.{key}']}"
    bound = (match["bound"] or "").removesuffix(".0")
    return f"expected {_WORDS.get(match['type'], match['type'])}{bound}"


def _choices(table: str, key: str) -> tuple[str, ...]:
    infos = {info.name: info for info in msgspec.structs.fields(STRUCTS[table])}
    return _literals(infos[re.split(r"[.\[]", key)[0]].type)


def _literals(kind: Any) -> tuple[str, ...]:
    if get_origin(kind) is Literal:
        return get_args(kind)
    return next((found for part in get_args(kind) if (found := _literals(part))), ())


def _got(tables: Mapping[str, Any], path: str) -> str:
    value: Any = tables
    for step in re.findall(r"[^.\[\]]+|\[\.\.\.\]", path):
        if step == "[...]" or step in _SECRETIVE:
            return ""
        value = value[int(step)] if isinstance(value, list | tuple) else value[step]
    return "" if value == "" else f", got {shown(value)}"
