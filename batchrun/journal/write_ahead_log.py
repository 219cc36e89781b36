"""Reads SQLite's write-ahead log on disk, to check that it ends where its checksums end.

SQLite takes the first frame with a wrong checksum for the end of the log. That is right for a write that was
torn by a crash. It is wrong for a flipped bit in the middle: all later commits would be lost silently. The
format: https://www.sqlite.org/fileformat2.html#the_write_ahead_log

A frame's checksum continues the checksum of the frame before. It is linear in the words of both: the
contribution of one frame's words is a product with constant weights, which needs no loop over them.
"""

import os
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import numpy as np

    Words = np.ndarray[Any, np.dtype[np.uint32]]
    Frames = np.ndarray[Any, np.dtype[np.void]]

HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24
_LITTLE_ENDIAN, _BIG_ENDIAN = 0x377F0682, 0x377F0683
_VERSION = 3007000
_USUAL_PAGE_BYTES = 4096
_BYTES_IN_A_BLOCK = 4 << 20


@dataclass(frozen=True, slots=True)
class Break:
    """Where the checksums stop: at frame `first_bad`, counted from 0. Behind it, frame `last_commit` ends a
    transaction of the same log. `salts` distinguish this log's frames from an earlier log's.
    """

    salts: bytes
    first_bad: int
    last_commit: int


@dataclass(frozen=True, slots=True)
class _Header:
    """`salts` are None where the header is damaged; the other fields then have batchrun's usual values."""

    order: str
    page_bytes: int
    salts: bytes | None
    checksum: tuple[int, int]


def log_of(path: Path) -> Path:
    """The path of the database's log, which may or may not exist."""
    return path.with_name(f"{path.name}-wal")


def find_break(log: Path) -> Break | None:
    """Returns where the log is damaged, None for an undamaged or missing log. Raises OSError.

    A torn end is not damage: no transaction ends behind it. Nor are frames behind the end from a transaction
    that was rolled back, or from an earlier log.
    """
    found = _look_through(log)
    # Beside a writing run, a frame may be read before it is written, and the next one after that. A second
    # read finds it written. Only damage stays at the same place.
    return found if found is not None and found == _look_through(log) else None


def repair(log: Path, into: Path, *, keep_damaged: bool) -> bool:
    """Writes a log that SQLite reads to its last commit, with recomputed checksums.

    A page with a wrong checksum is kept as it is, or else left out, so that its older state counts. Returns
    False where no frame can be read. Raises OSError.
    """
    with log.open("rb") as file:
        header = _read_header(file)
        salts = header.salts or _salts_of_commits(file, header)
        last = -1 if salts is None else _last_commit(file, header, salts)
        if salts is None or last < 0:
            return False
        with into.open("wb") as target:
            _write_frames(file, target, header, salts, last, keep_damaged)
    return True


def _look_through(log: Path) -> Break | None:
    with suppress(FileNotFoundError), log.open("rb") as file:
        header = _read_header(file)
        size = os.fstat(file.fileno()).st_size
        if size < HEADER_BYTES + FRAME_HEADER_BYTES + header.page_bytes:
            return None
        if header.salts is None:
            salts = _salts_of_commits(file, header)
            return None if salts is None else Break(salts, 0, _last_commit(file, header, salts))
        return _break_in(file, header, header.salts)
    return None


def _break_in(file: BinaryIO, header: _Header, salts: bytes) -> Break | None:
    first_bad = None
    last_commit = -1
    checksum = header.checksum
    for number, frames in _blocks(file, header):
        ours = _has_salts(frames, salts)
        if first_bad is None:
            good = ours & _has_right_checksum(frames, header.order, checksum)
            checksum = _last_checksum(frames)
            if not good.all():
                first_bad = number + int(good.argmin())
        if first_bad is not None:
            last_commit = max(last_commit, _last_in(ours & _commits(frames), number))
    if first_bad is None or last_commit <= first_bad:
        return None
    return Break(salts, first_bad, last_commit)


def _read_header(file: BinaryIO) -> _Header:
    data = file.read(HEADER_BYTES)
    damaged = _Header("<", _USUAL_PAGE_BYTES, None, (0, 0))
    if len(data) < HEADER_BYTES:
        return damaged
    magic, version, page_bytes, _, _, _, *checksum = struct.unpack(">8I", data)
    if magic not in (_LITTLE_ENDIAN, _BIG_ENDIAN) or version != _VERSION:
        return damaged
    order = "<" if magic == _LITTLE_ENDIAN else ">"
    if _checksum_of(data[:24], order) != tuple(checksum):
        return damaged
    return _Header(order, page_bytes, data[16:24], (checksum[0], checksum[1]))


def _checksum_of(data: bytes, order: str) -> tuple[int, int]:
    first = second = 0
    for one, two in struct.iter_unpack(f"{order}2I", data):
        first = (first + one + second) % 2**32
        second = (second + two + first) % 2**32
    return first, second


