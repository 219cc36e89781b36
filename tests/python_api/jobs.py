"""Jobs and tables for calls from Python."""

from typing import Any

import polars as pl

PROMPT = {"template": "Sentiment of this review, one word: {{ text }}"}
REQUEST = {"model": "abliterated-model", "max_tokens": 16}
OUTPUT = {"accept": ["truncated"]}
JOB: dict[str, Any] = {"prompt": PROMPT, "request": REQUEST, "budget": {"usd": 2.5}, "output": OUTPUT}

TEXTS = ["Broke at once.", "Lovely.", "Broke at once.", "Fine, I suppose."]


def reviews(texts: list[str] | None = None) -> pl.DataFrame:
    texts = TEXTS if texts is None else texts
    return pl.DataFrame({"id": range(len(texts)), "text": texts})
