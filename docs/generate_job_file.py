"""Writes docs/job-file.md from the schema of job files: `python docs/generate_job_file.py`."""

import json
from pathlib import Path
from typing import Any

from batchrun.job.file import job_schema
from batchrun.job.profiles import PROFILES

PAGE = Path(__file__).with_name("job-file.md")

INTRODUCTION = """\
# The job file

<!-- Written by docs/generate_job_file.py from the schema: change that script or batchrun/job/. -->

A job file is TOML. It names the rows, the prompt, the endpoint, the caps and the output.
Paths in it are relative to the job file. An unknown key is an error that names the nearest known key.
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

On the command line, `--set TABLE.KEY=VALUE` overrides the file: `--set budget.usd=2.5`. The
value is read as TOML (`true`, `16`, `["hate"]`, `"text"`); anything that is not a TOML value is text. `null`
removes the key or the table from the job: `--set budget.usd=null`, `--set labels=null`.

Amounts in USD may have up to nine decimals and are kept exact.

## Profiles and variables

One file can hold a job's variants: real, staging, a first look. `--profile NAME`, or `BATCHRUN_PROFILE=NAME`, puts the keys of
`[profiles.NAME.*]` in place of the job's own; the other keys stay. A key that is a table itself, such as `endpoint.headers`, is
replaced as a whole.

```toml
[budget]
usd = 20.0

[output]
path = "labels.parquet"

[profiles.staging.endpoint]
base_url = "https://staging.example.com"
api_key_env = "STAGING_KEY"

[profiles.staging.budget]
usd = 0.5

[profiles.staging.output]
path = "labels-staging.parquet"
```

Give a profile with another address an output of its own: the responses of another server are other responses.

A variable of the environment sets a key, its table and its name in capitals, two underscores between them:
`BATCHRUN_BUDGET__USD=5 batchrun run reviews.toml`. Its value is read as by `--set`; an empty variable counts as none. Options win over
variables, variables over the profile, and the profile over the job. From Python, `batchrun.load_job(path, profile="staging")`
returns such a job; variables count there only if you give them: `load_job(path, environ=os.environ)`.
"""

INPUTS = """\
## Inputs

| `input.path` | what is read |
| --- | --- |
| `"reviews.zip"` | the archive's only file, of any of these kinds |
| `"reviews.xlsx"`, also `.xlsm`, `.xls`, `.ods` | the first sheet, or `input.sheet`; `pip install 'batchrun-llm[excel]'` |
| `"https://example.org/reviews.csv.gz"` | a download; Parquet is read in place |
| `"s3://bucket/*.parquet"`, `gs://`, `abfs://` | objects, in place; `input.endpoint_url` for MinIO or R2; keys as in the provider's own tools |
| `"hf://datasets/OWNER/NAME/*.parquet"` | files of Hugging Face's hub; `pip install 'batchrun-llm[huggingface]'` |
| `"data/**/*.parquet"` with `hive = true` | `data/year=2024/part.parquet` has the text column `year` as well |
| `"file.sqlite"`, `".sqlite3"`, `".db"`, `"sqlite:///file"` with `query` | the query's rows |
| `"file.duckdb"`, `"duckdb:///file"` with `query` | the query's rows; `pip install 'batchrun-llm[duckdb]'` |
| `"postgresql://host/database"` with `query` | the query's rows, by ADBC; `pip install 'batchrun-llm[postgresql]'` |

```toml
[input]
path = "shop.duckdb"
query = "SELECT id, text FROM reviews WHERE stars < 3 ORDER BY id"
```

An archive's file, a sheet, a download, a file of the hub and a query's rows go to a temporary file in `output.scratch` once in
each command, which then reads that copy. Memory doesn't grow with them, but for a workbook: its sheets are in memory while they
are copied.

A sheet's first row, after `input.skip_lines` rows, has the columns' names. Its cells are texts as those of a CSV file: a number
as its shortest digits, a date as `2024-02-29`, a formula as its last value. Empty columns at the right and empty rows at the end
are left out, and the plan says so.

SQLite and DuckDB files are opened for reading only. Rows are known by their requests and not by their places, so a query may
return them in another order in each run, and no answered row is sent again. The output has the order of its own
run of the query: `ORDER BY` makes it the same each time. SQLite's blobs are texts, in base64 where they aren't UTF-8.
Leave a password out of the URL: PostgreSQL's client reads `PGPASSWORD` and `~/.pgpass`.
"""

