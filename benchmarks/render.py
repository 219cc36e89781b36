"""The yardstick of a plan: `python -m benchmarks.render CSV` reads a table with pyarrow and renders its rows.

Nothing else is done: no types are looked for, no tokens bounded, no digests taken.
"""

import sys

import minijinja
from pyarrow import csv

from benchmarks.jobs import TEMPLATE


def render_all(path: str) -> int:
    """Returns the number of characters of all prompts."""
    environment = minijinja.Environment(templates={"prompt": TEMPLATE})
    characters = 0
    for batch in csv.open_csv(path):
        for text in batch.column("text").to_pylist():
            characters += len(environment.render_template("prompt", text=text))
    return characters


if __name__ == "__main__":
    print(render_all(sys.argv[1]))
