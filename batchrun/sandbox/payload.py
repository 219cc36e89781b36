"""Checks the body of `POST /v1/messages`, and says what is wrong with an invalid one."""

import base64
import binascii
import hashlib
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from batchrun.sandbox.errors import Rejection, invalid_request
from batchrun.sandbox.images import MAX_IMAGE_TOKENS, image_tokens, pixel_size
from batchrun.sandbox.prompt_cache import CacheMark
from batchrun.sandbox.tokens import TOKENS_PER_MESSAGE, TOKENS_PER_REQUEST, count_tokens

Category = Literal["harassment", "hate", "illicit", "sexual"]

ALWAYS_BLOCKED = frozenset({"self-harm", "sexual/minors"})

_FLAG = re.compile(r"\[sandbox:flag ([a-z/-]+)\]")


class Base64Source(Struct, tag_field="type", tag="base64"):
    media_type: Literal["image/png", "image/jpeg", "image/gif", "image/webp"]
    data: str


class UrlSource(Struct, tag_field="type", tag="url"):
    url: str


class CacheControl(Struct):
    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] = "5m"


class TextBlock(Struct, tag_field="type", tag="text"):
    text: str
    cache_control: CacheControl | None = None


class ImageBlock(Struct, tag_field="type", tag="image"):
    source: Base64Source | UrlSource
    cache_control: CacheControl | None = None


class Message(Struct):
    role: Literal["user", "assistant"]
    content: str | list[TextBlock | ImageBlock]


class MessagesBody(Struct):
    """The documented parameters, and Anthropic's `stop_sequences` and `cache_control`.

    Others are let through and ignored.
    """

    model: str
    messages: Annotated[list[Message], Meta(min_length=1)]
    max_tokens: int | UnsetType = UNSET
    temperature: float | UnsetType = UNSET
    stream: bool = False
    system: str | list[TextBlock] = ""
    flagged_categories: list[Category] = []
    stop_sequences: list[Annotated[str, Meta(min_length=1)]] = []
    cache_control: CacheControl | None = None
    thinking: Any = None


@dataclass(frozen=True, slots=True)
class Turn:
    """The text of one message of the conversation."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """A valid request. `digest` is of the canonical body without `stream`: whoever asks the same
    gets the same answer, streamed or not. `max_tokens` and `temperature` are None where it names none. It
    `thinks` unless `thinking` is of the type "disabled".
    """

    model: str
    system: str
    turns: list[Turn]
    has_images: bool
    input_tokens: int
    max_tokens: int | None
    temperature: float | None
    stream: bool
    stop_sequences: list[str]
    digest: bytes
    cache_marks: Sequence[CacheMark] = ()
    thinks: bool = True


def parse_prompt(body: bytes, models: Collection[str] | None) -> Prompt:
    """The request in `body`, for one of the `models` (None: for any name).

    Raises Rejection: 400 for JSON or parameters, 422 for a senseless history.
    """
    document = _decoded(body)
    request = _converted(document)
    _check_ranges(request)
    if models is not None and request.model not in models:
        raise invalid_request(
            f"model: {request.model!r} is unknown; known are {', '.join(models)}", "model_not_found"
        )
    _check_history(request.messages)
    _check_flags(request)
    document.pop("stream", None)
    return Prompt(
        model=request.model,
        system=_text_of(request.system),
        turns=[Turn(message.role, _text_of(message.content)) for message in request.messages],
        has_images=any(True for message in request.messages for _ in _images(message.content)),
        input_tokens=_input_tokens(request),
        max_tokens=None if request.max_tokens is UNSET else request.max_tokens,
        temperature=None if request.temperature is UNSET else request.temperature,
        stream=request.stream,
        stop_sequences=request.stop_sequences,
        digest=hashlib.sha256(msgspec.json.encode(document, order="sorted")).digest(),
        cache_marks=cache_marks(request, document.get("tools")) if b'"cache_control"' in body else (),
        thinks=request.thinking != {"type": "disabled"},
    )


def _decoded(body: bytes) -> dict[str, Any]:
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise invalid_request(f"the body is not valid JSON: {error}", "invalid_json") from None
    if not isinstance(document, dict):
        raise invalid_request("the body must be a JSON object", "invalid_json")
    return document


def _converted(document: dict[str, Any]) -> MessagesBody:
    try:
        return msgspec.convert(document, MessagesBody)
    except msgspec.ValidationError as error:
        raise invalid_request(_field_message(str(error))) from None


_EXPECTED_VALUES = {
    "role": "user or assistant",
    "type": "text or image for a content block, base64 or url for an image source, "
    "ephemeral for cache_control",
    "ttl": "5m or 1h",
    "media_type": "image/png, image/jpeg, image/gif or image/webp",
    "flagged_categories": "harassment, hate, illicit or sexual",
}


def _field_message(error: str) -> str:
    """msgspec's "Expected `int`, got `str` - at `$.a[0].b`" as "a.0.b: expected int, got str"."""
    what, _, path = error.partition(" - at `$")
    field = re.sub(r"\[(\d+|\.\.\.)\]", r".\1", path.rstrip("`")).lstrip(".")
    missing = re.fullmatch(r"Object missing required field `(\w+)`", what)
    if missing:
        return f"{field}.{missing[1]}".lstrip(".") + ": field required"
    message = f"{field}: {what[0].lower()}{what[1:].replace('`', '')}"
    if what.startswith("Invalid"):
        name = next(part for part in reversed(field.split(".")) if not part.isdigit())
        message += f"; use {_EXPECTED_VALUES[name]}"
    return message


