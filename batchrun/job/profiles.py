"""What is put on top of a job file: one of its profiles, and variables of the environment."""

import re
from collections.abc import Mapping
from typing import Any

from batchrun.errors import JobError
from batchrun.job.error_messages import KEYS, nearest, refuse_unknown, shown

PROFILES = "profiles"
_VARIABLE = re.compile(r"BATCHRUN_([A-Z_]+?)__([A-Z0-9_]+)")
_EXAMPLE = "[profiles.staging.endpoint]"


def with_profile(tables: Mapping[str, Any], name: str | None) -> dict[str, Any]:
    """Returns the tables of a job file with the keys of one of its profiles in place of the job's.

    None: without a profile. All profiles are checked for unknown keys. Raises JobError.
    """
    profiles = tables.get(PROFILES, {})
    if not isinstance(profiles, dict):
        raise JobError(f"{PROFILES}: expected tables such as {_EXAMPLE}, got {shown(profiles)}")
    for profile, of_profile in profiles.items():
        _check(profile, of_profile)
    merged = {table: keys for table, keys in tables.items() if table != PROFILES}
    if name is None:
        return merged
    if name not in profiles:
        raise JobError(f"there is no profile {shown(name)}{_hint(name, profiles)}")
    for table, keys in profiles[name].items():
        own = merged.get(table, {})
        merged[table] = {**own, **keys} if isinstance(own, dict) else own
    return merged


def variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables that set keys of a job, such as BATCHRUN_BUDGET__USD, as overrides by variable.

    An empty variable is as good as none. Raises JobError for one that names no key.
    """
    found = {}
    for variable in sorted(environ):
        match = _VARIABLE.fullmatch(variable)
        if match is None or not environ[variable].strip():
            continue
        table, key = match[1].lower(), match[2].lower()
        first, *inner = key.split("__")
        if first not in KEYS.get(table, ()):
            raise JobError(f"the environment variable {variable} names no key of a job{_near(table, first)}")
        found[variable] = f"{'.'.join((table, first, *inner))}={environ[variable]}"
    return found


def _check(name: str, profile: object) -> None:
    where = f"[{PROFILES}.{name}]"
    if not isinstance(profile, dict):
        raise JobError(f"{where}: expected tables such as {_EXAMPLE}, got {shown(profile)}")
    try:
        refuse_unknown(profile)
    except JobError as error:
        raise JobError(f"{where} {error}") from None


def _hint(name: str, profiles: Mapping[str, Any]) -> str:
    if not profiles:
        return f"; the job has none. A profile is written as tables such as {_EXAMPLE}"
    near = nearest(name, profiles)
    return f"; did you mean {near}?" if near else f"; profiles are {', '.join(profiles)}"


def _near(table: str, key: str) -> str:
    known = {f"{name}__{one}" for name, keys in KEYS.items() for one in keys}
    near = nearest(f"{table}__{key}", known)
    return f"; did you mean BATCHRUN_{near.upper()}?" if near else ""
