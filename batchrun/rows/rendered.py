"""The requests of some rows, which are rendered only where their digests are not in the digest cache."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from batchrun.client.builder import InvalidRow
from batchrun.client.request import Request
from batchrun.rows.digest_cache import OpenDigestCache

Build = Callable[[], list[Request | InvalidRow]]


@dataclass(frozen=True)
class Rendered:
    """`digests` and `plain` are as in a `Chunk`; `build` returns the requests, rendered if need be."""

    digests: Sequence[bytes | None]
    plain: bool
    build: Build


def rendered(requests: list[Request | InvalidRow]) -> Rendered:
    """Returns requests that have been rendered."""
    digests = [request.digest if isinstance(request, Request) else None for request in requests]
    plain = all(isinstance(request, Request) and request.cached is None for request in requests)
    return Rendered(digests, plain, lambda: requests)


def rendered_or_known(
    cache: OpenDigestCache | None, cells: pa.RecordBatch, build: Build, variant: bytes = b""
) -> Rendered:
    """Returns the requests that `build` makes of `cells`, in the `variant` of an earlier version."""
    if cache is None:
        return rendered(build())
    key = cache.key(cells, variant)
    known = cache.get(key)
    if known is not None:
        return Rendered(known, True, build)
    found = rendered(build())
    if found.plain:
        cache.put(key, [digest for digest in found.digests if digest is not None])
    return found
