"""The digests of the input's requests, kept beside the journal: a resumed run need not render all prompts.

The file is a cache: without it a run takes longer and does the same. It holds one entry for each chunk of
rows, under a key made of all that determines the chunk's requests: the job, the versions of what renders
it, and the values of the columns that it uses. Whatever changes there is rendered again.
"""

import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from batchrun.client.request import DIGEST_BYTES
from batchrun.job.spec import Job
from batchrun.rows.packages import version_of
from batchrun.tables.atomic import Replacement
from batchrun.version import __version__

if TYPE_CHECKING:
    import pyarrow as pa

FILE_NAME = "digests.cache"
_MAGIC = b"batchrun digests 1\n"
_KEY_BYTES = 16
_CHECKSUM_BYTES = 8
_HEADER = struct.Struct(f"<{_KEY_BYTES}sI")


@dataclass(frozen=True)
class DigestCache:
    """The file at `path`, for requests that are made of `made_of`. A pass rewrites it only if `kept`."""

    path: Path
    made_of: bytes
    kept: bool = False

    @contextmanager
    def opened(self) -> Iterator["OpenDigestCache"]:
        """Opens the cache for a pass, which ends with the block. An unreadable file is an empty cache."""
        with ExitStack() as files:
            cache = OpenDigestCache(self, files)
            whole = False
            try:
                yield cache
                whole = True
            finally:
                cache.finish(whole)


def made_of(job: Job, endpoint: str, texts: frozenset[str]) -> bytes:
    """Returns all that determines a row's request besides its cells. `texts` are the columns of text."""
    parts = (
        job.prompt,
        job.request,
        job.budget.needs_worst_case,
        endpoint,
        sorted(texts),
        __version__,
        version_of("minijinja"),
    )
    return msgspec.json.encode(parts, order="sorted")


class OpenDigestCache:
    """One pass: looks chunks up in the file, and writes a new one from the first chunk on that it lacks."""

    def __init__(self, cache: DigestCache, files: ExitStack) -> None:
        self._cache = cache
        self._files = files
        self._purpose = blake2b(cache.made_of, digest_size=_KEY_BYTES)
        self._old = _read(files, cache.path)
        self._offsets = {} if self._old is None else dict(_entries(self._old))
        self._found: list[bytes] = []
        self._new: Replacement | None = None
        self._written = 0
        self._keeping = cache.kept

    def key(self, cells: "pa.RecordBatch", variant: bytes = b"") -> bytes:
        """Returns the key of a chunk whose rows' requests are made of `cells`, in a `variant` of an earlier
        version."""
        import pyarrow as pa  # only here, since `status` needs the file's name alone

        key = self._purpose.copy()
        key.update(blake2b(variant, digest_size=_KEY_BYTES).digest())
        key.update(cells.num_rows.to_bytes(4))
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, cells.schema) as stream:  # with the dictionaries of categories
            stream.write_batch(cells)
        key.update(sink.getvalue())
        return key.digest()

    def get(self, key: bytes) -> list[bytes] | None:
        """Returns a chunk's digests; None where the file lacks them, or has them damaged."""
        digests = self._find(key)
        if digests is not None:
            self._found.append(key)
            if self._new is not None:
                self._write(key, digests)
        elif self._keeping and self._new is None:
            self._begin()
        return digests

    def put(self, key: bytes, digests: Sequence[bytes]) -> None:
        """Adds the digests of a chunk that had to be rendered."""
        if self._new is not None:
            self._write(key, digests)

    def finish(self, whole: bool) -> None:
        """Replaces the file if some chunks had to be rendered. After a pass that ended early, only if the
        new file has more of them than the old one."""
        if self._new is not None and (whole or self._written > len(self._offsets)):
            with suppress(OSError):
                self._new.commit()

    def _begin(self) -> None:
        try:
            self._new = self._files.enter_context(Replacement(self._cache.path, mode=0o600))
            self._new.file.write(_MAGIC)
        except OSError:
            self._give_up()
        for key in self._found:
            digests = self._find(key)
            if digests is not None:  # else the file can't be read any more; an empty entry would be believed
                self.put(key, digests)

    def _write(self, key: bytes, digests: Sequence[bytes]) -> None:
        if self._new is not None:
            try:
                self._new.file.write(_entry(key, digests))
                self._written += 1
            except OSError:
                self._give_up()

    def _give_up(self) -> None:
        """Keeps nothing of this pass, as on a full disk: the run goes on without it, and needs the room."""
        if self._new is not None:
            self._new.__exit__(None, None, None)
        self._new, self._keeping = None, False

    def _find(self, key: bytes) -> list[bytes] | None:
        offset = self._offsets.get(key)
        if self._old is None or offset is None:
            return None
        with suppress(OSError):
            self._old.seek(offset)
            _, count = _HEADER.unpack(self._old.read(_HEADER.size))
            joined = self._old.read(count * DIGEST_BYTES)
            whole = len(joined) == count * DIGEST_BYTES
            if whole and _sealed(key, count, joined)[-_CHECKSUM_BYTES:] == self._old.read(_CHECKSUM_BYTES):
                return list(struct.unpack(f"{DIGEST_BYTES}s" * count, joined))
        return None


def _read(files: ExitStack, path: Path) -> BinaryIO | None:
    try:
        file = files.enter_context(path.open("rb"))
        return file if file.read(len(_MAGIC)) == _MAGIC else None
    except OSError:
        return None


def _entries(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Yields the keys of the entries and where each begins, up to the first that is incomplete."""
    end = file.seek(0, 2)
    offset = len(_MAGIC)
    while offset + _HEADER.size <= end:
        file.seek(offset)
        key, count = _HEADER.unpack(file.read(_HEADER.size))
        start, offset = offset, offset + _HEADER.size + count * DIGEST_BYTES + _CHECKSUM_BYTES
        if offset <= end:
            yield key, start


def _entry(key: bytes, digests: Sequence[bytes]) -> bytes:
    return _sealed(key, len(digests), b"".join(digests))


def _sealed(key: bytes, count: int, digests: bytes) -> bytes:
    entry = _HEADER.pack(key, count) + digests
    return entry + blake2b(entry, digest_size=_CHECKSUM_BYTES).digest()
