"""The part "Read": rows with their texts, cut so that the page stays small for any size of texts."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from batchrun.runs.reading import ReadableRow
from batchrun.runs.report.blocks import seconds_text, usd
from batchrun.runs.report.tally import KINDS

MOST_BYTES = 150_000
"""All texts of the part, as they stand in the page: escaped, in UTF-8."""
LEAST_OF_A_TEXT, MOST_OF_A_TEXT = 200, 4_000
MOST_OF_A_LINE = 160
MOST_OF_A_LABEL = 40
MOST_CELLS = 12
MOST_ATTEMPTS = 10

Reading = dict[str, Any]


def reading_parts(read: Mapping[str, Sequence[ReadableRow]]) -> list[Reading]:
    """Returns the kinds of rows with their rows, ready for the template."""
    every = [row for rows in read.values() for row in rows]
    most = text_bytes(sum(map(_texts_of, every)))
    same = _same(sorted(map(_line, every)))
    return [
        {"kind": kind, "title": KINDS[kind], "rows": [row_values(kind, row, most, same) for row in rows]}
        for kind, rows in read.items()
    ]


def _line(row: ReadableRow) -> str:
    return " ".join(row["prompt"][-1][1][:MOST_OF_A_TEXT].split()) if row["prompt"] else ""


def text_bytes(texts: int) -> int:
    """Returns the most bytes of one text, where the page has so many."""
    return min(MOST_OF_A_TEXT, max(LEAST_OF_A_TEXT, MOST_BYTES // max(texts, 1)))


def _texts_of(row: ReadableRow) -> int:
    return len(row["prompt"]) + 1 + min(len(row["input"]), MOST_CELLS) // 4


def _same(lines: Sequence[str]) -> int:
    """Returns how many characters at their beginning sorted lines have in common."""
    pairs = enumerate(zip(lines[0], lines[-1], strict=False)) if lines else ()
    return next((place for place, (a, b) in pairs if a != b), 0)


def row_values(kind: str, row: ReadableRow, most: int, same: int = 0) -> Reading:
    """Returns a row for the template, its texts cut to `most` bytes.

    The first `same` characters of all prompts are the same.
    """
    return {
        "id": f"{kind}-{row['row']}",
        "row": f"{row['row']:,}",
        "status": row["status"],
        "line": _line(row)[same if same < len(_line(row)) else 0 :][:MOST_OF_A_LINE],
        "facts": _facts(row),
        "input": [(name, excerpt(cell, most // 8)) for name, cell in list(row["input"].items())[:MOST_CELLS]],
        "prompt": [(role, excerpt(text, most)) for role, text in row["prompt"]],
        "answer": None if row["answer"] is None else excerpt(row["answer"], most),
        "label": _short(row["label"] if row["label"] is not None else row["answer"]),
        "expected": _short(row["expected"]),
        "differs": bool(row["score"] is not None and row["score"] < 1),
        "votes": [vote or "(invalid)" for vote in row["samples"] or []],
        "reasons": [
            excerpt(text, most // 2) for text in dict.fromkeys((row["label_error"], row["error"])) if text
        ],
        "attempts": [_attempt(made) for made in row["attempts"][:MOST_ATTEMPTS]],
        "more_attempts": max(0, len(row["attempts"]) - MOST_ATTEMPTS),
    }


def _short(text: str | None) -> str:
    text = " ".join((text or "")[:MOST_OF_A_LINE].split())
    return text if len(text) <= MOST_OF_A_LABEL else f"{text[:MOST_OF_A_LABEL]}…"


def _facts(row: ReadableRow) -> list[str]:
    facts = [] if row["error_code"] is None else [row["error_code"]]
    if row["shared"]:
        facts.append("shares an earlier row's answer")
    if row["agreement"] is not None:
        facts.append(f"agreement {row['agreement']:.2f}")
    if row["cost_usd"]:
        facts.append(usd(row["cost_usd"]))
    if row["input_tokens"]:
        facts.append(f"{row['input_tokens']:,} + {row['output_tokens'] or 0:,} tokens")
    if row["latency_ms"] is not None:
        facts.append(seconds_text(row["latency_ms"]))
    return facts


def _attempt(made: dict[str, Any]) -> list[str]:
    reason = "" if made["error_code"] is None else f"{made['error_code']}: {made['error']}"
    return [
        made["at"][:19].replace("T", " "),
        str(made["run"]),
        made["outcome"],
        f"{made['seconds']:.2f} s",
        usd(made["usd"]),
        excerpt(reason, 300),
    ]


def pair_parts(pairs: Sequence[Sequence[ReadableRow]]) -> list[Reading]:
    """Returns rows of two jobs, each with both answers."""
    most = text_bytes(sum(_texts_of(a) + 1 for a, _ in pairs))
    return [
        {
            "row": f"{a['row']:,}",
            "prompt": [(role, excerpt(text, most)) for role, text in a["prompt"][-1:]],
            "expected": excerpt(a["expected"] or "", most // 4),
            "sides": [_side(name, row, most) for name, row in (("A", a), ("B", b))],
        }
        for a, b in pairs
    ]


def _side(name: str, row: ReadableRow, most: int) -> Reading:
    return {
        "name": name,
        "answer": excerpt(row["answer"] or "", most),
        "label": row["label"] and excerpt(row["label"], most),
        "score": "–" if row["score"] is None else f"{row['score']:g}",
        "facts": _facts(row),
    }


def excerpt(text: str, most: int) -> str:
    """Returns a text's beginning of at most `most` bytes in the page, and how many characters follow."""
    if len(text) <= most and _bytes(text) <= most:
        return text
    low, high = 0, min(len(text), most)
    while low < high:  # the longest beginning that fits
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _bytes(text[:middle]) <= most else (low, middle - 1)
    return f"{text[:low]}… [{len(text) - low:,} more characters]"


def _bytes(text: str) -> int:
    return len(escape(text).encode(errors="replace"))
