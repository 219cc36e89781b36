"""The JSON schema, the page made from it, and the job file that `batchrun init` writes."""

import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec
import pytest

from batchrun.errors import JobError
from batchrun.job.error_messages import STRUCTS
from batchrun.job.file import job_schema, load_job
from batchrun.job.scaffold import expected_column, starter_job, starter_output, text_column
from batchrun.runs.plan.plan import plan_job

DOCS = Path(__file__).parents[2] / "docs"


def test_schema_documents_every_key() -> None:
    """Each key has a description, its default is the struct's, and no other key is allowed."""
    definitions = job_schema()["$defs"]
    for struct in STRUCTS.values():
        table = definitions[struct.__name__]
        assert table["additionalProperties"] is False
        assert set(table["properties"]) == set(struct.__struct_fields__)
        for info in msgspec.structs.fields(struct):
            spec = table["properties"][info.name]
            assert len(spec["description"]) > 10
            assert (info.name in table["required"]) == info.required
            default = info.default_factory() if callable(info.default_factory) else info.default
            if not info.required and default is not None:
                assert spec["default"] == msgspec.to_builtins(default)


def test_schema_speaks_toml() -> None:
    """No null anywhere, and amounts are numbers, as they are in the file."""
    text = msgspec.json.encode(job_schema()).decode()
    assert '"null"' not in text
    assert '"decimal"' not in text
    assert ":null" not in text
    assert job_schema()["$defs"]["Budget"]["properties"]["usd"]["type"] == "number"
    assert job_schema()["required"] == ["input", "prompt", "request", "output"]


def test_page_is_up_to_date() -> None:
    """docs/job-file.md is what the schema says now."""
    page = runpy.run_path(str(DOCS / "generate_job_file.py"))["job_file_page"]()
    assert (DOCS / "job-file.md").read_text(encoding="utf-8") == page, "run python docs/generate_job_file.py"


def test_example_on_the_page_loads(tmp_path: Path) -> None:
    text = (DOCS / "job-file.md").read_text(encoding="utf-8")
    path = tmp_path / "job.toml"
    path.write_text(text.partition("```toml\n")[2].partition("```")[0])
    assert load_job(path).request.max_tokens == 16


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("reviews.csv", "reviews-answers.parquet"),
        ("data/reviews.v2.jsonl.gz", "reviews.v2-answers.parquet"),
        ("reviews-answers.parquet", "reviews-answers-answers.parquet"),
        ("https://example.com/a/reviews.parquet?sig=x.y", "reviews-answers.parquet"),
        ("s3://bucket/*.parquet", "answers.parquet"),
        ("data/*.csv", "answers.parquet"),
        ("**/*.parquet", "answers.jsonl"),
        ('od"d \\ näme.csv', 'od"d \\ näme-answers.parquet'),
        ("line\nbreak\x7f.csv", "line\nbreak\x7f-answers.parquet"),
    ],
)
def test_starter_job_loads(tmp_path: Path, source: str, output: str) -> None:
    """Whatever the input is called, the file is a right job whose output is another file."""
    path = tmp_path / "job.toml"
    path.write_text(starter_job(["id", "text"], source), encoding="utf-8")
    job = load_job(path)
    assert (job.input.path, job.output.path) == (source, output)
    assert starter_output(source) == output
    assert job.prompt.template == "Summarise in one sentence:\n\n{{ text }}"
    assert job.request.max_tokens == 256
    assert job.budget.nano_usd == 10**9


def test_commented_keys_of_the_starter_are_right(tmp_path: Path) -> None:
    """Taking the comment sign away from keys and tables gives a job that still loads."""
    text = starter_job(["text"], "a.csv")
    commented = [line for line in text.splitlines() if re.match(r"# (\w+ = |\[\w+\])", line)]
    assert len(commented) == 10
    for line in commented:
        text = text.replace(line, line.removeprefix("# "))
    assert set(tomllib.loads(text)["prompt"]) == {"template", "system"}
    path = tmp_path / "job.toml"
    path.write_text(text)
    job = load_job(path)
    assert job.budget.rows == 100
    assert job.labels is not None
    assert job.evaluation is not None


