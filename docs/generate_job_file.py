"""Writes docs/job-file.md from the schema of job files: `python docs/generate_job_file.py`."""

import json
from pathlib import Path
from typing import Any

from batchrun.job.file import job_schema

PAGE = Path(__file__).with_name("job-file.md")

INTRODUCTION = """\
# The job file

<!-- Written by docs/generate_job_file.py from the schema: change that script or batchrun/job/. -->

A job file is TOML. It says what to ask, of which rows, where, under which caps, and where the answers go.
Paths in it are relative to the job file. A key that no job has is an error that names the nearest known key.
`batchrun init reviews.csv` writes a commented job file to start from, and `batchrun schema` prints the JSON
schema for editors.

```toml
[input]
path = "reviews.csv"

[prompt]
system = "You label product reviews."
template = "Sentiment of this review, one word: {{ text }}"

[request]
model = "abliterated-model"
max_tokens = 16
temperature = 0.0

[budget]
usd = 5.0

[output]
path = "labels.parquet"
```

On the command line, `--set TABLE.KEY=VALUE` puts a value on top of the file: `--set budget.usd=2.5`. The
value is read as TOML (`true`, `16`, `["hate"]`, `"text"`); what is no TOML value is taken as text.

Amounts in USD may have up to nine decimals and are kept exact.
"""

IMAGES = """\
## Images

```toml
[prompt]
image = "photo"                     # a column
template = "What is in this picture? The seller says: {{ title }}"
```

The user message is then the image and, after it, the text. A cell of the column may hold:

- a path, relative to the job file, of a PNG, JPEG, GIF or WebP file;
- an http or https URL: it is sent as it is, and the server fetches the image;
- the bytes of an image, or a `data:` URL with base64 (JSONL and CSV hold no bytes);
- a struct with the fields `bytes` or `path`, as image datasets in Parquet have it;
- a list of these: several images in their order; null or an empty text: no image.

What kind of image it is follows from its first bytes, whatever the file is called. An image may have 5 MiB.
A row whose image can't be read is `failed` without anything being sent, with the `error_code`
`unreadable_image`; `invalid_image` stands for other kinds of data, for larger images and for other URLs.
Image blocks in a column of messages are checked in the same way; they hold base64 or a URL, not a path.

For the budget an image counts as 8,192 tokens until the answer says how many it was: more than servers are known
to meter, since their formulas differ and the provider's isn't published. A cap that is smaller than what
`batchrun plan` shows as the dearest row lets nothing through.

An image is part of its request: the same image under two names is asked once, and a changed one is asked anew. So
the images are read again for each run and each export; where one is missing by then, its row says so, and the answer,
which stays in the journal, is back when the file is. Requests in flight hold their images in memory: with large
ones, lower `limits.concurrency`. `output.order = "random"` puts all requests into a temporary file first.

## A system prompt in blocks

```toml
[[prompt.system]]
type = "text"
text = "You label product reviews in {{ language }}."
cache_control = {type = "ephemeral"}   # what else a block has is passed on
```

A block whose text renders to nothing is left out of that row's request.
"""

ON_FINISH = """\
## Being told

```toml
[on_finish]
command = 'mail -s "labels: $BATCHRUN_REASON" me@example.org'
when = "trouble"
```

When a run has ended, and its output is written, `command` gets `summary.json` on its standard input, and `url` gets it as a
POST. The command has these variables beside those of batchrun itself:

| | |
| --- | --- |
| `BATCHRUN_EXIT_CODE` | what batchrun exits with |
| `BATCHRUN_REASON` | one sentence why |
| `BATCHRUN_OUTPUT` | the output's path, absolute |
| `BATCHRUN_SUMMARY` | the path of `summary.json` |

It never gets the API key: variables that hold it are taken out. A text goes through `/bin/sh -c`, so that pipes and
variables work; a list is run as it is, with no shell to misread a name. It runs in the job file's folder, and what it
prints goes to stderr, since stdout belongs to `--json`. After `timeout_seconds` it is killed with all that it started.

Where telling goes wrong, a line on stderr says so; the answers, the output and the exit code stand as they are. A run
that couldn't begin or broke off is told of as well, by `exit_code`, `reason` and `needs_person` alone. Not told of: a run
that found another one going on (75), one that a second signal ended, and a job file that can't be read. Runs with the
sandbox tell too; `sandbox` in the summary says it.

Command and URL may hold a secret. So they are left out of the journal, of the output's metadata and of error texts.
"""

