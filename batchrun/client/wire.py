"""The interface between the endpoint and whatever moves its bytes. No I/O."""

from dataclasses import dataclass
from typing import Protocol

Headers = list[tuple[bytes, bytes]]
"""Names and values as they came."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """The bounds of each exchange, in seconds.

    `whole` counts from the call, connecting included; `idle` is the longest silence between two pieces of a
    body, None where no stream is requested. `error_page` bounds the reading of an error response's body.
    """

    whole: float
    idle: float | None = None
    error_page: float = 5.0

    @property
    def connect(self) -> float:
        """Shorter than the whole, so that a time-out while connecting is recognized as such."""
        return min(self.whole / 2, 30.0)

    def deadline(self, started: float, begun: float | None, last_piece: float | None, status: int) -> float:
        """Returns when an exchange that began at `started` is ended; `begun` is when its response began."""
        end = started + self.whole
        if begun is not None and not 200 <= status < 300:
            return min(end, begun + self.error_page)
        # The idle time-out begins with the first piece: until then, a long prompt has the whole time-out.
        return end if self.idle is None or last_piece is None else min(end, last_piece + self.idle)


@dataclass(frozen=True, slots=True)
class Interruption:
    """Why a response did not come to its end.

    `code` is "timeout", "idle_timeout" or "connection_lost" where bytes of the request may have left this
    machine. Otherwise `sent` is False, which is proved and never guessed. `hopeless`: no later attempt can
    succeed. `unrequested`: the response doesn't belong to a request.
    """

    code: str
    text: str = ""
    sent: bool = True
    hopeless: bool = False
    unrequested: bool = False


@dataclass(slots=True)
class ConnectionMemory:
    """What a connection's responses are compared with: `last` holds its last response's id and the hash of
    the request that this response belongs to."""

    last: tuple[object, int] | None = None


class Receiver(Protocol):
    """Takes one response as it arrives. Calls return at once, and never raise for a server's behaviour."""

    def begin(self, status: int, headers: Headers, memory: ConnectionMemory | None) -> None:
        """Takes the head. `memory` belongs to the connection, None where the connection isn't known."""

    def feed(self, piece: bytes) -> bool:
        """Takes a piece of the body, as sent. Returns whether more of it is needed."""

    def may_be_whole(self) -> bool:
        """Returns whether the body so far looks like a complete message: cheap, and wrong at times."""

    def is_whole(self) -> bool:
        """Returns whether the body so far is a complete message."""

    def end(self, interruption: Interruption | None) -> bool:
        """Takes the end. Returns whether the connection can be trusted further.

        Called once, and perhaps again with the reason, where finding that out took a while.
        """


TLS_SERVER = "the server speaks TLS: endpoint.base_url must begin with https://"
QUIET_SECONDS = 1.0
"""The wait after a body is a complete message, though its length or its last event says that more comes."""


class Wire(Protocol):
    """Moves one request and its response."""

    async def exchange(self, body: bytes, receiver: Receiver) -> None:
        """Sends `body` once; returns after `receiver.end` was called. Raises nothing but cancellation."""
