"""The pixel size is read from each format's header, and metered by Anthropic's formula."""

import base64
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.sandbox.images import image_tokens, pixel_size
from tests.sandbox.conftest import Connected, body, png

MEDIA_TYPES = ("image/png", "image/jpeg", "image/gif", "image/webp")

JPEG = (
    b"\xff\xd8\xff\xe0" + struct.pack(">H", 16) + b"JFIF\0" + bytes(9) + b"\xff"
    b"\xff\xc2" + struct.pack(">HBHHB", 17, 8, 480, 640, 3) + bytes(9)
)
GIF = b"GIF89a" + struct.pack("<HH", 640, 480) + bytes(3)
VP8 = b"RIFF\0\0\0\0WEBPVP8 " + bytes(7) + b"\x9d\x01\x2a" + struct.pack("<HH", 640, 480)
VP8L = b"RIFF\0\0\0\0WEBPVP8L" + bytes(4) + b"\x2f" + struct.pack("<I", 639 | 479 << 14) + bytes(5)
VP8X = b"RIFF\0\0\0\0WEBPVP8X" + bytes(8) + (639).to_bytes(3, "little") + (479).to_bytes(3, "little")


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (png(640, 480), "image/png"),
        (JPEG, "image/jpeg"),
        (GIF, "image/gif"),
        (VP8, "image/webp"),
        (VP8L, "image/webp"),
        (VP8X, "image/webp"),
    ],
    ids=["png", "jpeg", "gif", "webp lossy", "webp lossless", "webp extended"],
)
def test_the_size_is_read_from_the_header(data: bytes, media_type: str) -> None:
    assert pixel_size(data, media_type) == (640, 480)


@given(
    st.binary(max_size=60), st.sampled_from(MEDIA_TYPES), st.sampled_from([b"", JPEG[:2], VP8[:12], GIF[:6]])
)
def test_any_bytes_have_a_size_or_are_refused(data: bytes, media_type: str, beginning: bytes) -> None:
    try:
        width, height = pixel_size(beginning + data, media_type)
    except ValueError:
        return
    assert width > 0
    assert height > 0


@pytest.mark.parametrize(
    ("size", "tokens"), [((1, 1), 1), ((750, 2), 2), ((751, 2), 3), ((1092, 1092), 1590)]
)
def test_tokens_are_pixels_by_750_rounded_up(size: tuple[int, int], tokens: int) -> None:
    assert image_tokens(*size) == tokens


def test_tokens_are_capped() -> None:
    assert image_tokens(8000, 8000) == 1600


def test_images_are_input_tokens(plain: Connected) -> None:
    """An image of 1,500 pixels adds 2 tokens, one by URL, which isn't fetched, 1,600."""
    text = {"type": "text", "text": "What is it?"}
    by_data = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(png(750, 2)).decode()}
    by_url = {"type": "url", "url": "https://example.com/a.png"}
    used = []
    for blocks in (
        [text],
        [text, {"type": "image", "source": by_data}],
        [text, {"type": "image", "source": by_url}],
    ):
        message = plain.ask(body(messages=[{"role": "user", "content": blocks}])).json()
        used.append(message["usage"]["input_tokens"])
    assert [used[1] - used[0], used[2] - used[0]] == [2, 1600]
