"""Whether a journal has changed since it was last looked at, in what an output is made of."""

import json
from hashlib import sha256

from batchrun.journal.attempt_rows import FAILURES
from batchrun.journal.connection import translated_errors
from batchrun.journal.journal import Journal


def content_hash(journal: Journal) -> str:
    """Returns a hash, as hex, that changes with every attempt that is added or rebooked.

    Attempts with a response never change, so their number and the newest one stand for all of them. The
    others are read: they may be rebooked, or no longer be final.
    """
    queries = (
        "SELECT * FROM totals ORDER BY run, day, outcome, error_code",
        "SELECT attempt, control, response_crc32 FROM attempts ORDER BY attempt DESC LIMIT 1",
        f"SELECT attempt, control, error_code, error FROM attempts WHERE {FAILURES} ORDER BY attempt",
        "SELECT first, crc32 FROM intent_blocks ORDER BY first",
    )
    digest = sha256(json.dumps(journal.max_tokens_of_runs()).encode())
    with translated_errors(journal.path):
        for query in queries:
            for record in journal.connection.execute(query):
                digest.update(json.dumps(record).encode())
            digest.update(b"\n")
    return digest.hexdigest()
