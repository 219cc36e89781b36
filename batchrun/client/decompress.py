"""Decompresses response bodies, bounded while they grow. No I/O."""

import zlib
from collections.abc import Iterator

ACCEPTED = b"gzip, deflate"
"""The requested codings. br and zstd are read too, where pyarrow was built with them."""

GZIP = b"\x1f\x8b"
_GZIP_NAMES = frozenset((b"gzip", b"x-gzip"))
_WHOLE_NAMES = {b"br": "brotli", b"zstd": "zstd"}
_MOST_AT_A_TIME = 65_536
_MOST_LAYERS = 4


class DecompressionError(Exception):
    """The body isn't what its `content-encoding` says, or is damaged."""


class Decompressor:
    """One layer of compression: pieces in, pieces out, each of at most 64 KiB."""

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Returns the output for `piece`. Raises DecompressionError."""
        raise NotImplementedError

    def end(self) -> Iterator[bytes]:
        """Returns the output left at the body's end, also where it was cut. Raises DecompressionError."""
        yield from ()


class _Inflater(Decompressor):
    """gzip, of any number of members, and deflate with or without its header.

    A body that lacks the signature isn't compressed, whatever its header says: a proxy has unpacked it.
    """

    def __init__(self, gzip: bool) -> None:
        self._gzip = gzip
        self._start = b""
        self._inflate: zlib._Decompress | None = None
        self._plain = False

    def feed(self, piece: bytes) -> Iterator[bytes]:
        if self._plain:
            yield piece
        elif self._inflate is not None:
            yield from self._inflated(piece)
        else:
            self._start += piece
            if len(self._start) >= 2:
                yield from self._begin()

    def end(self) -> Iterator[bytes]:
        if self._inflate is None and not self._plain:
            yield self._start

    def _begin(self) -> Iterator[bytes]:
        start, self._start = self._start, b""
        if self._gzip or start.startswith(GZIP):
            self._plain = not start.startswith(GZIP)
            bits = 31
        else:
            self._plain = start.lstrip()[:1] in (b"{", b"[")
            has_header = start[0] & 15 == 8 and (start[0] * 256 + start[1]) % 31 == 0
            bits = 15 if has_header else -15
        if not self._plain:
            self._inflate = zlib.decompressobj(bits)
        yield from self.feed(start)

    def _inflated(self, piece: bytes) -> Iterator[bytes]:
        inflate = self._inflate
        while inflate is not None and piece:
            try:
                unpacked = inflate.decompress(piece, _MOST_AT_A_TIME)
            except zlib.error as error:
                raise DecompressionError(str(error)) from None
            if unpacked:
                yield unpacked
            if inflate.eof:
                piece = inflate.unused_data
                if not piece.startswith(GZIP):
                    return
                inflate = self._inflate = zlib.decompressobj(31)
            else:
                piece = inflate.unconsumed_tail
                if not piece and len(unpacked) == _MOST_AT_A_TIME:
                    yield from self._held_back(inflate)

    def _held_back(self, inflate: "zlib._Decompress") -> Iterator[bytes]:
        while unpacked := inflate.decompress(b"", _MOST_AT_A_TIME):
            yield unpacked


class _AtTheEnd(Decompressor):
    """A coding that was not requested: decompressed when the body is complete."""

    def __init__(self, codec: str) -> None:
        self._codec = codec
        self._pieces: list[bytes] = []

    def feed(self, piece: bytes) -> Iterator[bytes]:
        self._pieces.append(piece)
        yield from ()

    def end(self) -> Iterator[bytes]:
        import pyarrow as pa

        body = pa.BufferReader(b"".join(self._pieces))
        try:
            with pa.CompressedInputStream(body, self._codec) as stream:
                while unpacked := stream.read(_MOST_AT_A_TIME):
                    yield unpacked
        except (OSError, ValueError, NotImplementedError) as error:
            raise DecompressionError(str(error)) from None


class Unpacker:
    """Decompresses all layers of one body, including gzip inside gzip and gzip without a header."""

    def __init__(self, content_encoding: list[bytes]) -> None:
        """Takes the values of `content-encoding`. Unknown names mean no compression."""
        self._layers = _named_layers(content_encoding)
        self._begun = False

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Yields the output for `piece`, in pieces of at most 64 KiB. Raises DecompressionError."""
        return self._through(0, piece)

    def end(self) -> Iterator[bytes]:
        """Yields the output left at the end, also where the body was cut. Raises DecompressionError."""
        done = 0
        while done < len(self._layers):
            pieces, done = self._layers[done].end(), done + 1
            for piece in pieces:
                yield from self._through(done, piece)

    def _through(self, done: int, piece: bytes) -> Iterator[bytes]:
        if done < len(self._layers):
            for unpacked in self._layers[done].feed(piece):
                yield from self._through(done + 1, unpacked)
        elif piece and not self._begun and piece[0] == GZIP[0] and done < _MOST_LAYERS:
            self._layers.append(_Inflater(gzip=True))
            yield from self._through(done, piece)
        elif piece:
            self._begun = True
            yield piece


def _named_layers(content_encoding: list[bytes]) -> list[Decompressor]:
    """Returns the layers to remove, outermost first."""
    names = [name.strip().lower() for value in content_encoding for name in value.split(b",")]
    layers: list[Decompressor] = []
    for name in reversed(names[:_MOST_LAYERS]):
        if name in _GZIP_NAMES or name == b"deflate":
            layers.append(_Inflater(gzip=name != b"deflate"))
        elif name in _WHOLE_NAMES:
            layers.append(_AtTheEnd(_WHOLE_NAMES[name]))
    return layers
