"""Reads images from cells, recognizes them by their first bytes and encodes them as content blocks."""

import os
import re
import stat
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MOST_IMAGE_BYTES = 5 * 2**20
"""The size limit of one image before encoding. Anthropic's API refuses larger ones too."""

IMAGE_TOKENS = 8_192
"""Upper bound of the tokens that one image is metered at.

It doesn't follow the size in pixels: the reference page doesn't say how images are metered, and many models
scale small ones up. Anthropic's formula, width x height / 750, stops at some 1,600 tokens.
"""

_LONGEST_SHOWN = 300  # characters
_HTTP_URL = re.compile(r"https?://[^\s/]\S*", re.IGNORECASE)
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


class ImageError(Exception):
    """A cell doesn't hold a usable image. `str(error)` says why; `code` is the row's `error_code`."""

    def __init__(self, message: str, code: str = "invalid_image") -> None:
        super().__init__(message)
        self.code = code


def image_blocks(cell: Any, folder: Path) -> list[dict[str, Any]]:
    """Returns the content blocks of type `image` for a cell: none for null or empty text.

    A cell holds an image's bytes, a path (relative to `folder`), an http(s) URL, which is sent as it is and
    not fetched, a `data:` URL, a struct with one of these in `bytes` or `path`, or a list of such.
    Raises ImageError.
    """
    images = cell if isinstance(cell, list) else [cell]
    sources = [_source(image, folder) for image in images]
    return [{"type": "image", "source": source} for source in sources if source is not None]


def checked_image(block: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a given image block with its data as base64 text. Raises ImageError for a wrong source."""
    source = block.get("source")
    match source:
        case {"type": "base64", "media_type": str(stated), "data": str() | bytes() as data}:
            image = _decoded(data) if isinstance(data, str) else data
            made = _base64_source(image)
            if made["media_type"] != stated:
                raise ImageError(f"media_type says {stated}, but the data is {made['media_type']}.")
            return {**block, "source": made}
        case {"type": "url", "url": str(url)} if _HTTP_URL.fullmatch(url):
            return dict(block)
    raise ImageError(
        'An image block needs a source: {type: "base64", media_type, data} or an http(s) {type: "url", url}.'
    )


def media_type(data: bytes) -> str | None:
    """Returns the media type by the first bytes; None for anything but PNG, JPEG, GIF and WebP."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "image/webp"
    return None


def _source(image: Any, folder: Path) -> dict[str, str] | None:
    if isinstance(image, Mapping):  # the layout of Hugging Face's image features
        data = image.get("bytes")
        image = image.get("path") if data is None else data
    if image is None or image == "":
        return None
    if isinstance(image, bytes):
        return _base64_source(image)
    if not isinstance(image, str):
        raise ImageError(f"An image is a path, a URL or bytes, not {type(image).__name__}.")
    if image.startswith("data:"):
        return _base64_source(_decoded(image.partition(",")[2]))
    if _HTTP_URL.fullmatch(image):
        return {"type": "url", "url": image}
    if _SCHEME.match(image):
        raise ImageError(f"{image[:60]!r} is not an http or https URL that a server could fetch.")
    path = folder / image
    try:
        return _base64_source(_read(path))
    except ImageError as error:
        raise ImageError(f"{_shown(path)}: {error}", error.code) from None


def _read(path: Path) -> bytes:
    """Reads at most one byte more than an image may have."""
    try:
        # Opening a pipe would wait for its other end, and reading one such as /proc/kmsg for its next line.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise ImageError("It is not a regular file.", "unreadable_image")
            # Files generated while they are read, such as those in /proc, state a size of 0.
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read(min(found.st_size, MOST_IMAGE_BYTES + 1))
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ImageError(f"{error.strerror}.", "unreadable_image") from None
    except ValueError:
        raise ImageError("A path can't hold a null character.", "unreadable_image") from None


def _shown(path: Path) -> str:
    """Shortens a path for an error text: data given as a path by mistake can be very long."""
    text = str(path)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _base64_source(data: bytes) -> dict[str, str]:
    if len(data) > MOST_IMAGE_BYTES:
        raise ImageError(f"The image is larger than {MOST_IMAGE_BYTES // 2**20} MiB. Scale it down.")
    kind = media_type(data)
    if kind is None:
        raise ImageError("The data is not a PNG, JPEG, GIF or WebP image.")
    return {"type": "base64", "media_type": kind, "data": b64encode(data).decode()}


def _decoded(text: str) -> bytes:
    if len(text) > MOST_IMAGE_BYTES * 4 // 3 + 4:
        raise ImageError(f"The image is larger than {MOST_IMAGE_BYTES // 2**20} MiB. Scale it down.")
    try:
        return b64decode(text, validate=True)
    except (Base64Error, ValueError):
        raise ImageError("The image's data is not valid base64.") from None
