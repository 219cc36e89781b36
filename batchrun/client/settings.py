"""Where to send requests, and the bounds of each exchange."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class EndpointSettings:
    """Where to send requests, and the bounds of each exchange.

    `timeout` is for a whole exchange and `idle_timeout` for the silence between two pieces of a stream, both
    in seconds. `max_answer_bytes` bounds a response after decompression. `connections` are kept open between
    requests; the caller bounds the number of requests in flight.
    """

    base_url: str
    api_key: str | None = field(default=None, repr=False)
    auth: Literal["bearer", "x-api-key", "none"] = "bearer"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float = 120.0
    idle_timeout: float = 60.0
    max_answer_bytes: int = 16 * 2**20
    connections: int = 256
    free_tier: bool = False
    stream: bool = False
