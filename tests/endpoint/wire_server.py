"""A server on loopback that does to a connection whatever a test says, byte by byte."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from batchrun.client.endpoint import EndpointSettings, open_endpoint
from batchrun.exchange import Failure, Response

MESSAGE = (
    b'{"id":"msg_1","type":"message","role":"assistant","model":"abliterated-model",'
    b'"content":[{"type":"text","text":"positive"}],"stop_reason":"end_turn","stop_sequence":null,'
    b'"usage":{"input_tokens":14,"output_tokens":32},"remaining_credits":487,"estimated_credits_used":1,'
    b'"estimated_cost_usd":0.00023}'
)
REQUEST = b'{"model":"abliterated-model","messages":[{"role":"user","content":"hello"}]}'


class Connection:
    """One accepted connection, and the requests that came over it."""

    def __init__(
        self, server: "WireServer", reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer

    async def read_head(self) -> bytes:
        return await self._reader.readuntil(b"\r\n\r\n")

    async def read_request(self) -> bytes:
        head = await self.read_head()
        lengths = [line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        request = head + await self._reader.readexactly(int(lengths[0]) if lengths else 0)
        self._server.requests.append(request)
        return request

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self, body: bytes, headers: bytes = b"", status: bytes = b"200 OK") -> None:
        await self.write(response(body, headers, status))

    async def wait_for_end(self) -> None:
        """Return when the client closes the connection."""
        while await self._reader.read(65536):
            pass

    def reset(self) -> None:
        """Close with a TCP RST."""
        raw = self._writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    def close(self) -> None:
        self._writer.close()


Script = Callable[[Connection], Awaitable[None]]


class WireServer:
    def __init__(self) -> None:
        self.url = ""
        self.requests: list[bytes] = []
        self.connections = 0


@asynccontextmanager
async def wire_server(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[WireServer]:
    """Run `script` on each connection; connections still open at the end are dropped."""
    server, running = WireServer(), dict[asyncio.Task[None], asyncio.StreamWriter]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        with suppress(OSError, asyncio.IncompleteReadError):
            await script(Connection(server, reader, writer))
        writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(serve(reader, writer))
        running[task] = writer
        task.add_done_callback(running.pop)

    listener = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls, limit=2**24)
    server.url = f"{'https' if tls else 'http'}://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()
        for task, writer in running.items():
            writer.transport.abort()
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await asyncio.sleep(0)  # the loop closes an aborted socket in its next round


def response(body: bytes, headers: bytes = b"", status: bytes = b"200 OK") -> bytes:
    """A whole response; `headers` are lines that end in CRLF."""
    return b"HTTP/1.1 %b\r\n%bcontent-length: %d\r\n\r\n%b" % (status, headers, len(body), body)


def always(raw: bytes) -> Script:
    """Answer each request of a connection with `raw`, and keep the connection open."""

    async def script(connection: Connection) -> None:
        while True:
            await connection.read_request()
            await connection.write(raw)

    return script


def once(raw: bytes) -> Script:
    """Answer the first request of a connection with `raw`, then close it."""

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.write(raw)

    return script


async def send_once(settings: EndpointSettings, body: bytes = REQUEST) -> Response | Failure:
    async with open_endpoint(settings) as endpoint:
        return await endpoint.send(body)


async def failure_from(script: Script, body: bytes = REQUEST, **settings: object) -> Failure:
    """Returns the outcome of one request to a server with this script; it must be a failure."""
    async with wire_server(script) as server:
        outcome = await send_once(EndpointSettings(server.url, "sk-test-key", **settings), body)  # type: ignore[arg-type]
    assert isinstance(outcome, Failure), outcome
    return outcome


async def answer_from(script: Script, **settings: object) -> Response:
    """Returns the outcome of one request to a server with this script; it must be a response."""
    async with wire_server(script) as server:
        outcome = await send_once(EndpointSettings(server.url, "sk-test-key", **settings))  # type: ignore[arg-type]
    assert isinstance(outcome, Response), outcome
    return outcome
