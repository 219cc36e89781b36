"""Some rows of the input at a time, with the request of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import pyarrow as pa

from batchrun.client.builder import InvalidRow, RequestBuilder
from batchrun.client.request import Request
from batchrun.rows.digest_cache import OpenDigestCache
from batchrun.rows.duplicates import Occurrences
from batchrun.rows.former import FormerRequests
from batchrun.rows.rendered import Build, rendered_or_known
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
    build: Build

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
    the rendering where the number of occurrences doesn't change a row's request.
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
        cells = batch.select(self._rendered_from)
        found = rendered_or_known(self._digests, cells, partial(self._requests, batch))
        if self._former is not None:
            found = self._former.where_known(batch, cells, found, self._digests)
        return Chunk(first, batch.select(names), batch, found.digests, found.plain, found.build)

    def _requests(self, batch: pa.RecordBatch) -> list[Request | InvalidRow]:
        used = self._builder.columns
        rows = self._table.template_rows(batch, used)
        requests = [self._builder.build(dict(zip(used, row, strict=True))) for row in rows]
        return self._occurrences.separated(requests)