def _check_ranges(request: MessagesBody) -> None:
    if request.max_tokens is not UNSET and request.max_tokens < 1:
        raise invalid_request("max_tokens: must be at least 1")
    if request.temperature is not UNSET and not 0 <= request.temperature <= 2:
        raise invalid_request("temperature: must be between 0 and 2")


def _check_history(messages: list[Message]) -> None:
    """The rule of strict chat templates: user and assistant in turn, the user first and last, none empty."""
    for index, message in enumerate(messages):
        if message.role != ("assistant" if index % 2 else "user"):
            raise _unprocessable(
                f"messages.{index}.role: user and assistant must alternate, beginning with user"
            )
        if not _has_content(message.content):
            raise _unprocessable(f"messages.{index}.content: must not be empty")
        if message.role == "assistant" and any(_images(message.content)):
            raise _unprocessable(f"messages.{index}.content: only user messages may hold images")
    if messages[-1].role != "user":
        raise _unprocessable(f"messages.{len(messages) - 1}.role: the last message must be the user's")


def _unprocessable(message: str) -> Rejection:
    return invalid_request(message, "invalid_history", status=422)


def _has_content(content: str | list[TextBlock | ImageBlock]) -> bool:
    if isinstance(content, str):
        return bool(content.strip())
    return bool(content) and all(isinstance(block, ImageBlock) or block.text.strip() for block in content)


def _images(content: str | list[TextBlock | ImageBlock]) -> Iterator[tuple[int, ImageBlock]]:
    if not isinstance(content, str):
        for index, block in enumerate(content):
            if isinstance(block, ImageBlock):
                yield index, block


def _text_of(content: str | list[TextBlock] | list[TextBlock | ImageBlock]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(block.text for block in content if isinstance(block, TextBlock))


def _check_flags(request: MessagesBody) -> None:
    """The sandbox judges nothing: a marker such as `[sandbox:flag hate]` stands for content of a category."""
    blocked = ALWAYS_BLOCKED.union(request.flagged_categories)
    for content in (request.system, *(message.content for message in request.messages)):
        for category in _FLAG.findall(_text_of(content)):
            if category in blocked:
                raise invalid_request(f"the request was blocked as {category}", "content_flagged")


def _input_tokens(request: MessagesBody) -> int:
    total = TOKENS_PER_REQUEST
    if request.system:
        total += TOKENS_PER_MESSAGE + _system_tokens(_text_of(request.system))
    for index, message in enumerate(request.messages):
        total += TOKENS_PER_MESSAGE + count_tokens(_text_of(message.content))
        for block, image in _images(message.content):
            total += _source_tokens(image.source, f"messages.{index}.content.{block}.source")
    return total


# A batch repeats its system prompt in every request.
_system_tokens = lru_cache(maxsize=16)(count_tokens)


def _source_tokens(source: Base64Source | UrlSource, field: str) -> int:
    """Tokens of one image. URLs are not fetched: they are metered as the largest image."""
    if isinstance(source, UrlSource):
        if not source.url.startswith(("https://", "http://")):
            raise invalid_request(f"{field}.url: must be an http or https URL")
        return MAX_IMAGE_TOKENS
    try:
        data = base64.b64decode(source.data, validate=True)
        return image_tokens(*pixel_size(data, source.media_type))
    except binascii.Error:
        raise invalid_request(f"{field}.data: is not valid base64") from None
    except ValueError as error:
        raise invalid_request(f"{field}.data: {error}") from None


def cache_marks(request: MessagesBody, tools: Any) -> list[CacheMark]:
    """The places up to which a request wants its prompt cached, from the first to the last.

    A prompt begins with its tools, which are not metered here, and its system prompt. A mark is not a part of
    the prompt; one at the top of the request stands for its end.
    """
    hasher = hashlib.blake2b(msgspec.json.encode([request.model, tools]), digest_size=16)
    tokens = TOKENS_PER_REQUEST
    marks = []
    turns = [("system", request.system)] if request.system else []
    for index, (role, content) in enumerate([*turns, *((one.role, one.content) for one in request.messages)]):
        hasher.update(role.encode())
        tokens += TOKENS_PER_MESSAGE
        for block in [TextBlock(content)] if isinstance(content, str) else content:
            hasher.update(msgspec.json.encode(msgspec.structs.replace(block, cache_control=None)))
            if isinstance(block, ImageBlock):
                tokens += _source_tokens(block.source, f"messages.{index}.content")
            else:
                tokens += _system_tokens(block.text) if role == "system" else count_tokens(block.text)
            if block.cache_control is not None:
                marks.append(CacheMark(hasher.digest(), tokens, block.cache_control.ttl))
    if request.cache_control is not None:
        marks.append(CacheMark(hasher.digest(), tokens, request.cache_control.ttl))
    return marks
