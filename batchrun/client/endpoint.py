"""Sends requests to `POST /v1/messages`, and returns their responses or failures."""

import re
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from batchrun.client.address import Address, messages_address
from batchrun.client.response_reader import AnswerIds, ResponseReader
from batchrun.client.settings import EndpointSettings
from batchrun.client.transport import open_wire
from batchrun.client.wire import Timeouts, Wire
from batchrun.errors import JobError
from batchrun.exchange import Failure, Response
from batchrun.version import __version__

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

__all__ = ["Endpoint", "EndpointSettings", "open_endpoint"]

_ERROR_SECONDS = 5.0
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")  # a token of RFC 9110, in lower case


@asynccontextmanager
async def open_endpoint(
    settings: EndpointSettings, transport: "httpx.AsyncBaseTransport | None" = None
) -> "AsyncIterator[Endpoint]":
    """Opens an endpoint with its connections, and closes them at the end. `transport` replaces the network.

    Raises JobError where the address is not an http(s) URL, a header can't be sent, no CA certificate is
    found or the environment's proxy can't be used.
    """
    address = messages_address(settings.base_url)
    headers = _request_headers(settings, address)
    timeouts = Timeouts(settings.timeout, settings.idle_timeout if settings.stream else None, _ERROR_SECONDS)
    async with open_wire(address, headers, timeouts, settings.connections, transport) as wire:
        yield Endpoint(settings, wire)


class Endpoint:
    """One address of `POST /v1/messages`. Made by `open_endpoint`."""

    def __init__(self, settings: EndpointSettings, wire: Wire) -> None:
        self._settings = settings
        self._wire = wire
        self._ids = AnswerIds()

    async def ready(self) -> None:
        """Returns at once: connections are opened as requests need them."""

    async def send(self, body: bytes, begun: Callable[[], None] | None = None) -> Response | Failure:
        """Sends one request once (`body` is its JSON), reads the response. Raises nothing but cancellation.

        `begun` is called once a response with a status of success begins.
        The outcome of a request whose `send` was cancelled is unknown: it may still be processed and charged.
        """
        reader = ResponseReader(self._settings, self._ids, body, begun)
        await self._wire.exchange(body, reader)
        return reader.result()


def _request_headers(settings: EndpointSettings, address: Address) -> list[tuple[bytes, bytes]]:
    """Returns every request's headers but content-length. The settings' headers override the defaults."""
    headers = {
        "host": address.netloc,
        "user-agent": f"batchrun/{__version__}",
        "content-type": "application/json",
        **{name.lower(): value for name, value in settings.headers.items()},
    }
    if settings.free_tier:
        headers["x-free-tier"] = "true"
    if settings.api_key and settings.auth == "bearer":
        headers["authorization"] = f"Bearer {settings.api_key}"
    elif settings.api_key and settings.auth == "x-api-key":
        headers["x-api-key"] = settings.api_key
    for name, value in headers.items():
        if not (_HEADER_NAME.fullmatch(name) and value.isascii() and value.isprintable()):
            raise JobError(
                f"[endpoint] the header {name!r} can't be sent: use printable ASCII characters alone"
            )
    return [(name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()]
