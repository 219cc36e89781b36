"""A row's place in the random sending order. It depends only on the seed and the row's index."""

from hashlib import blake2b


def key_of(seed: int) -> bytes:
    """Returns the key of the hash, for a seed from 0 to 2^63 - 1."""
    return seed.to_bytes(8, "big")


def sort_key(row: int, key: bytes) -> int:
    """Returns the row's place, from 0 to 2^64 - 1: rows are sent in ascending order of it."""
    return int.from_bytes(blake2b(row.to_bytes(8, "big"), digest_size=8, key=key).digest(), "big")


def group_place_of(name: str, key: bytes) -> int:
    """Returns the place of a cluster or a stratum among the others, from 0 to 2^64 - 1."""
    text = name.encode(errors="surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8, key=key, person=b"group").digest(), "big")
