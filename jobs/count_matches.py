"""Says how many answers match the gold labels: python jobs/count_matches.py output/local.parquet"""

import sys

import polars as pl


def matches(rows: pl.DataFrame) -> str:
    """One sentence. An answer matches if it is the label in `gold`, whatever its case and punctuation."""
    answered = rows.filter(pl.col("status") == "ok")
    if answered.is_empty():
        return "No row has an answer yet."
    labels = answered["output"].str.to_lowercase().str.strip_chars(" .!*\n")
    hits = (labels == answered["gold"]).sum()
    commonest, count = answered["gold"].value_counts(sort=True).row(0)
    return (
        f"{hits} of {answered.height} answers match the gold labels; "
        f'"{commonest}" for every row would match {count}.'
    )


if __name__ == "__main__":
    print(matches(pl.read_parquet(sys.argv[1])))  # noqa: T201
