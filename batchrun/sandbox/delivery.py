"""Sends a response, and produces the faults that consist in broken sending."""

import asyncio
import socket
import struct

from starlette.types import Receive, Send

from batchrun.sandbox import faults
from batchrun.sandbox.provider import Response, Stream, generation_seconds
from batchrun.sandbox.settings import Settings

_LINGER_ZERO = struct.pack("ii", 1, 0)


async def deliver(
    response: Response, settings: Settings, transport: asyncio.Transport, receive: Receive, send: Send
) -> None:
    """Sends `response` after its delay, broken as its fault requires."""
    if response.delay:
        await asyncio.sleep(response.delay)
    if response.fault in (faults.RESET_BEFORE, faults.RESET_AFTER):
        reset(transport)
        await until_disconnected(receive)
    elif response.fault == faults.HANG:
        await until_disconnected(receive)
    elif response.fault == faults.TRUNCATED:
        await _send_half(response, send)
        transport.close()
        await until_disconnected(receive)
    elif response.stream is not None:
        await _send_stream(response, response.stream, settings, send)
    else:
        await _send_start(response, len(response.body), send)
        await send({"type": "http.response.body", "body": response.body})


def reset(transport: asyncio.Transport) -> None:
    """Ends the connection with a TCP RST: what a closed socket with SO_LINGER 0 sends (socket(7))."""
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
    transport.abort()


async def until_disconnected(receive: Receive) -> None:
    """Returns when the client has closed the connection, or the response is complete."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send_start(response: Response, content_length: int | None, send: Send) -> None:
    headers = response.headers
    if content_length is not None:
        headers = [*headers, (b"content-length", b"%d" % content_length)]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})


async def _send_half(response: Response, send: Send) -> None:
    """A body of known length half of which comes, or a chunked one whose end doesn't."""
    whole = response.body if response.stream is None else _joined(response.stream)
    await _send_start(response, len(whole) if response.stream is None else None, send)
    await send({"type": "http.response.body", "body": whole[: len(whole) // 2], "more_body": True})


async def _send_stream(response: Response, stream: Stream, settings: Settings, send: Send) -> None:
    await _send_start(response, None, send)
    if not settings.first_token and not settings.tokens_per_second:
        await send({"type": "http.response.body", "body": _joined(stream)})
        return
    await send({"type": "http.response.body", "body": stream.opening, "more_body": True})
    await asyncio.sleep(settings.first_token)
    for delta in stream.deltas:
        await asyncio.sleep(generation_seconds(delta.tokens, settings))
        await send({"type": "http.response.body", "body": delta.event, "more_body": True})
    await send({"type": "http.response.body", "body": stream.closing})


def _joined(stream: Stream) -> bytes:
    return b"".join((stream.opening, *(delta.event for delta in stream.deltas), stream.closing))
