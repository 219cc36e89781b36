"""Where a row stands in the random order of asking. It depends on the seed and the row's index alone."""

from hashlib import blake2b


def key_of(seed: int) -> bytes:
    """The key of the hash, for a seed from 0 to 2^63 - 1."""
    return seed.to_bytes(8, "big")


def place_of(row: int, key: bytes) -> int:
    """The row's place, from 0 to 2^64 - 1: rows are asked in ascending order of it."""
    return int.from_bytes(blake2b(row.to_bytes(8, "big"), digest_size=8, key=key).digest(), "big")


def group_place_of(name: str, key: bytes) -> int:
    """The place of a cluster or a stratum among the others, from 0 to 2^64 - 1."""
    text = name.encode(errors="surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8, key=key, person=b"group").digest(), "big")
