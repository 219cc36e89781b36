"""A request: its body, its identity and its token bounds."""

from hashlib import blake2b

import msgspec

from batchrun.exchange import CacheLifetime

DIGEST_BYTES = 16


class Request(msgspec.Struct, frozen=True, gc=False):
    """A row's request: `body` is JSON, `digest` (16 bytes) its identity.

    `input_bound` is an upper bound of its input tokens; `output_bound` is its `max_tokens`, or None without
    one. `follows` is the digest of the row's first request, where this one is a repair or a further vote.
    `cached` is the most expensive lifetime with which the body marks parts of the prompt for the server's
    cache; `beginning` is a digest of the prompt before its first mark. `essence` is the body by which repairs
    are identified, where more of an answer was left out of the body that is sent; None: the body itself.
    """

    body: bytes
    digest: bytes
    input_bound: int
    output_bound: int | None
    follows: bytes | None = None
    cached: CacheLifetime | None = None
    beginning: bytes | None = None
    essence: bytes | None = None

    @property
    def row(self) -> bytes:
        """The digest of its row's first request."""
        return self.digest if self.follows is None else self.follows


def nth_occurrence(request: Request, occurrence: int) -> Request:
    """Returns the same request under an identity of its own, for duplicate rows that are each sent."""
    if occurrence == 1:
        return request
    return msgspec.structs.replace(
        request, digest=derived_digest(request.digest, occurrence.to_bytes(8, "big"))
    )


def derived_digest(digest: bytes, *what: bytes) -> bytes:
    """Returns the identity of a request derived from another one."""
    return blake2b(digest + b"".join(what), digest_size=DIGEST_BYTES).digest()
