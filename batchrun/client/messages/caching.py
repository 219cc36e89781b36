"""Finds the marks (`cache_control`) that make the server keep parts of a prompt for later requests."""

from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any

import msgspec

from batchrun.exchange import CacheLifetime

MARK = b'"cache_control"'
"""In every body with a mark. Within texts its quotes are escaped, so most bodies need no parsing."""

_encode = msgspec.json.Encoder(decimal_format="number").encode


def cache_lifetime(*parts: tuple[Any, bytes]) -> CacheLifetime | None:
    """Returns the most expensive lifetime of the marks in a body's parts; None without a mark.

    Each part is given with its JSON. Marks may stand wherever the server looks for them: in system blocks,
    messages, tools, tool results, or at the top. An unknown lifetime counts as an hour.
    """
    lifetimes = {found for value, encoded in parts if MARK in encoded for found in _lifetimes(value)}
    return "1h" if "1h" in lifetimes else "5m" if lifetimes else None


def marked_beginning(body: Mapping[str, Any], parameters: Mapping[str, Any]) -> bytes | None:
    """Returns a digest (16 bytes) of the prompt up to its first mark, which requests can share.

    A prompt begins with the tools, then come the system prompt and the messages. Returns None where only the
    whole prompt is marked, at the top of the body.
    """
    digest = blake2b(digest_size=16)
    digest.update(_encode(body["model"]))
    for block in _blocks(body, parameters):
        digest.update(_encode(block))
        if isinstance(block, Mapping) and any(_lifetimes(block)):
            return digest.digest()
    return None


def _blocks(body: Mapping[str, Any], parameters: Mapping[str, Any]) -> Iterator[Any]:
    contents = [parameters.get("tools"), body.get("system"), *(turn["content"] for turn in body["messages"])]
    for content in contents:
        yield from content if isinstance(content, list | tuple) else [content]


def _lifetimes(value: Any) -> Iterator[CacheLifetime]:
    if isinstance(value, dict):
        mark = value.get("cache_control")
        if mark is not None:
            ttl = mark.get("ttl") if isinstance(mark, dict) else None
            yield "5m" if ttl in (None, "5m") else "1h"
        for item in value.values():
            yield from _lifetimes(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _lifetimes(item)
