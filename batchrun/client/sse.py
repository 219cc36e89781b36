"""Reads Server-Sent Events incrementally: bytes in, events out, no I/O.

Follows "Interpreting an event stream" of the WHATWG HTML standard. Three things differ on purpose: `id` and
`retry` are ignored, since a batch never reconnects to a stream; bytes that aren't UTF-8 are kept as lone
surrogates (`surrogateescape`), since the other half of a character may come with the next event; and `rest`
returns an event that the end of the stream cuts off.
"""

import re
from dataclasses import dataclass

_LINE_END = re.compile(rb"\r\n|\r|\n")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its name ("message" where the stream gave none) and its data lines, joined by LF."""

    name: str
    data: str


class EventReader:
    """Splits a stream into events, independently of its chunks."""

    def __init__(self) -> None:
        self._unfinished_line: list[bytes] = []
        self._after_carriage_return = False
        self._at_start = True
        self._name = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> list[Event]:
        """Returns the events that `chunk` completes, in order, and never an event that is cut off."""
        if self._after_carriage_return and chunk:
            self._after_carriage_return = False
            chunk = chunk.removeprefix(b"\n")
        # A line ends at its CR at once: waiting for an LF would hold back the last event of a CR stream.
        self._after_carriage_return = chunk.endswith(b"\r") or (self._after_carriage_return and not chunk)
        *lines, rest = _LINE_END.split(chunk)
        if lines:
            lines[0] = b"".join((*self._unfinished_line, lines[0]))
            self._unfinished_line = []
        if rest:
            self._unfinished_line.append(rest)
        return [event for line in lines if (event := self._take_line(line)) is not None]

    def rest(self) -> Event | None:
        """Returns the event that the stream's end cut off or left without its blank line, or None."""
        line, self._unfinished_line = b"".join(self._unfinished_line), []
        return (self._take_line(line) if line else None) or self._dispatch()

    def _take_line(self, line: bytes) -> Event | None:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if not line:
            return self._dispatch()
        field, _, value = line.decode(errors="surrogateescape").partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._name = value
        return None

    def _dispatch(self) -> Event | None:
        event = Event(self._name or "message", "\n".join(self._data)) if self._data else None
        self._name = ""
        self._data = []
        return event
