"""Some rows of the input at a time, with the request of each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import pyarrow as pa

from batchrun.client.builder import InvalidRow, RequestBuilder
from batchrun.client.request import Request
from batchrun.rows.digest_cache import OpenDigestCache
from batchrun.rows.duplicates import Occurrences
from batchrun.rows.former import FormerRequests
from batchrun.tables.reader import Table


@dataclass(frozen=True)
class Chunk:
    """Some consecutive rows: `first` is the index of the first, `digests` has one entry for each.

    The digest of a row without a valid request is None. `plain` says that every row has one, and none marks
    a part of its prompt for the server's cache. `cells` holds what `Table.template_values` needs, besides
    the columns of `batch`.
    """

    first: int
    batch: pa.RecordBatch
    cells: pa.RecordBatch
    digests: Sequence[bytes | None]
    plain: bool
    build: Callable[[], list[Request | InvalidRow]]

    @cached_property
    def requests(self) -> list[Request | InvalidRow]:
        """Returns the request of each row; renders them if the digests came from the cache."""
        return self.build()

    @property
    def sendable_digests(self) -> list[bytes]:
        return [digest for digest in self.digests if digest is not None]

    @property
    def sendable(self) -> list[Request]:
        return [request for request in self.requests if isinstance(request, Request)]


class ChunkMaker:
    """Makes the chunks of one pass, in input order.

    A `former` request takes the place of each row's that the journal has only under that. `digests` spare
    the rendering where neither it nor the number of occurrences changes a row's request.
    """

    def __init__(
        self,
        table: Table,
        builder: RequestBuilder,
        occurrences: Occurrences,
        former: FormerRequests | None,
        digests: OpenDigestCache | None,
    ) -> None:
        self._table = table
        self._builder = builder
        self._occurrences = occurrences
        self._former = former
        self._digests = digests
        self._rendered_from = list(dict.fromkeys([*builder.columns, *table.sources(builder.columns)]))

    def chunk(self, first: int, batch: pa.RecordBatch, names: Sequence[str]) -> Chunk:
        """Returns the rows of `batch`, which follows the last call's, with the columns `names`."""
        shown = batch.select(names)
        if self._digests is None:
            requests = self._occurrences.separated(self._requests(batch))
            if self._former is not None:
                requests = self._former.where_known(batch, requests)
            return Chunk(first, shown, batch, _digests(requests), _plain(requests), lambda: requests)
        key = self._digests.key(batch.select(self._rendered_from))
        known = self._digests.get(key)
        if known is not None:
            return Chunk(first, shown, batch, known, True, partial(self._requests, batch))
        requests = self._requests(batch)
        plain = _plain(requests)
        if plain:
            self._digests.put(key, [digest for digest in _digests(requests) if digest is not None])
        return Chunk(first, shown, batch, _digests(requests), plain, lambda: requests)

    def _requests(self, batch: pa.RecordBatch) -> list[Request | InvalidRow]:
        used = self._builder.columns
        rows = self._table.template_rows(batch, used)
        return [self._builder.build(dict(zip(used, row, strict=True))) for row in rows]


def _digests(requests: Sequence[Request | InvalidRow]) -> list[bytes | None]:
    return [request.digest if isinstance(request, Request) else None for request in requests]


def _plain(requests: Sequence[Request | InvalidRow]) -> bool:
    return all(isinstance(request, Request) and request.cached is None for request in requests)
