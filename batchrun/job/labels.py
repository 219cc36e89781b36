"""The table [labels]: which answers are valid labels."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from batchrun.errors import JobError
from batchrun.tables.near_paths import did_you_mean

LABEL_KINDS = ("choices", "json_schema", "pattern")


class Labels(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which answers are valid: exactly one of `choices`, `json_schema` and `pattern`."""

    choices: Annotated[
        tuple[str, ...] | None,
        Meta(
            description="The labels, two or more. They must differ by more than case, punctuation and "
            "hyphens, "
            "which may vary in a model's answer."
        ),
    ] = None
    json_schema: Annotated[
        str | dict[str, Any] | None,
        Meta(
            description="JSON Schema of an object: a file, relative to the job file, or a table here. "
            "Each of its properties is a column."
        ),
    ] = None
    pattern: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(
            description="Regular expression that the whole answer matches, as in a JSON Schema, without "
            "look-around and back-references."
        ),
    ] = None
    repair: Annotated[
        int,
        Meta(
            ge=0,
            le=20,
            description="How often an invalid answer is sent back with the reason. Each repair is paid.",
        ),
    ] = 0
    votes: Annotated[
        int,
        Meta(
            ge=1, le=99, description="Answers for each row; the label is the majority's. Each answer is paid."
        ),
    ] = 1
    vote_on: Annotated[
        tuple[str, ...],
        Meta(
            description="With `json_schema` and `votes`: the properties that are voted on, each by itself. "
            "Left out: votes compare whole objects, so that a free text never has a majority."
        ),
    ] = ()


def with_schema(labels: Labels, base: Path) -> Labels:
    """Returns the table with the JSON schema in place of its file's path. Raises JobError."""
    if not isinstance(labels.json_schema, str):
        return labels
    path = base / labels.json_schema
    return msgspec.structs.replace(labels, json_schema=_read_schema(path, labels.json_schema))


def check_labels(labels: Labels) -> None:
    """Raises JobError for the first broken rule; `json_schema` is the schema itself by then."""
    given = [kind for kind in LABEL_KINDS if getattr(labels, kind) is not None]
    if len(given) != 1:
        raise JobError(
            "[labels]: give exactly one of labels.choices, labels.json_schema and labels.pattern; "
            f"the job has {' and '.join(given) or 'none'}"
        )
    if labels.choices is not None:
        _check_choices(labels.choices)
    if labels.vote_on and (labels.json_schema is None or labels.votes == 1):
        raise JobError("[labels] vote_on: needs labels.json_schema, and labels.votes above 1")
    if len(set(labels.vote_on)) < len(labels.vote_on):
        raise JobError("[labels] vote_on: a property is there twice; leave one out")


def _check_choices(choices: tuple[str, ...]) -> None:
    from batchrun.labels.normalize import choice_key

    if len(choices) < 2:
        raise JobError("[labels] choices: give two or more labels")
    spelled: dict[str, str] = {}
    for choice in choices:
        key = choice_key(choice)
        if not key:
            raise JobError(f"[labels] choices: {choice!r} has no letter, digit or symbol to know it by")
        if spelled.get(key) == choice:
            raise JobError(f"[labels] choices: {choice!r} is there twice; leave one out")
        if key in spelled:
            raise JobError(
                f"[labels] choices: {spelled[key]!r} and {choice!r} can't be told apart in an answer, "
                "where case, punctuation and hyphens may differ"
            )
        spelled[key] = choice


def _read_schema(path: Path, name: str) -> dict[str, Any]:
    where = f"[labels] json_schema: {name}"
    try:
        schema = msgspec.json.decode(path.read_bytes())
    except FileNotFoundError:
        raise JobError(f"{where}: there is no such file{did_you_mean(path)}") from None
    except OSError as error:
        raise JobError(f"{where}: can't be read: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise JobError(f"{where}: not valid JSON: {error}") from None
    if not isinstance(schema, dict):
        raise JobError(f"{where}: expected a JSON object, a schema")
    return schema
