"""The job file that `batchrun init` writes for a table: commented, and ready to run."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath

from batchrun.errors import JobError
from batchrun.tables.endings import without_ending
from batchrun.text import single_line

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
_EXPECTED_COLUMNS = (
    "gold",
    "expected",
    "ground_truth",
    "label",
    "target",
    "correct",
    "answer",
    "class",
    "category",
    "sentiment",
)
# A column with at most so many values, each several times on average, holds classes.
_MOST_CLASSES = 10
_ROWS_A_CLASS = 4
_LETTER = re.compile(r"[^\W\d_]")
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

_STARTER = """\
#:schema batchrun.schema.json
# For editors that check TOML (batchrun schema > batchrun.schema.json).
#
# A batchrun job for {input_name}. Paths are relative to this file.
#   batchrun plan FILE             shows the first request and the possible cost; sends nothing
#   batchrun run FILE --sandbox    tries the job out without a key; no model responds
#   batchrun run FILE              sends every row that has no response yet

[input]
path = {input}
{reading}
[prompt]
# Jinja syntax. Columns to use: {columns}
template = {template}
# system = "You label product reviews."

[request]
model = {model}
max_tokens = 256              # the longest response; the budget reserves this much for each request
temperature = 0.0

[endpoint]
# base_url = "https://api.abliteration.ai"
# api_key_env = "ABLIT_KEY"   # the environment variable that holds the key

[budget]                      # the first cap reached stops the run; it goes on when the cap allows
usd = 1.0                     # all runs of this job together
# rows = 100                  # of one run: for a first look

[output]                      # also .csv or .jsonl
path = {output}
{prefix}
# [labels]                    # which answers are valid: adds the columns label and label_error
# {choices} # or json_schema = "schema.json", or pattern = "regular expression"
# repair = 1                  # an invalid answer is sent back with the reason

# [evaluation]                # sends rows in random order and estimates how good the answers are
# {expected} # the column with the expected answers
# metric = "exact"
"""


_PREFIX_COMMENT = "# before batchrun's columns: the input has one of the same name\n"

Samples = Mapping[str, Sequence[str]]
"""The texts of a table's first rows, by column; columns of another type than text are left out."""


def starter_job(
    columns: Sequence[str],
    input_path: str,
    *,
    model: str = "abliterated-model",
    samples: Samples | None = None,
    prefix: str = "",
    skip_lines: int = 0,
    sheet: str | None = None,
) -> str:
    """Returns a job file, as TOML, for the table at `input_path` with these columns.

    The template uses the column that most looks like a text. `prefix` is what batchrun's columns need before
    their names. Raises JobError where no column's name can stand in a template.
    """
    samples = samples or {}
    reading = f"skip_lines = {skip_lines}\n" if skip_lines else ""
    reading += "" if sheet is None else f"sheet = {_toml_text(sheet)}\n"
    column = text_column(columns, samples)
    expected = expected_column([name for name in columns if name != column], samples)
    classes = _classes(samples.get(expected or "", ()))
    return _STARTER.format(
        input_name=single_line(PurePath(input_path).name),
        input=_toml_text(input_path),
        reading=reading,
        columns=single_line(", ".join(expression(name) for name in usable_columns(columns))),
        template=_toml_text(f"Summarise in one sentence:\n\n{{{{ {expression(column)} }}}}"),
        model=_toml_text(model),
        output=_toml_text(starter_output(input_path)),
        prefix=f"prefix = {_toml_text(prefix)}".ljust(30) + _PREFIX_COMMENT if prefix else "",
        expected=f"expected = {_toml_text(expected or 'gold')}".ljust(27),
        choices=f"choices = {json.dumps(classes or ['yes', 'no'], ensure_ascii=False)}".ljust(27),
    )


def starter_output(input_path: str) -> str:
    """Returns the output's name for this input, never one that the input includes.

    reviews.csv gives reviews-answers.parquet, and a glob gives answers.parquet or answers.jsonl.
    """
    name = input_path.partition("?")[0] if "://" in input_path else input_path
    stem = without_ending(PurePath(name).name)
    if not re.search(r"[*?\[]", input_path) or "://" in input_path:
        return f"{stem}-answers.parquet" if stem and "*" not in stem else "answers.parquet"
    return "answers.jsonl" if re.search(r"\.(parquet|pq)$", input_path, re.IGNORECASE) else "answers.parquet"


def text_column(columns: Sequence[str], samples: Samples | None = None) -> str:
    """Returns the column that most looks like a text.

    Columns whose texts are less than half as long as the longest ones' are left out; the others are ranked by
    name, ids last. Raises JobError where no name can stand in a template.
    """
    names = usable_columns(columns)
    if not names:
        raise JobError(
            "no column has a name that can stand in a template.\n"
            f"Rename one in the input; its columns are: {', '.join(map(repr, columns)) or 'none'}."
        )
    lengths = {name: _mean_length((samples or {}).get(name, ())) for name in names}
    long = [name for name in names if 2 * lengths[name] >= max(lengths.values())]
    return min(long, key=lambda name: (_rank(name), not _is_name(name), names.index(name)))


def expected_column(columns: Sequence[str], samples: Samples) -> str | None:
    """Returns the column that most looks like expected answers: by its name, else the first with classes."""
    ranks = {name: _place_among(_EXPECTED_COLUMNS, name) for name in columns}
    named = [name for name in columns if ranks[name] <= len(_EXPECTED_COLUMNS)]
    if named:
        return min(named, key=lambda name: ranks[name])
    return next((name for name in columns if _classes(samples.get(name, ()))), None)


def _classes(texts: Sequence[str]) -> list[str]:
    """Returns the distinct texts if they look like the names of a few classes."""
    filled = [text for text in texts if text.strip()]
    classes = sorted(set(filled))
    are_few = 2 <= len(classes) <= _MOST_CLASSES and len(filled) >= _ROWS_A_CLASS * len(classes)
    return classes if are_few and all(map(_LETTER.search, classes)) else []


def _mean_length(texts: Sequence[str]) -> float:
    """Counts characters; a text without a letter, as a barcode, counts as empty."""
    return sum(len(text) for text in texts if _LETTER.search(text)) / len(texts) if texts else 0.0


def usable_columns(columns: Sequence[str]) -> list[str]:
    """The columns that a template can name, each as `expression` has it."""
    items_too = "row" not in columns  # a column of that name takes the place of the whole row
    return [name for name in columns if _is_name(name) or (items_too and _is_item(name))]


def expression(column: str) -> str:
    """What stands for a usable column in a template: its name, or an item of the row."""
    return column if _is_name(column) else f'row["{column}"]'


def _is_item(name: str) -> bool:
    return bool(name.strip()) and name.isprintable() and not set(name) & set('"\\{}')


def _rank(name: str) -> int:
    """Ranks names that suggest text first, ids last."""
    place = _place_among(_TEXT_COLUMNS, name)
    return place + 1 if name.lower() == "id" or name.lower().endswith(("_id", " id")) else place


def _place_among(words: Sequence[str], name: str) -> int:
    """Returns the place of the word that a name is; behind all of them, names with such a word at an end."""
    plain = re.sub(r"[\W_]+", "_", name.lower()).strip("_")
    if plain in words:
        return words.index(plain)
    has_word = any(plain.endswith(f"_{word}") or plain.startswith(f"{word}_") for word in words)
    return len(words) if has_word else len(words) + 1


def _is_name(name: str) -> bool:
    return name.isidentifier() and name not in _RESERVED


def _toml_text(text: str) -> str:
    """Returns a TOML basic string: JSON's escapes are valid in TOML, but JSON doesn't escape DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
