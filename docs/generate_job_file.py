"""Writes docs/job-file.md from the schema of job files: `python docs/generate_job_file.py`."""

import json
from pathlib import Path
from typing import Any

from batchrun.job.file import job_schema

PAGE = Path(__file__).with_name("job-file.md")

INTRODUCTION = """\
# The job file

<!-- Written by docs/generate_job_file.py from the schema: change that script or batchrun/job/__init__.py. -->

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
"""


def job_file_page() -> str:
    """The page, as Markdown."""
    schema = job_schema()
    required = set(schema["required"])
    sections = [
        _section(name, schema["$defs"][reference["$ref"].rpartition("/")[2]], name in required)
        for name, reference in schema["properties"].items()
    ]
    return "\n".join([INTRODUCTION, *sections, IMAGES, RULES])


def _section(name: str, table: dict[str, Any], required: bool) -> str:
    keys = [
        f"| `{key}` | {_kind(spec)} | {_default(key, spec, table)} | {spec['description']} |"
        for key, spec in table["properties"].items()
    ]
    title = f"## `[{name}]`{'' if required else ' (may be left out)'}"
    head = "| key | value | default | meaning |\n| --- | --- | --- | --- |"
    return "\n".join([title, "", table["description"], "", head, *keys, ""])


def _kind(spec: dict[str, Any]) -> str:
    if "anyOf" in spec:
        return " or ".join(map(_kind, spec["anyOf"]))
    if "enum" in spec:
        return " or ".join(f"`{json.dumps(choice)}`" for choice in spec["enum"])
    if spec["type"] == "array":
        item = _kind(spec["items"])
        return f"list of {item}{'s' if item == 'table' else ''}"
    words = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
    return words.get(spec["type"], "table") + _bounds(spec)


def _bounds(spec: dict[str, Any]) -> str:
    low = f"from {spec['minimum']}" if "minimum" in spec else ""
    low = f"above {spec['exclusiveMinimum']}" if "exclusiveMinimum" in spec else low
    high = f"to {spec['maximum']}" if spec.get("maximum", 10**15) < 10**15 else ""
    bounds = " ".join(filter(None, (low, high)))
    return f", {bounds}" if bounds else ""


def _default(key: str, spec: dict[str, Any], table: dict[str, Any]) -> str:
    if key in table["required"]:
        return "required"
    return f"`{json.dumps(spec['default'])}`" if "default" in spec else "none"


if __name__ == "__main__":
    PAGE.write_text(job_file_page(), encoding="utf-8")