METRICS = """\
## Metrics

| `evaluation.metric` | an answer scores 1 if |
| --- | --- |
| `"exact"` | it is the expected text, white space around it left aside |
| `"contains"` | the expected text occurs in it, in upper or lower case |
| `"regex"` | the expected cell, a Python regular expression, is found in it |
| `"numeric"` | its last number is the expected one, or within `evaluation.tolerance` of it; `1,234.5` is read as 1234.5 |
| `"choice"` | it is the expected label, leaving aside case, and quotes and punctuation around it |
| `"json"` | it is JSON, in a code fence or not, and equal to the expected value, in whatever order the keys are; a key that is null counts as left out |

`"f1"` gives a share between 0 and 1: the harmonic mean of precision and recall of the words, as in SQuAD (Rajpurkar
et al. 2016): lower case, without punctuation and the articles a, an, the.

`"python:module:function"` calls a function of yours, `function(answer, expected)`, which returns a number from 0 to 1.
Its module is imported from the job file's folder or from where Python finds it. If it is annotated to return `bool`, its
scores count as right or wrong. A row whose call raises or returns something else isn't scored, and the report says so.

Where `expected` holds a list of texts, an answer scores what it scores with the best of them; this doesn't go for `json`
and `python:`. An answer that is no valid label scores 0.
"""

RULES = """\
## What else is checked

- Exactly one of `prompt.template` and `prompt.messages` is given; `prompt.image` goes with `prompt.template`.
- A cap in USD, credits or tokens needs `request.max_tokens`, or a column for it: without it a request has no
  worst case, and the cap could not hold.
- A cap in USD needs prices. They are known at the provider's own address, for the sandbox, and for the preset
  `local` on this machine; anywhere else, set both `pricing.input_usd_per_million` and
  `pricing.output_usd_per_million`.
- `endpoint.base_url` has no user, query or fragment, and leaves out `/v1`. With `http://`, a key goes to
  loopback only.
- A null cell prints as nothing: `{{ text }}` alone would ask, and pay, for an empty text. `{% if text %}` tells.
- The key never stands in the job file, neither as a value nor in `endpoint.headers`.
- `request.extra` can't set what has a key of its own, such as `max_tokens`.
- The output isn't one of the input's files.
- `evaluation.cluster` and `evaluation.stratify` don't go together, nor do `evaluation.stop` and
  `evaluation.stratify`.
"""


def job_file_page() -> str:
    """The page, as Markdown."""
    schema = job_schema()
    required = set(schema["required"])
    tables = schema["$defs"]
    sections = [
        _section(name, _table(reference, tables), name in required, tables)
        for name, reference in schema["properties"].items()
    ]
    return "\n".join([INTRODUCTION, *sections, IMAGES, METRICS, ON_FINISH, RULES])


def _table(reference: dict[str, Any], tables: dict[str, Any]) -> dict[str, Any]:
    table: dict[str, Any] = tables[reference["$ref"].rpartition("/")[2]]
    return table


def _section(name: str, table: dict[str, Any], required: bool, tables: dict[str, Any]) -> str:
    keys = _keys("", table, tables)
    title = f"## `[{name}]`{'' if required else ' (may be left out)'}"
    head = "| key | value | default | meaning |\n| --- | --- | --- | --- |"
    return "\n".join([title, "", table["description"], "", head, *keys, ""])


def _keys(prefix: str, table: dict[str, Any], tables: dict[str, Any]) -> list[str]:
    """A line for each key, and for the keys of the tables in the table."""
    lines = []
    for key, spec in table["properties"].items():
        what = f"{_kind(spec)} | {_default(key, spec, table)} | {spec['description']}"
        lines.append(f"| `{prefix}{key}` | {what} |")
        if "$ref" in spec:
            lines += _keys(f"{prefix}{key}.", _table(spec, tables), tables)
    return lines


def _kind(spec: dict[str, Any]) -> str:
    if "anyOf" in spec:
        return " or ".join(map(_kind, spec["anyOf"]))
    if "enum" in spec:
        return " or ".join(f"`{json.dumps(choice)}`" for choice in spec["enum"])
    if "$ref" in spec:
        return "table"
    if spec["type"] == "array":
        item = _kind(spec["items"])
        return f"list of {item}{'s' if item == 'table' else ''}"
    words = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
    return words.get(spec["type"], "table") + _bounds(spec)


def _bounds(spec: dict[str, Any]) -> str:
    low = f"from {spec['minimum']}" if "minimum" in spec else ""
    low = f"above {spec['exclusiveMinimum']}" if "exclusiveMinimum" in spec else low
    high = f"to {spec['maximum']}" if spec.get("maximum", 10**15) < 10**15 else ""
    high = f"below {spec['exclusiveMaximum']}" if "exclusiveMaximum" in spec else high
    bounds = " ".join(filter(None, (low, high)))
    return f", {bounds}" if bounds else ""


def _default(key: str, spec: dict[str, Any], table: dict[str, Any]) -> str:
    if key in table["required"]:
        return "required"
    return f"`{json.dumps(spec['default'])}`" if "default" in spec else "none"


if __name__ == "__main__":
    PAGE.write_text(job_file_page(), encoding="utf-8")
