"""Finds the API key, and keeps it out of every text."""

from collections.abc import Mapping
from pathlib import Path

from batchrun.errors import JobError
from batchrun.job.presets import SANDBOX_KEY
from batchrun.job.spec import Job, sends_key

_LONGEST_KEY = 16_384  # bytes; servers refuse header fields far shorter than this
_SHORTEST_SECRET = 16


def api_key(job: Job, environ: Mapping[str, str], given: str | None = None) -> str | None:
    """Returns the given key, else from `endpoint.api_key_file`, else `endpoint.api_key_env` in `environ`.

    None where requests carry no key. Raises JobError where it is missing or can't stand in a header;
    the text names the variable or the file, never the key.
    """
    if not sends_key(job):
        return None
    if given is not None:
        return _checked(given, "the API key")
    if job.endpoint.api_key_file is not None:
        path = job.base / job.endpoint.api_key_file
        return _checked(_read_key(path), f"the key in {path}")
    name = job.endpoint.api_key_env
    if job.endpoint.preset == "sandbox" and name not in environ:
        return SANDBOX_KEY
    if not environ.get(name, "").strip():
        raise JobError(
            f"no API key: the environment variable {name} is not set.\n"
            f"Set it with `export {name}=...`, or name another variable in endpoint.api_key_env."
        )
    return _checked(environ[name], f"the key in the environment variable {name}")


def without_key(environ: Mapping[str, str], job: Job, key: str | None) -> dict[str, str]:
    """Returns the variables of `environ` that don't hold the key, for processes that are to have none.

    A short one, such as "test" for a server that wants any, is part of paths and of a proxy's address by
    chance: only a variable that is just this key is left out.
    """
    secret = key if key and len(key) >= _SHORTEST_SECRET else None
    return {
        name: value
        for name, value in environ.items()
        if name != job.endpoint.api_key_env and value != key and not (secret and secret in value)
    }


def _read_key(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST_KEY + 1)
    except OSError as error:
        raise JobError(f"[endpoint] api_key_file: can't read {path}: {error.strerror}") from None
    if len(content) > _LONGEST_KEY:
        raise JobError(f"[endpoint] api_key_file: {path} is too long to be a key")
    return content.decode("ascii", "replace")


def _checked(key: str, where: str) -> str:
    key = key.strip()
    if not key:
        raise JobError(f"{where} is empty")
    if not all("!" <= character <= "~" for character in key):
        raise JobError(f"{where} holds a space, a control or a non-ASCII character: give the bare key alone")
    return key
