"""From a row to its request: templates rendered, parameters set, the body encoded, its identity taken."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches
from hashlib import blake2b
from typing import Any

import minijinja
import msgspec

from batchrun.conversation import (
    FRAMING_TOKENS_PER_MESSAGE,
    ConversationError,
    content_bound,
    conversation,
    conversation_bound,
    unbounded_block,
)
from batchrun.errors import JobError
from batchrun.images import ImageError, image_blocks
from batchrun.job import Job
from batchrun.parameters import ParameterError, parameter_value

FRAMING_TOKENS_PER_REQUEST = 64
"""Upper bound of what a chat template adds to a request, besides what it adds to each message."""

_OUTSIDE_THE_PROMPT = frozenset(("flagged_categories", "max_tokens", "model", "stream", "temperature"))

DIGEST_BYTES = 16

_encoder = msgspec.json.Encoder(decimal_format="number")
_text_encoder = msgspec.json.Encoder(decimal_format="number", enc_hook=str)


class Request(msgspec.Struct, frozen=True, gc=False):
    """What is sent for a row: `body` is JSON, `digest` (16 bytes) its identity.

    `input_bound` is an upper bound of its input tokens; `output_bound` is its `max_tokens`, or
    None where it has none. `follows` is the digest of the row's first request, where this one follows it
    up: a repair, or a further vote.
    """

    body: bytes
    digest: bytes
    input_bound: int
    output_bound: int | None
    follows: bytes | None = None

    @property
    def row(self) -> bytes:
        """The digest of the request that its row began with."""
        return self.digest if self.follows is None else self.follows


@dataclass(frozen=True, slots=True)
class InvalidRow:
    """A row that can't be made into a request. It fails without anything being sent."""

    code: str
    message: str


