"""What every request was charged. Amounts are in nano-USD (10^-9 USD), so that sums are exact."""

import hashlib
import struct
import threading
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from batchrun.sandbox.faults import KINDS
from batchrun.sandbox.prompt_cache import NO_CACHE, CacheUse

NANO_USD_PER_TOKEN = 5_000
"""5 USD per million tokens, input and output alike."""

NANO_USD_PER_TOKEN_READ = 500
NANO_USD_PER_TOKEN_WRITTEN = 6_250
NANO_USD_PER_TOKEN_WRITTEN_1H = 10_000
"""Of input tokens that the cache of prompts has to do with: 0.1, 1.25 and 2 times the price of others."""

TOKENS_PER_CREDIT = 1_000


@dataclass(frozen=True, slots=True)
class Charge:
    """What one request costs its key. Tokens of the cache are parts of the input's."""

    input_tokens: int = 0
    output_tokens: int = 0
    credits: int = 0
    nano_usd: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0


NO_CHARGE = Charge()


def charge_for(input_tokens: int, output_tokens: int, cache: CacheUse = NO_CACHE) -> Charge:
    """The price of a request: a credit for each 1,000 tokens begun, and each token by its kind."""
    tokens = input_tokens + output_tokens
    credits_begun = max(1, -(-tokens // TOKENS_PER_CREDIT))
    nano_usd = (
        (tokens - cache.read - cache.write) * NANO_USD_PER_TOKEN
        + cache.read * NANO_USD_PER_TOKEN_READ
        + cache.write_5m * NANO_USD_PER_TOKEN_WRITTEN
        + cache.write_1h * NANO_USD_PER_TOKEN_WRITTEN_1H
    )
    return Charge(input_tokens, output_tokens, credits_begun, nano_usd, cache.read, cache.write)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request that came in: `number` counts from 1, `received_at` is in Unix seconds,
    `body_digest` is the SHA-256 of the body as it came, None if it was too large to be read.
    """

    number: int
    key: str
    body_digest: bytes | None
    received_at: float

    @property
    def id(self) -> str:
        """24 characters after the prefix, as the provider's ids have; unlike those of another arrival."""
        seed = self.number.to_bytes(8, "big") + (self.body_digest or b"")
        return "msg_01" + hashlib.blake2b(seed, digest_size=11).hexdigest()


class Tally:
    """Running sums over requests."""

    __slots__ = (
        "billed_requests",
        "cache_read_tokens",
        "cache_write_tokens",
        "credits",
        "input_tokens",
        "nano_usd",
        "output_tokens",
        "requests",
    )

    def __init__(self) -> None:
        self.requests = self.billed_requests = self.input_tokens = self.output_tokens = 0
        self.credits = self.nano_usd = self.cache_read_tokens = self.cache_write_tokens = 0

    def add(self, charge: Charge) -> None:
        self.requests += 1
        self.billed_requests += charge is not NO_CHARGE
        self.input_tokens += charge.input_tokens
        self.output_tokens += charge.output_tokens
        self.cache_read_tokens += charge.cache_read_tokens
        self.cache_write_tokens += charge.cache_write_tokens
        self.credits += charge.credits
        self.nano_usd += charge.nano_usd

    def as_dict(self) -> dict[str, Any]:
        sums = {
            "requests": self.requests,
            "billed_requests": self.billed_requests,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cache_read_tokens": self.cache_read_tokens,
            "cache_write_tokens": self.cache_write_tokens,
            "credits": self.credits,
            "nano_usd": self.nano_usd,
        }
        return {**sums, "usd": self.nano_usd / 10**9}


# A request takes some 120 bytes in this form; as a dictionary it would take several times that.
_RECORD = struct.Struct("<QI?32sHIIIQIIBd")
_FAULT_CODES: dict[str | None, int] = {None: 0, **{kind: n for n, kind in enumerate(KINDS, 1)}}
_FAULT_NAMES = (None, *KINDS)


class Bill:
    """The account of all requests since the start; the list of single requests keeps the latest ones.

    Written by the server's thread and read by any.
    """

    def __init__(self, max_requests: int) -> None:
        self._lock = threading.Lock()
        self._total = Tally()
        self._tallies: dict[str, Tally] = {}
        self._key_numbers: dict[str, int] = {}
        self._records: deque[bytes] = deque(maxlen=max_requests)

    def record(self, arrival: Arrival, status: int, charge: Charge, fault: str | None) -> None:
        """Enters one request. `status` is 0 where no status line was sent."""
        digest = arrival.body_digest
        with self._lock:
            if arrival.key not in self._tallies:
                self._tallies[arrival.key] = Tally()
                self._key_numbers[arrival.key] = len(self._key_numbers)
            self._total.add(charge)
            self._tallies[arrival.key].add(charge)
            self._records.append(
                _RECORD.pack(
                    arrival.number,
                    self._key_numbers[arrival.key],
                    digest is not None,
                    digest or bytes(32),
                    status,
                    charge.input_tokens,
                    charge.output_tokens,
                    charge.credits,
                    charge.nano_usd,
                    charge.cache_read_tokens,
                    charge.cache_write_tokens,
                    _FAULT_CODES[fault],
                    arrival.received_at,
                )
            )

    def statement(self, with_requests: bool = True) -> dict[str, Any]:
        """Sums in all and by key, and the single requests in the order of their arrival."""
        with self._lock:
            keys = list(self._key_numbers)
            records = list(self._records) if with_requests else []
            sums: dict[str, Any] = {
                "total": self._total.as_dict(),
                "by_key": {key: tally.as_dict() for key, tally in self._tallies.items()},
            }
        if with_requests:
            sums["requests"] = [_unpacked(record, keys) for record in records]
        return sums


def _unpacked(record: bytes, keys: list[str]) -> dict[str, Any]:
    number, key, has_digest, digest, status, *amounts, fault, received_at = _RECORD.unpack(record)
    input_tokens, output_tokens, credits_used, nano_usd, cache_read_tokens, cache_write_tokens = amounts
    arrival = Arrival(number, keys[key], digest if has_digest else None, received_at)
    return {
        "id": arrival.id,
        "key": arrival.key,
        "body_sha256": digest.hex() if has_digest else None,
        "status": status,
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "cache_read_tokens": cache_read_tokens,
        "cache_write_tokens": cache_write_tokens,
        "credits": credits_used,
        "nano_usd": nano_usd,
        "fault": _FAULT_NAMES[fault],
        "received_at": datetime.fromtimestamp(received_at, UTC).isoformat(timespec="microseconds"),
        "billed": nano_usd > 0,
    }
