"""A sandbox, and ways to talk to it: whole requests through httpx, single bytes through a socket."""

import json
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from batchrun.sandbox import Sandbox, Settings, background

KEY = "sk-test"


def body(text: str = "Hello there.", **parameters: Any) -> dict[str, Any]:
    """A valid request with one user message; further parameters as given."""
    request = {
        "model": "abliterated-model",
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 64,
    }
    return request | parameters


def png(width: int, height: int) -> bytes:
    """A whole PNG image of that size, in black."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress((b"\0" + bytes(width)) * height)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


class Connected:
    """A sandbox with a client beside it."""

    def __init__(self, sandbox: Sandbox, client: httpx.Client) -> None:
        self.sandbox = sandbox
        self.client = client

    def ask(self, request: object, key: str | None = KEY, **headers: str) -> httpx.Response:
        """POST /v1/messages; a request that isn't bytes is sent as JSON."""
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        content = request if isinstance(request, bytes) else json.dumps(request).encode()
        return self.client.post("/v1/messages", content=content, headers=headers)

    def total(self) -> dict[str, Any]:
        total: dict[str, Any] = self.sandbox.bill()["total"]
        return total

    def raw(self, request: dict[str, Any]) -> socket.socket:
        """A socket on which `request` has been sent, and nothing read."""
        content = json.dumps(request).encode()
        head = f"POST /v1/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
        head += f"Content-Length: {len(content)}\r\n\r\n"
        connection = socket.create_connection(("127.0.0.1", int(self.sandbox.base_url.rsplit(":", 1)[1])))
        connection.sendall(head.encode() + content)
        return connection


Start = Callable[..., Connected]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a sandbox with the given settings."""
    with ExitStack() as stack:

        def start(**settings: Any) -> Connected:
            sandbox = stack.enter_context(background(Settings(**settings)))
            client = stack.enter_context(httpx.Client(base_url=sandbox.base_url, timeout=20))
            return Connected(sandbox, client)

        yield start


@pytest.fixture(scope="module")
def plain() -> Iterator[Connected]:
    """A sandbox as it is without any settings, shared by the tests of a module."""
    with background() as sandbox, httpx.Client(base_url=sandbox.base_url, timeout=20) as client:
        yield Connected(sandbox, client)
