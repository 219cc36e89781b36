"""The intents of one commit as one record, which any SQLite tool reads through the view `intents`."""

import sqlite3
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from batchrun.journal.checksums import checksum
from batchrun.journal.connection import damaged
from batchrun.journal.records import Intent

_DIGEST_BYTES = 16
_MOST_IN_A_BLOCK = 1_000
_encode = msgspec.json.Encoder().encode

BlockRecord = tuple[int, str, bytes, int | None]
"""The values of the table `intent_blocks`, in the order of its columns."""


class Block(msgspec.Struct, gc=False):
    """The open intents of one commit, by attempt. `first` is the first attempt of that commit."""

    first: int
    intents: dict[int, Intent]


def block_of(block: Block) -> BlockRecord:
    """Returns the record of a block."""
    intents = block.intents.values()
    text = _encode(
        [(i.attempt, i.run, i.number, i.started_at, i.nano_usd, i.credits, i.tokens) for i in intents]
    ).decode()
    digests = b"".join([intent.digest for intent in intents])
    return block.first, text, digests, checksum((block.first, text), digests)


def write_blocks(connection: sqlite3.Connection, intents: Iterable[Intent]) -> None:
    """Writes open intents in blocks."""
    waiting = iter(intents)
    while part := list(islice(waiting, _MOST_IN_A_BLOCK)):
        block = Block(part[0].attempt, {intent.attempt: intent for intent in part})
        connection.execute("INSERT INTO intent_blocks VALUES (?, ?, ?, ?)", block_of(block))


def open_blocks(connection: sqlite3.Connection, path: Path) -> list[Block]:
    """Returns the blocks with their intents that have no outcome. Raises JournalError for a damaged one."""
    blocks = []
    for record in connection.execute("SELECT first, intents, digests, crc32 FROM intent_blocks").fetchall():
        intents = intents_of(record)
        if intents is None:
            raise damaged(path, f"the block of intents from attempt {record[0]} doesn't match its checksum")
        ended = {
            number
            for (number,) in connection.execute(
                "SELECT attempt FROM attempts WHERE attempt BETWEEN ? AND ?",
                (intents[0].attempt, intents[-1].attempt),
            )
        }
        blocks.append(Block(record[0], {i.attempt: i for i in intents if i.attempt not in ended}))
    return blocks


def open_intents(connection: sqlite3.Connection, path: Path) -> list[Intent]:
    """Returns the intents without an outcome. Raises JournalError where a block is damaged."""
    return [intent for block in open_blocks(connection, path) for intent in block.intents.values()]


def intents_of(record: tuple[Any, ...]) -> list[Intent] | None:
    """Returns the intents of a block's record; None where it isn't as it was written."""
    first, text, digests, crc = record
    if type(digests) is not bytes or checksum((first, text), digests) != crc:
        return None
    return [
        Intent(attempt, run, digests[start : start + _DIGEST_BYTES], *rest)
        for start, (attempt, run, *rest) in zip(
            range(0, len(digests), _DIGEST_BYTES), msgspec.json.decode(text), strict=True
        )
    ]
