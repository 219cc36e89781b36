"""Builds a row's request: renders templates, sets parameters, encodes the body, computes its identity."""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import msgspec

from batchrun.client.messages.caching import MARK, cache_lifetime, marked_beginning
from batchrun.client.messages.content import (
    FRAMING_TOKENS_PER_MESSAGE,
    ConversationError,
    content_bound,
    conversation,
    conversation_bound,
    unbounded_block,
)
from batchrun.client.messages.images import ImageError, image_blocks
from batchrun.client.request import DIGEST_BYTES, Request
from batchrun.client.template_uses import text_around_columns
from batchrun.client.templates import RenderError, Rendering, Templates, no_such_column, number_or_text
from batchrun.errors import JobError
from batchrun.job.parameters import OF_REQUEST, OF_TEXT, OUTSIDE_THE_PROMPT, ParameterError, parameter_value
from batchrun.job.spec import Job
from batchrun.text import NumberAsWritten

FRAMING_TOKENS_PER_REQUEST = 64
"""Upper bound of the tokens that a chat template adds to a request, besides those for each message."""


# A complete response is the same as a stream or in one piece, and under any max_tokens that it fits in.
_OUTSIDE_IDENTITY = ("max_tokens", "stream")

_encoder = msgspec.json.Encoder(decimal_format="number")


@dataclass(frozen=True, slots=True)
class InvalidRow:
    """A row's request can't be built. The row fails, and nothing is sent for it."""

    code: str
    message: str


class _RowError(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.row = InvalidRow(code, message)


class RequestBuilder:
    """Builds each row's request. `columns` names the input columns that it reads.

    `endpoint` identifies the server in the request's identity: the same body sent to another server is
    another request. `texts` are the columns whose cells are the file's unchanged text. With another
    `rendering` than the current one, requests are as earlier versions built them. A builder `with_cap` gives
    them their former identity with this max_tokens (0: the row's own), when it included that. See
    `rows.former`. Raises JobError for a template that can't be compiled, and for a name that is not a column
    of the input.
    """

    def __init__(
        self,
        job: Job,
        columns: Sequence[str],
        endpoint: str,
        texts: frozenset[str] = frozenset(),
        *,
        rendering: Rendering = Rendering.CURRENT,
        with_cap: int | None = None,
    ) -> None:
        self._texts = texts
        self._with_cap = with_cap
        self._system = job.prompt.system
        self._sources = dict(_templates(job))
        self._templates = Templates(self._sources.items(), columns, texts, rendering=rendering)
        names = {*job.request.columns.values(), *self._templates.names}
        self._messages_column = job.prompt.messages
        self._image_column = job.prompt.image
        self._folder = job.base
        names.update(name for name in (self._messages_column, self._image_column) if name is not None)
        for name in sorted(names - set(columns)):
            raise JobError(no_such_column("the job", name, columns))
        self.columns: tuple[str, ...] = tuple(name for name in columns if name in names)
        self._overrides = tuple(job.request.columns.items())
        self._fixed = _fixed_parameters(job)
        self._encoded = self._encode(self._fixed)
        self._fixed_bound = _parameters_bound(self._fixed)
        self._needs_worst_case = job.budget.needs_worst_case
        self._identity = blake2b(endpoint.encode() + b"\n", digest_size=DIGEST_BYTES)

    @property
    def takes_nulls_as_text(self) -> bool:
        """Whether a template may make text of a null inside a list or an object, or of one that it tests."""
        return self._templates.take_nulls_as_text

    def always_builds(self, plain: Set[str]) -> bool:
        """Returns whether no row can be invalid, but for its image: templates only print `plain` columns."""
        if self._overrides or self._messages_column is not None:
            return False
        if self._needs_worst_case and "max_tokens" not in self._fixed:
            return False
        texts = {name: text_around_columns(source, plain) for name, source in self._sources.items()}
        return None not in texts.values() and bool((texts["prompt.template"] or "").strip())

    def build(self, row: Mapping[str, Any]) -> Request | InvalidRow:
        """Returns a row's request, given the values of `columns`."""
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
        prompt = _encoder.encode(body)
        whole, essence = self._encoded if parameters is self._fixed else self._encode(parameters)
        identity = self._identity.copy()
        identity.update(_joined(prompt, essence))
        marked = MARK in prompt or MARK in whole
        cached = cache_lifetime((body, prompt), (parameters, whole)) if marked else None
        return Request(
            _joined(prompt, whole),
            identity.digest(),
            bound,
            parameters.get("max_tokens"),
            cached=cached,
            beginning=None if cached is None else marked_beginning(body, parameters),
        )

    def _encode(self, parameters: Mapping[str, Any]) -> tuple[bytes, bytes]:
        """Returns all parameters but the model, as JSON, and the ones that the identity covers."""
        named = {name: value for name, value in parameters.items() if name != "model"}
        outside = _OUTSIDE_IDENTITY if self._with_cap is None else ("stream",)
        essence = {name: value for name, value in named.items() if name not in outside}
        if self._with_cap:
            essence["max_tokens"] = self._with_cap
        return _encoder.encode(named), _encoder.encode(essence)

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
        """Returns the system prompt as text or as blocks, as in the job; empty if nothing is left to send."""
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

    def _render(self, name: str, row: Mapping[str, Any]) -> str:
        try:
            return self._templates.render(name, row)
        except RenderError as error:
            raise _RowError("template_error", str(error)) from None

    def _with_overrides(self, row: Mapping[str, Any]) -> dict[str, Any]:
        parameters = dict(self._fixed)
        for parameter, column in self._overrides:
            value = row[column]
            if column in self._texts and parameter not in OF_TEXT and value is not None:
                value = number_or_text(value)
            if isinstance(value, NumberAsWritten):
                value = float(value)
            if value is not None:
                try:
                    parameters[parameter] = parameter_value(parameter, value, column)
                except ParameterError as error:
                    raise _RowError("invalid_parameter", str(error)) from None
        return parameters


def _joined(first: bytes, second: bytes) -> bytes:
    """Joins two JSON objects into one. The first must not be empty."""
    return first if second == b"{}" else first[:-1] + b"," + second[1:]


def _templates(job: Job) -> Iterator[tuple[str, str]]:
    """Returns a job's templates by their names in error texts."""
    if job.prompt.template is not None:
        yield "prompt.template", job.prompt.template
    if isinstance(job.prompt.system, tuple):
        for position, block in enumerate(job.prompt.system):
            yield _block_name(position), block["text"]
    elif job.prompt.system is not None:
        yield "prompt.system", job.prompt.system


def _block_name(position: int) -> str:
    return f"prompt.system[{position}].text"


def _parameters_bound(parameters: Mapping[str, Any]) -> int:
    """Returns an upper bound of the input tokens for parameters such as tools and schemas."""
    metered = {name: value for name, value in parameters.items() if name not in OUTSIDE_THE_PROMPT}
    return FRAMING_TOKENS_PER_REQUEST + (len(_encoder.encode(metered)) if metered else 0)


def _fixed_parameters(job: Job) -> dict[str, Any]:
    request = job.request
    given = {name: getattr(request, name) for name in OF_REQUEST}
    # False and empty lists are not sent; 0 is.
    parameters = {
        name: value
        for name, value in given.items()
        if value is not None and value is not False and value != ()
    }
    return parameters | {name: request.extra[name] for name in sorted(request.extra)}