class _RowError(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.row = InvalidRow(code, message)


class RequestBuilder:
    """Makes a request of each row. `columns` names the input columns that it reads.

    `endpoint` is what the request's identity knows of the server: the same body sent to another
    server is another request. Raises JobError for a template that can't be compiled, and for a name
    that is no column of the input.
    """

    def __init__(self, job: Job, columns: Sequence[str], endpoint: str) -> None:
        # With `debug`, an error names the expression that is undefined.
        self._environment = minijinja.Environment(
            undefined_behavior="strict", debug=True, keep_trailing_newline=True, finalizer=_printable
        )
        names = set(job.request.columns.values())
        self._system = job.prompt.system
        for name, source in _templates(job):
            self._compile(name, source, columns, names)
        self._messages_column = job.prompt.messages
        self._image_column = job.prompt.image
        self._folder = job.base
        names.update(name for name in (self._messages_column, self._image_column) if name is not None)
        for name in sorted(names - set(columns)):
            raise JobError(no_such_column("the job", name, columns))
        self.columns: tuple[str, ...] = tuple(name for name in columns if name in names)
        self._overrides = tuple(job.request.columns.items())
        self._fixed = _fixed_parameters(job)
        self._fixed_bound = _parameters_bound(self._fixed)
        self._needs_worst_case = _caps_spending(job)
        self._identity = blake2b(endpoint.encode() + b"\n", digest_size=DIGEST_BYTES)

    def build(self, row: Mapping[str, Any]) -> Request | InvalidRow:
        """The request of a row, given the values of `columns`."""
        try:
            return self._build(row)
        except _RowError as error:
            return error.row
        except ConversationError as error:
            return InvalidRow("invalid_messages", str(error))
        except ImageError as error:
            return InvalidRow(error.code, str(error))

    def _build(self, row: Mapping[str, Any]) -> Request:
        parameters, bound = self._fixed, self._fixed_bound
        if self._overrides:
            parameters = self._with_overrides(row)
            bound = _parameters_bound(parameters)
        body: dict[str, Any] = {"model": parameters["model"]}
        system = self._system_prompt(row)
        if system:
            body["system"] = system
            bound += FRAMING_TOKENS_PER_MESSAGE + content_bound(system)
        body["messages"] = self._messages(row)
        bound += conversation_bound(body["messages"])
        self._check_worst_case(parameters, body["messages"])
        body |= parameters
        encoded = _encoder.encode(body)
        identity = self._identity.copy()
        # An answer is the same whether it comes as a stream or in one piece.
        whole = "stream" not in body
        identity.update(encoded if whole else _encoder.encode(_without(body, "stream")))
        return Request(encoded, identity.digest(), bound, parameters.get("max_tokens"))

    def _check_worst_case(self, parameters: Mapping[str, Any], messages: list[dict[str, Any]]) -> None:
        if not self._needs_worst_case:
            return
        if "max_tokens" not in parameters:
            raise _RowError(
                "no_max_tokens", "Without max_tokens this row has no worst case, and the budget has a cap."
            )
        # A template makes texts and images, which have bounds.
        kind = None if self._messages_column is None else unbounded_block(messages)
        if kind is not None:
            raise _RowError(
                "no_worst_case",
                f"The tokens of a {kind} block have no known bound, and the budget has a cap.",
            )

    def _system_prompt(self, row: Mapping[str, Any]) -> str | list[dict[str, Any]]:
        """As text or as blocks, whichever the job has; empty where nothing is left to send."""
        if not isinstance(self._system, tuple):
            return self._render("prompt.system", row) if self._system else ""
        blocks = [
            {**block, "text": self._render(_block_name(position), row)}
            for position, block in enumerate(self._system)
        ]
        return [block for block in blocks if block["text"].strip()]

    def _messages(self, row: Mapping[str, Any]) -> list[dict[str, Any]]:
        if self._messages_column is not None:
            return conversation(row[self._messages_column])
        prompt = self._render("prompt.template", row)
        if not prompt.strip():
            raise _RowError("empty_prompt", "The template renders to nothing for this row.")
        images = self._images(row)
        content = [*images, {"type": "text", "text": prompt}] if images else prompt
        return [{"role": "user", "content": content}]

    def _images(self, row: Mapping[str, Any]) -> list[dict[str, Any]]:
        if self._image_column is None:
            return []
        try:
            return image_blocks(row[self._image_column], self._folder)
        except ImageError as error:
            raise ImageError(f"Column {self._image_column!r}: {error}", error.code) from None

    def _compile(self, name: str, source: str, columns: Sequence[str], names: set[str]) -> None:
        try:
            self._environment.add_template(name, source)
            used = self._environment.undeclared_variables_in_template(name)
        except minijinja.TemplateError as error:
            raise JobError(f"{name}, line {error.line}: {error.detail or error.kind}.") from None
        used -= set(self._environment.globals) - set(columns)
        if "row" in used and "row" not in columns:
            names.update(columns)
            used.discard("row")
        for column in sorted(used - set(columns)):
            raise JobError(no_such_column(name, column, columns))
        names.update(used)

    def _render(self, name: str, row: Mapping[str, Any]) -> str:
        values = {column: _for_template(value) for column, value in row.items()}
        try:
            return self._environment.render_template(name, **{"row": values, **values})
        except minijinja.TemplateError as error:
            raise _RowError(
                "template_error", f"{name}, line {error.line}: {error.detail or error.kind}"
            ) from None

    def _with_overrides(self, row: Mapping[str, Any]) -> dict[str, Any]:
        parameters = dict(self._fixed)
        for parameter, column in self._overrides:
            value = row[column]
            if value is not None:
                try:
                    parameters[parameter] = parameter_value(parameter, value, column)
                except ParameterError as error:
                    raise _RowError("invalid_parameter", str(error)) from None
        return parameters


def separate(request: Request, occurrence: int) -> Request:
    """The same request as one of its own: for rows whose duplicates are each to be asked."""
    if occurrence == 1:
        return request
    return msgspec.structs.replace(
        request, digest=derived_digest(request.digest, occurrence.to_bytes(8, "big"))
    )


def derived_digest(digest: bytes, *what: bytes) -> bytes:
    """The identity of a request that comes of another one."""
    return blake2b(digest + b"".join(what), digest_size=DIGEST_BYTES).digest()


def no_such_column(where: str, name: str, columns: Sequence[str]) -> str:
    near = get_close_matches(name, columns, 1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    has = ", ".join(columns)
    return f"{where} names the column {name!r}, which the input doesn't have.{hint}\nIt has: {has}."


def _printable(value: Any) -> Any:
    """Null cells print as nothing, lists and structs as JSON."""
    if value is None:
        return ""
    return _text_encoder.encode(value).decode() if isinstance(value, list | dict) else value


def _for_template(value: Any) -> Any:
    """Decimals are numbers to a template, as floats; where a float would lose digits, text."""
    if isinstance(value, Decimal) and value.is_finite() and Decimal(repr(float(value))) != value:
        return str(value)
    return value


def _templates(job: Job) -> Iterator[tuple[str, str]]:
    """The templates of a job under the names that error texts use."""
    if job.prompt.template is not None:
        yield "prompt.template", job.prompt.template
    if isinstance(job.prompt.system, tuple):
        for position, block in enumerate(job.prompt.system):
            yield _block_name(position), block["text"]
    elif job.prompt.system is not None:
        yield "prompt.system", job.prompt.system


def _block_name(position: int) -> str:
    return f"prompt.system[{position}].text"


def _caps_spending(job: Job) -> bool:
    """Whether some cap can only hold if every request has a worst case."""
    budget = job.budget
    caps = (budget.usd, budget.usd_per_run, budget.usd_per_day, budget.credits, budget.tokens)
    return any(cap is not None for cap in caps)


def _parameters_bound(parameters: Mapping[str, Any]) -> int:
    """Tokens that the parameters may add to the input: tools, schemas and the like become part of it."""
    metered = {name: value for name, value in parameters.items() if name not in _OUTSIDE_THE_PROMPT}
    return FRAMING_TOKENS_PER_REQUEST + (len(_encoder.encode(metered)) if metered else 0)


def _fixed_parameters(job: Job) -> dict[str, Any]:
    request = job.request
    given = {
        "model": request.model,
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "flagged_categories": list(request.flagged_categories) or None,
        "stream": request.stream or None,
    }
    parameters = {name: value for name, value in given.items() if value is not None}
    return parameters | {name: request.extra[name] for name in sorted(request.extra)}


def _without(body: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key != name}