IMAGES = """\
## Images

```toml
[prompt]
image = "photo"                     # a column
template = "What is in this picture? The seller says: {{ title }}"
```

The user message is then the image followed by the text. A cell of the column may hold:

- a path, relative to the job file, of a PNG, JPEG, GIF or WebP file;
- an http or https URL: it is sent as it is, and the server fetches the image;
- the bytes of an image, or a `data:` URL with base64 (JSONL and CSV hold no bytes);
- a struct with the fields `bytes` or `path`, as image datasets in Parquet have it;
- a list of these: several images in their order; null or an empty text: no image.

The first bytes decide the kind of image, whatever the file's name is. An image may have 5 MiB.
A row whose image can't be read is `failed` with the `error_code` `unreadable_image`, and nothing is sent for it;
`invalid_image` stands for other kinds of data, for larger images and for other URLs.
Image blocks in a column of messages are checked in the same way; they hold base64 or a URL, not a path.

For the budget an image counts as 8,192 tokens until the response states the number: more than any known server
counts, since their formulas differ and the provider's isn't published. A cap below the most expensive row that
`batchrun plan` shows lets nothing through.

An image is part of its request: the same image under two names is sent once, and a changed one is sent again. So
each run and each export reads the images again; if one is missing by then, its row says so. The response stays in the
journal, and is in the output again once the file is back. Requests in flight hold their images in memory: with large
ones, lower `limits.concurrency`. `output.order = "random"` puts all requests into a temporary file first.

## A system prompt in blocks

```toml
[[prompt.system]]
type = "text"
text = "You label product reviews in {{ language }}."
cache_control = {type = "ephemeral"}   # other fields of a block are sent as they are
```

A block whose text renders to nothing is left out of that row's request.
"""

CACHING = """\
## Prompt caching

A server with a prompt cache bills input tokens by kind. Where a request marks parts of its
prompt with `cache_control` (blocks of the system prompt, blocks in a column of messages, tools or the top of the body in
`request.extra`), they are written to the cache, at a higher price, and later requests read them from there, at a lower one:

```toml
[[prompt.system]]
type = "text"
text = "..."                                        # long, and the same for all rows
cache_control = {type = "ephemeral", ttl = "1h"}    # without ttl: 5 minutes

[pricing]
input_usd_per_million = 3.0
output_usd_per_million = 15.0
cache_write_usd_per_million = 3.75
cache_write_1h_usd_per_million = 6.0
cache_read_usd_per_million = 0.3
```

Cache prices that are left out are bounded. Writes cost 1.25 and 2 times the price of input, which are Anthropic's
multiples and the highest of any known server; reads cost a tenth if the server is known to charge that, and else as much as
input. A lifetime other than `5m` counts as an hour.

- A request with marks is reserved as if all of its input were written to the cache, at the most expensive lifetime that it names.
- A response that names no cost is booked by kind: `cache_read_input_tokens`, `cache_creation_input_tokens`, and
  `cache_creation.ephemeral_5m_input_tokens` and `ephemeral_1h_input_tokens`. A write without a stated lifetime costs the most that the
  request's marks allow.
- A request without marks is reserved, and booked, at the price of input. A server that caches by itself, or a proxy that adds
  marks, may charge more for a write: give its `cache_write` prices, and requests without marks are reserved at these too.
- Of requests that share the beginning of their prompts up to the first mark, the first is sent ahead of the others: they wait until its
  response begins, so that one request pays for the write. If it fails, the next one goes ahead.
"""

