"""Requests as earlier versions made them: finds paid responses in journals of these versions.

Before CSV text stayed text, 3.10 was rendered as 3.1; decimals lost their scale, and a null that went through
a filter was None; inside lists and objects it was so for longer. A request's identity is its content, so such
a row would be sent again. Before a whole response counted under any max_tokens, max_tokens was a part of the
identity.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from batchrun.client.builder import InvalidRow, RequestBuilder
from batchrun.client.request import Request
from batchrun.client.templates import Rendering
from batchrun.errors import JobError
from batchrun.job.spec import Job
from batchrun.journal import Journal
from batchrun.rows.digest_cache import OpenDigestCache
from batchrun.rows.duplicates import Occurrences
from batchrun.rows.rendered import Rendered, rendered, rendered_or_known
from batchrun.rows.scratch import scratch_folder
from batchrun.tables.reader import Table

_LOOKED_UP_AT_ONCE = 4_096
_LATEST = 2**63 - 1


@dataclass(frozen=True)
class _Version:
    """One way in which requests were made, by runs before `until`. `types` are those of a CSV's cells then,
    None where they were the same as now. `variant` names it in the digest cache."""

    variant: bytes
    builder: RequestBuilder
    types: Mapping[str, pa.DataType] | None
    occurrences: Occurrences
    until: int


class FormerRequests:
    """Knows the former requests of each row, in input order.

    A CSV's row has two, since the type of a cell depended on its column, which later rows may have changed;
    and each of these once per value of max_tokens in the journal.
    """

    def __init__(
        self, table: Table, journal: Journal, versions: Sequence[_Version], separately: bool
    ) -> None:
        self._table = table
        self._journal = journal
        self._versions = versions
        self._separately = separately

    def where_known(
        self, batch: pa.RecordBatch, cells: pa.RecordBatch, now: Rendered, cache: OpenDigestCache | None
    ) -> Rendered:
        """Returns the requests `now`, with a row's former request where the journal has only that.

        `batch` has their rows, and follows the last call's batch; `cells` has what they are made of. Raises
        JournalError.
        """
        found, parts, chosen = list(now.digests), [now], [0] * len(now.digests)
        known = self._known(found, _LATEST)
        for version in self._versions:
            if not self._separately and all(digest in known for digest in found):
                break
            former = rendered_or_known(cache, cells, partial(self._former, batch, version), version.variant)
            known_before = self._known(former.digests, version.until)
            for row, before in enumerate(former.digests):
                if before in known_before and (self._separately or found[row] not in known):
                    found[row], chosen[row] = before, len(parts)
            parts.append(former)
            known |= known_before
        if not any(chosen):
            return now
        chosen_parts = {part: parts[part] for part in chosen}
        build = partial(_build, chosen_parts, chosen)
        if cache is None:
            return rendered(build())
        return Rendered(found, all(part.plain for part in chosen_parts.values()), build)

    def _known(self, requests: Sequence[bytes | None], run: int) -> set[bytes]:
        digests = list({digest for digest in requests if digest is not None})
        known: set[bytes] = set()
        for start in range(0, len(digests), _LOOKED_UP_AT_ONCE):
            part = digests[start : start + _LOOKED_UP_AT_ONCE]
            known |= self._journal.attempted_before(run, part)
        return known

    def _former(self, batch: pa.RecordBatch, version: _Version) -> list[Request | InvalidRow]:
        names = version.builder.columns
        if version.types is None:
            rows = self._table.template_rows(batch, names)
        else:
            rows = self._table.former_rows(batch, names, version.types)
        requests = [version.builder.build(dict(zip(names, row, strict=True))) for row in rows]
        return version.occurrences.separated(requests)


def _build(parts: Mapping[int, Rendered], chosen: Sequence[int]) -> list[Request | InvalidRow]:
    """Returns for each row the request of the part that was chosen for it."""
    built = {number: part.build() for number, part in parts.items()}
    return [built[number][row] for row, number in enumerate(chosen)]


def former_requests(
    table: Table, job: Job, endpoint: str, journal: Journal, separately: bool
) -> FormerRequests | None:
    """Returns the former requests of a job; None if `journal` is newer. Raises JournalError."""
    since_caps, since_texts, since_nulls = (
        journal.first_run_with_key(key) or _LATEST for key in _FIRST_KEYS.values()
    )
    kinds: list[_Kind] = []
    if since_caps > 1:
        kinds.append(_Kind(Rendering.CURRENT, None, since_caps))
    if since_nulls > 1 and _builder(table, job, endpoint).takes_nulls_as_text:
        kinds.append(_Kind(Rendering.NESTED_NONE, None, since_nulls))
    if since_caps > 1 and since_texts > 1:
        kinds += [_Kind(Rendering.TYPED, types, since_texts) for types in _former_types(table)]
    if not kinds:
        return None
    try:
        versions = [
            _version(table, job, endpoint, kind, cap)
            for kind in kinds
            for cap in _caps(kind, journal, separately, since_caps)
        ]
    except JobError:  # what earlier versions refused was never sent
        return None
    return FormerRequests(table, journal, versions, separately)


_FIRST_KEYS = {"caps": "retry.max_tokens", "texts": "input.types", "nulls": "input.skip_lines"}
"""Keys of job files that came with a change of requests: no run before the first one with the key has it."""


@dataclass(frozen=True)
class _Kind:
    """A rendering of runs before `until`, with the types of a CSV's cells then."""

    rendering: Rendering
    types: Mapping[str, pa.DataType] | None
    until: int


def _caps(kind: _Kind, journal: Journal, separately: bool, since_caps: int) -> list[int | None]:
    """Returns the values of max_tokens in identities: None is none at all, 0 the row's own.

    The job's own comes first, then the highest: what was cut at a lower one may be whole there. With
    duplicates sent separately, the last that is known counts.
    """
    without: list[int | None] = [None] if kind.rendering is Rendering.NESTED_NONE else []
    if since_caps == 1:
        return without
    caps = journal.max_tokens_of_runs()
    return [*without, 0, *(caps if separately else reversed(caps))]


def _version(table: Table, job: Job, endpoint: str, kind: _Kind, cap: int | None) -> _Version:
    builder = _builder(table, job, endpoint, kind.rendering, cap)
    separated = Occurrences(job.output.duplicates == "separate", scratch_folder(job))
    types = None if kind.types is None else sorted((name, str(type_)) for name, type_ in kind.types.items())
    variant = repr((kind.rendering.name, cap, types)).encode()
    return _Version(variant, builder, kind.types, separated, kind.until)


def _builder(
    table: Table, job: Job, endpoint: str, rendering: Rendering = Rendering.CURRENT, cap: int | None = None
) -> RequestBuilder:
    texts = frozenset[str]() if rendering is Rendering.TYPED else table.cells.texts
    return RequestBuilder(job, table.schema.names, endpoint, texts, rendering=rendering, with_cap=cap)


def _former_types(table: Table) -> list[Mapping[str, pa.DataType]]:
    types = table.cells.former_types()
    without_texts = {name: kind for name, kind in types.items() if kind != pa.string()}
    return [types, without_texts] if len(without_texts) < len(types) else [types]