@pytest.mark.parametrize(
    ("columns", "column"),
    [
        (["id", "rating", "text"], "text"),
        (["id", "subject", "body"], "body"),
        (["id", "review_text", "lang"], "review_text"),
        (["user_id", "notes"], "notes"),
        (["id"], "id"),
        (["größe", "Review Text"], "Review Text"),
        (["2x", "notes"], "notes"),
        (["1st, in %"], "1st, in %"),
        (["row", "a text"], "row"),
        (["true", "x"], "x"),
        (["Text", "abc"], "Text"),
    ],
)
def test_text_column(columns: list[str], column: str) -> None:
    """The template asks about the column that looks like text, and never one that it can't name."""
    assert text_column(columns) == column


CATALOGUE = {
    "ean": [f"{4006381333931 + n}" for n in range(40)],
    "Product Name": [f"Pen {n}" for n in range(40)],
    "description": ["A pen that writes well, in blue and in black"] * 40,
    "status": ["active", "sold out"] * 20,
    "kind.of.shelf": ["office", "kitchen", "home", "office"] * 10,
    "in_stock": ["0", "1"] * 20,
}


def test_the_longest_texts_are_the_prompts() -> None:
    """A barcode isn't, nor a name, however much `name` suggests a text."""
    assert text_column(["ean", "Product Name", "description"], CATALOGUE) == "description"
    assert text_column(["ean", "Product Name"], CATALOGUE) == "Product Name"
    assert text_column(["title", "notes"], {"title": ["Pen"], "notes": ["It writes well."]}) == "notes"
    assert text_column(["notes", "text"], {"notes": ["a" * 30], "text": ["a" * 20]}) == "text"


@pytest.mark.parametrize(
    ("columns", "column"),
    [
        (["status", "gold"], "gold"),
        (["status", "Expected Label"], "Expected Label"),
        (["label", "gold.class", "gold"], "gold"),
        (["ean", "in_stock", "status"], "status"),
        (["ean", "description", "in_stock"], None),
    ],
)
def test_expected_answers_are_found_by_name_or_by_their_few_classes(
    columns: list[str], column: str | None
) -> None:
    assert expected_column(columns, CATALOGUE) == column


def test_a_starter_names_the_classes_and_a_prefix(tmp_path: Path) -> None:
    """All columns but the prompt's are candidates, and whatever they are called, the job loads."""
    columns = [name for name in CATALOGUE if name != "status"]
    text = starter_job(columns, "a.csv", samples=CATALOGUE, prefix="batchrun_")
    assert '# choices = ["home", "kitchen", "office"] #' in text
    for key in ("choices", "expected", "metric", "[labels]", "[evaluation]"):
        text = text.replace(f"# {key}", key)
    path = tmp_path / "job.toml"
    path.write_text(text)
    job = load_job(path)
    assert job.output.prefix == "batchrun_"
    assert job.evaluation is not None
    assert job.evaluation.expected == "kind.of.shelf"


def test_every_column_is_named_as_an_expression_that_works(tmp_path: Path) -> None:
    columns = ["id", "gold label", "true", "kind.of.shelf", "2nd", "café"]
    (tmp_path / "a.csv").write_text(",".join(columns) + "\n" + ",".join(f"cell {n}" for n in range(6)) + "\n")
    text = starter_job(columns, "a.csv")
    assert text.startswith("#:schema batchrun.schema.json\n")
    (named,) = [
        line.partition("Columns to use: ")[2] for line in text.splitlines() if "Columns to use" in line
    ]
    expressions = named.split(", ")
    assert len(expressions) == len(columns)
    path = tmp_path / "job.toml"
    path.write_text(text)
    template = " | ".join(f"{{{{ {expression} }}}}" for expression in expressions)
    job = load_job(path, [f"prompt.template={template}"])
    first = plan_job(job)["first_request"]
    assert first["messages"][0]["content"] == " | ".join(f"cell {n}" for n in range(6))


def test_no_usable_column() -> None:
    with pytest.raises(JobError, match=r"Rename one in the input; its columns are: 'a\"b', ''\."):
        starter_job(['a"b', ""], "a.csv")


def test_imports_stay_light() -> None:
    """Reading a job needs msgspec and the standard library alone."""
    code = (
        "import sys, batchrun.job.file, batchrun.job.scaffold, batchrun.job.credentials\n"
        "heavy = {'polars', 'pyarrow', 'httpx', 'pyreqwest', 'starlette', 'rich', 'minijinja', 'anyio'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")
