"""Parses HTTP/1.1 responses on one connection: bytes in, heads and pieces of bodies out. No I/O."""

import re
from typing import TYPE_CHECKING

import httptools

if TYPE_CHECKING:
    from batchrun.client.wire import Headers

# Bytes of a response outside its body: head, chunk sizes, trailers, interim responses.
_MOST_OVERHEAD = 262_144
_OVERHEAD_A_BYTE = 8  # a chunk of one byte takes six
_LINE_ENDS = b"\r\n"
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_HEADER_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\0\r\n]*)")
_INTERIM = re.compile(rb"HTTP/1\.\d 1\d\d")
_FRAMING = frozenset((b"content-length", b"transfer-encoding"))


class ResponseParser:
    """Parses one response at a time; `reset` makes it ready for the next.

    `status` and `headers` are valid once `has_head` is true; interim responses (1xx) don't set it. `fault`
    says, in words, why nothing more can be parsed. `has_more` is true where bytes follow that don't belong
    to a requested response.
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.on_body = self._pieces.append
        self._parser = httptools.HttpResponseParser(self)
        self.reset()

    def reset(self) -> None:
        """Begins the next response."""
        self.status = 0
        self.headers: Headers = []
        self.has_head = self.is_complete = self.has_more = False
        self.until_close = False
        """Whether the body ends with the connection."""
        self.fault = ""
        self.tail = b""
        """Bytes behind the stated end of the body that are not HTTP."""
        self.start = b""
        """The response's first bytes, until its head is complete."""
        self._pieces.clear()
        self._body_pieces = 0
        self._overhead_left = _MOST_OVERHEAD
        self._is_repairing = False  # a faulty head is parsed once it is complete

    def feed(self, data: bytes) -> None:
        """Parses `data` as far as possible."""
        had_head = self.has_head
        if not had_head:
            self.start += data
        if not self._is_repairing:
            self._parse(data)
        if self.fault and self.status == 0 and self.start.lstrip(_LINE_ENDS).startswith(b"HTTP/1."):
            self._is_repairing, self.fault = True, ""
        if self._is_repairing and (repaired := _repaired(self.start)) is not None:
            self._parse_repaired(repaired)
        if self.fault and self.is_complete:
            self.has_more, self.tail = True, self._after_body(data, had_head)
        self._overhead_left -= len(data)
        if self._overhead_left < 0 and not self.is_complete:
            self._bound_overhead()

    def pieces(self) -> list[bytes]:
        """Returns the pieces of the body since the last call."""
        pieces = self._pieces[: self._body_pieces] if self.is_complete else self._pieces[:]
        self._pieces.clear()
        self._body_pieces = 0
        for piece in pieces:
            self._overhead_left += len(piece) * (_OVERHEAD_A_BYTE + 1)
        return pieces

    def keeps_connection(self) -> bool:
        """Whether the connection can be used again, after a complete response."""
        return not self.has_more and self._keep_alive

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.fault = f"the response is not HTTP/1.1: {error}"

    def _parse_repaired(self, repaired: bytes) -> None:
        """Parses without the faulty lines of the head: a paid response must not be lost because of them."""
        self._is_repairing, self.headers = False, []
        self.start = repaired
        self._pieces.clear()
        self._parser = httptools.HttpResponseParser(self)
        self._parse(repaired)

    def _after_body(self, data: bytes, had_head: bool) -> bytes:
        """Handles the bytes in `data` behind a body whose stated length was too short."""
        if any(name.lower() == b"transfer-encoding" for name, _ in self.headers):
            return b""
        body = sum(map(len, self._pieces[: self._body_pieces]))
        head = None if had_head else _HEAD_END.search(data)
        return data[(head.end() if head else 0) + body :]

    def _bound_overhead(self) -> None:
        body = sum(map(len, self._pieces))
        if self._overhead_left + body * (_OVERHEAD_A_BYTE + 1) < 0:
            self.fault = "the response has more framing than content"

    def on_message_begin(self) -> None:
        """Called when a response begins: an unrequested one, where one is complete already."""
        self.has_more = self.is_complete

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called with a header; trailers are ignored, since they come too late."""
        if not self.has_head:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Called when a head is complete, of the response or of an interim one."""
        if self.has_more:
            return
        self.status = self._parser.get_status_code()
        self.has_head = self.status >= 200
        if self.has_head:
            self.start = b""
            self.until_close = _FRAMING.isdisjoint([name.lower() for name, _ in self.headers])

    def on_message_complete(self) -> None:
        """Called at the end of a body; an interim response has none, and the response follows it."""
        if self.has_more:
            return
        if not self.has_head:
            self.status, self.headers = 0, []
            return
        self.is_complete = True
        self._body_pieces = len(self._pieces)
        self._keep_alive = self._parser.should_keep_alive()


def _repaired(start: bytes) -> bytes | None:
    """Returns `start` with only the readable lines of its head, and at most one way to find the body's end.

    Returns None where `start` has no complete head yet, apart from interim responses.
    """
    start = start.lstrip(_LINE_ENDS)  # blank lines before the head, which the parser leaves out, too
    head_end = _HEAD_END.search(start)
    while head_end is not None and _INTERIM.match(start):
        start = start[head_end.end() :].lstrip(_LINE_ENDS)
        head_end = _HEAD_END.search(start)
    if head_end is None:
        return None
    status_line, *lines = start[: head_end.start()].splitlines()
    matches = [match for line in lines if (match := _HEADER_LINE.fullmatch(line))]
    headers = [(match[1].lower(), match[2].strip()) for match in matches]
    chunked = any(name == b"transfer-encoding" and value.lower() == b"chunked" for name, value in headers)
    kept = [(name, value) for name, value in headers if name not in _FRAMING]
    lengths = {
        part.strip() for name, value in headers if name == b"content-length" for part in value.split(b",")
    }
    if chunked:
        kept.append((b"transfer-encoding", b"chunked"))
    elif len(lengths) == 1 and (length := lengths.pop()).isdigit() and len(length) < 16:
        kept.append((b"content-length", length))
    kept_lines = [b"%b: %b" % header for header in kept]
    return b"\r\n".join([status_line, *kept_lines, b"", start[head_end.end() :]])