ON_FINISH = """\
## Being told

```toml
[on_finish]
command = 'mail -s "labels: $BATCHRUN_REASON" me@example.org'
when = "trouble"
```

When a run has ended and its output is written, `command` gets `summary.json` on its standard input, and `url` gets it as a
POST. It has the same keys however the run ended, and three more: `job` is the output's name without its ending, `host` the machine's name, and
`text` says it all in one line, as Slack's and Mattermost's webhooks take it. The command has these variables besides those of batchrun itself:

| | |
| --- | --- |
| `BATCHRUN_EXIT_CODE` | batchrun's exit code |
| `BATCHRUN_REASON` | the reason, one sentence |
| `BATCHRUN_OUTPUT` | the output's path, absolute |
| `BATCHRUN_SUMMARY` | the path of `summary.json` |

It never gets the API key: variables that hold it are removed. A text goes through `/bin/sh -c`, so that pipes and
variables work; a list is run as it is, without a shell that could misread a name. It runs in the job file's folder, and its
output goes to stderr, since stdout belongs to `--json`. After `timeout_seconds` it is killed with all processes that it started.

If the command or the URL fails, a line on stderr says so; the responses, the output and the exit code stay as they are. A run
that couldn't begin or broke off is reported as well; then `exit_code`, `reason`, `needs_attention`, `job`, `host` and `text` are known, and all other
keys are null. Not reported: a run
that found another one going on (75), one that a second signal ended, and a job file that can't be read. Runs with the
sandbox are reported too; `sandbox` in the summary marks them.

With `exit_zero_unless_person = true`, `batchrun run` exits with 0 where the next run continues by itself, such as at `usd_per_day`: then
cron's and systemd's own alarms mean that a person is needed. `exit_code` in the summary stays what it is.

Command and URL may hold a secret, so they appear neither in the journal nor in the output's metadata or error messages.
"""

METRICS = """\
## Metrics

| `evaluation.metric` | an answer scores 1 if |
| --- | --- |
| `"exact"` | it is the expected text, apart from surrounding white space |
| `"contains"` | the expected text occurs in it; case is ignored |
| `"regex"` | the expected cell, a Python regular expression, is found in it |
| `"numeric"` | its last number is the expected one, or within `evaluation.tolerance` of it; `1,234.5` is read as 1234.5 |
| `"choice"` | it is the expected label, apart from case and surrounding quotes and punctuation |
| `"json"` | it is JSON, in a code fence or not, and equal to the expected value, in any order of keys; a key that is null counts as left out |

`"f1"` gives a share between 0 and 1: the harmonic mean of precision and recall of the words, as in SQuAD (Rajpurkar
et al. 2016): lower case, without punctuation and the articles a, an, the.

`"python:module:function"` calls your own function, `function(answer, expected)`, which returns a number from 0 to 1.
Its module is imported from the job file's folder or from where Python finds it. If it is annotated to return `bool`, its
scores count as right or wrong. A row whose call raises or returns something else isn't scored, and the report says so.

Where `expected` holds a list of texts, the best of their scores counts; this doesn't apply to `json`
and `python:`. An answer that is not a valid label scores 0.
"""

RULES = """\
## Other checks

- Exactly one of `prompt.template`, `prompt.template_file` and `prompt.messages` is given; `prompt.image` goes with `prompt.template`.
- A cap in USD, credits or tokens needs `request.max_tokens`, or a column for it: without it a request has no
  worst case, and the cap could not hold.
- A cap in USD needs prices. They are known at the provider's own address, for the sandbox, and for the preset
  `local` on this machine; anywhere else, set both `pricing.input_usd_per_million` and
  `pricing.output_usd_per_million`.
- `endpoint.base_url` has no user, query or fragment, and leaves out `/v1`. With `http://`, a key goes to
  loopback only.
- A null cell prints as nothing. A prompt that renders to nothing is not sent: its row fails with `empty_prompt`. Use
  `{% if text %}` where other words stand beside the cell.
- The API key must not be in the job file, neither as a value nor in `endpoint.headers`.
- `request.extra` can't set parameters that have a key of their own, such as `max_tokens`.
- The output must not be a file that the job reads, or that the pattern of the input would match.
- `evaluation.cluster` and `evaluation.stratify` exclude each other, and so do `evaluation.stop` and
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
        if name != PROFILES
    ]
    return "\n".join([INTRODUCTION, *sections, INPUTS, IMAGES, CACHING, METRICS, ON_FINISH, RULES])


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