def _blocks(file: BinaryIO, header: _Header) -> Iterator[tuple[int, "Frames"]]:
    """Yields all complete frames in groups, each with the number of its first frame."""
    import numpy as np  # takes 0.1 s, and most commands find no log

    frame = np.dtype(
        [
            ("page_number", ">u4"),
            ("pages", ">u4"),  # the file's size after the commit that this frame ends; 0: it doesn't end one
            ("salts", "V8"),
            ("checksum", ">u4", (2,)),
            ("page", "u1", (header.page_bytes,)),
        ]
    )
    file.seek(HEADER_BYTES)
    number = 0
    most = max(1, _BYTES_IN_A_BLOCK // frame.itemsize)
    while count := len(data := file.read(most * frame.itemsize)) // frame.itemsize:
        yield number, np.frombuffer(data, frame, count)
        number += count


def _has_salts(frames: "Frames", salts: bytes) -> Any:
    import numpy as np

    return np.ascontiguousarray(frames["salts"]).view("u8") == np.frombuffer(salts, "u8")


def _commits(frames: "Frames") -> Any:
    return frames["pages"] != 0


def _last_in(flags: Any, number: int) -> int:
    """Returns the number of the last flagged frame, counting from `number`; -1 without one."""
    places = flags.nonzero()[0]
    return number + int(places[-1]) if len(places) else -1


def _last_checksum(frames: "Frames") -> tuple[int, int]:
    first, second = frames["checksum"][-1].tolist()
    return first, second


def _has_right_checksum(frames: "Frames", order: str, before: tuple[int, int]) -> Any:
    """Returns whether each frame's checksum continues the one stored in the frame before."""
    import numpy as np

    stored = frames["checksum"].astype(np.uint32)
    starts = np.vstack([np.array([before], np.uint32), stored[:-1]])
    words = _words(frames, order)
    weights = _weights(words.shape[1] // 2)
    return (words @ weights[:-2] + starts @ weights[-2:] == stored).all(axis=1)


def _words(frames: "Frames", order: str) -> "Words":
    """Returns the 32-bit words that each frame's checksum covers: half of its header, and its page."""
    import numpy as np

    data = frames.view("u1").reshape(len(frames), -1)
    covered = np.hstack([data[:, :8], data[:, FRAME_HEADER_BYTES:]])
    return covered.view(f"{order}u4").astype(np.uint32, copy=False)


@cache
def _weights(pairs: int) -> "Words":
    """Returns the weight of each word in `pairs` pairs, then of each half of the checksum before them.

    A pair (a, b) makes (x + y + a, x + 2 y + a + b) of the checksum (x, y), modulo 2^32.
    """
    import numpy as np

    step = np.array([[1, 1], [1, 2]], np.uint32)
    weights = [np.array([[1, 1], [0, 1]], np.uint32)]  # the last pair's weights
    power = step
    while len(weights) < pairs:
        weights.append(weights[-1] @ step)
        power = power @ step
    return np.vstack([*reversed(weights), power])


def _salts_of_commits(file: BinaryIO, header: _Header) -> bytes | None:
    """Returns the salts of most commits, for a log whose header is damaged."""
    counts = Counter[bytes]()
    for _, frames in _blocks(file, header):
        counts.update(salts.tobytes() for salts in frames["salts"][_commits(frames)])
    return counts.most_common(1)[0][0] if counts else None


def _last_commit(file: BinaryIO, header: _Header, salts: bytes) -> int:
    last = -1
    for number, frames in _blocks(file, header):
        last = max(last, _last_in(_has_salts(frames, salts) & _commits(frames), number))
    return last


def _write_frames(
    file: BinaryIO, target: BinaryIO, header: _Header, salts: bytes, last: int, keep_damaged: bool
) -> None:
    """Yields the frames up to the number `last`, in little-endian order."""
    head = struct.pack(">4I", _LITTLE_ENDIAN, _VERSION, header.page_bytes, 0) + salts
    checksum = _checksum_of(head, "<")
    target.write(head + struct.pack(">2I", *checksum))
    stored = header.checksum
    for number, frames in _blocks(file, header):
        good = _has_salts(frames, salts) & _has_right_checksum(frames, header.order, stored)
        stored = _last_checksum(frames)
        kept = good | (_is_plausible(frames, good) if keep_damaged else False)
        for frame in frames[: max(0, last + 1 - number)][kept[: max(0, last + 1 - number)]]:
            checksum = _write_frame(target, frame.tobytes(), salts, checksum)


def _is_plausible(frames: "Frames", good: Any) -> Any:
    """Returns whether a frame's page number exists in the file, as far as its commits say."""
    pages = int(frames["pages"][good].max(initial=0)) or 2**31
    return (frames["page_number"] > 0) & (frames["page_number"] <= pages)


def _write_frame(target: BinaryIO, frame: bytes, salts: bytes, before: tuple[int, int]) -> tuple[int, int]:
    """Returns the frame's new checksum, which continues the one `before`."""
    import numpy as np

    covered = frame[:8] + frame[FRAME_HEADER_BYTES:]
    weights = _weights(len(covered) // 8)
    words = np.frombuffer(covered + struct.pack("<2I", *before), "<u4").astype(np.uint32, copy=False)
    first, second = (words @ weights).tolist()
    target.write(frame[:8] + salts + struct.pack(">2I", first, second) + frame[FRAME_HEADER_BYTES:])
    return first, second
