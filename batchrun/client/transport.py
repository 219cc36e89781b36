"""Chooses the transport that moves the bytes: the event loop's own sockets, a proxy's, or a given one.

All but the first are httpx transports; the first avoids the cost of httpx's types.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from batchrun.client.address import Address
from batchrun.client.direct import DirectWire
from batchrun.client.proxies import proxy_for
from batchrun.client.wire import Timeouts, Wire

if TYPE_CHECKING:
    import httpx


@asynccontextmanager
async def open_wire(
    address: Address,
    headers: list[tuple[bytes, bytes]],
    timeouts: Timeouts,
    connections: int,
    transport: "httpx.AsyncBaseTransport | None" = None,
) -> AsyncIterator[Wire]:
    """Opens the wire that moves requests to `address` until the block ends; `transport` replaces the network.

    Raises JobError where no CA certificate is found, or a proxy of the environment can't be used.
    """
    proxy = proxy_for(address, os.environ) if transport is None else None
    if transport is None and proxy is None:
        direct = DirectWire(address, headers, timeouts, connections)
        try:
            yield direct
        finally:
            await direct.aclose()
        return
    from batchrun.client.httpx_wire import HttpxWire

    if transport is None:
        from batchrun.client.reqwest import ReqwestTransport

        transport = ReqwestTransport(address.url, timeouts, connections, proxy)
    async with transport:
        yield HttpxWire(transport, address.url, headers, timeouts)
