"""The job file that `batchrun init` writes for a table: commented, and ready to run."""

import json
import re
from collections.abc import Sequence
from pathlib import PurePath

from batchrun.errors import JobError

_TEXT_COLUMNS = (
    "text",
    "body",
    "content",
    "review",
    "comment",
    "message",
    "question",
    "prompt",
    "description",
    "abstract",
    "title",
    "subject",
    "name",
)
_RESERVED = {
    "true",
    "false",
    "none",
    "not",
    "loop",
    "self",
    "True",
    "False",
    "None",
}  # by the template language
_ENDINGS = re.compile(r"\.(csv|tsv|jsonl|ndjson|parquet|pq|arrow|ipc|feather)?(\.(gz|zst))?$", re.IGNORECASE)

_STARTER = """\
# A batchrun job for {input_name}. Paths are relative to this file.
#   batchrun plan FILE             shows the first request and what it all may cost; sends nothing
#   batchrun run FILE --sandbox    tries the job out without a key; no model answers
#   batchrun run FILE              asks for every row that has no answer yet

[input]
path = {input}

[prompt]
# Jinja syntax. Columns to use: {columns}
template = {template}
# system = "You label product reviews."

[request]
model = {model}
max_tokens = 256              # the longest answer; the budget reserves this much for each request
temperature = 0.0

[endpoint]
# base_url = "https://api.abliteration.ai"
api_key_env = "ABLIT_KEY"     # the environment variable that holds the key

[budget]                      # the first cap reached stops the run; it goes on when the cap allows
usd = 1.0                     # all runs of this job together
# rows = 100                  # answered by one run: for a first look

[output]                      # also .csv or .jsonl
path = {output}

# [labels]                    # what a valid answer is: adds the columns label and label_error
# choices = ["yes", "no"]     # or json_schema = "schema.json", or pattern = "regular expression"
# repair = 1                  # an invalid answer goes back with the reason

# [evaluation]                # asks a random sample and says how good the answers are
# expected = "gold"           # the column with the right answers
# metric = "exact"
"""


def starter_job(columns: Sequence[str], input_path: str, *, model: str = "abliterated-model") -> str:
    """A job file, as TOML, that asks for each row of the table at `input_path` with these columns.

    The template uses the column that most looks like text. Raises JobError where no column's name can
    stand in a template.
    """
    column = text_column(columns)
    return _STARTER.format(
        input_name=_one_line(PurePath(input_path).name),
        input=_toml_text(input_path),
        columns=_one_line(", ".join(name for name in columns if _is_name(name))),
        template=_toml_text(f"Summarise in one sentence:\n\n{{{{ {column} }}}}"),
        model=_toml_text(model),
        output=_toml_text(starter_output(input_path)),
    )


def starter_output(input_path: str) -> str:
    """The name of the output for this input, never one that the input takes in.

    reviews.csv gives reviews-answers.parquet, and a glob gives answers.parquet or answers.jsonl.
    """
    name = input_path.partition("?")[0] if "://" in input_path else input_path
    stem = _ENDINGS.sub("", PurePath(name).name)
    if not re.search(r"[*?\[]", input_path) or "://" in input_path:
        return f"{stem}-answers.parquet" if stem and "*" not in stem else "answers.parquet"
    return "answers.jsonl" if re.search(r"\.(parquet|pq)$", input_path, re.IGNORECASE) else "answers.parquet"


def text_column(columns: Sequence[str]) -> str:
    """The column that most looks like text by its name, else the first that is no id.

    Raises JobError where no name can stand in a template.
    """
    names = [name for name in columns if _is_name(name)]
    if not names:
        raise JobError(
            "no column's name can stand in a template (a letter, then letters, digits and underscores).\n"
            f"Rename one in the input; its columns are: {', '.join(map(repr, columns)) or 'none'}."
        )
    return min(names, key=lambda name: (_rank(name), names.index(name)))


def _rank(name: str) -> int:
    """Exact names first, in the order above; then names that end in one, such as review_text; ids last."""
    lower = name.lower()
    if lower in _TEXT_COLUMNS:
        return _TEXT_COLUMNS.index(lower)
    count = len(_TEXT_COLUMNS)
    if any(lower.endswith(f"_{word}") or lower.startswith(f"{word}_") for word in _TEXT_COLUMNS):
        return count
    return count + 2 if lower == "id" or lower.endswith("_id") else count + 1


def _is_name(name: str) -> bool:
    return name.isidentifier() and name not in _RESERVED


def _one_line(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)


def _toml_text(text: str) -> str:
    """A TOML basic string: JSON's escapes are TOML's too, but JSON leaves DEL bare."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
