"""Every mistake in a job file is told with its place, what was found and what to write."""

from pathlib import Path

import msgspec
import pytest

from batchrun.errors import JobError
from batchrun.job.error_messages import _FORMS, STRUCTS
from batchrun.job.file import load_job, make_job
from tests.job.conftest import MINIMAL, Refusal


@pytest.mark.parametrize(
    ("added", "text"),
    [
        ("max_tokns = 3", "[request] max_tokns: unknown key; did you mean request.max_tokens?"),
        ("concurrency = 3", "[request] concurrency: unknown key; did you mean limits.concurrency?"),
        ("path = 'x'", "[request] path: unknown key; did you mean input.path or output.path?"),
        ("[limits]\nrpm = 60", "[limits] rpm: unknown key; did you mean limits.requests_per_minute?"),
        ("[retry]\nbase_ulr = 'x'", "[retry] base_ulr: unknown key; did you mean endpoint.base_url?"),
        (
            "top_p = 0.5",
            "[request] top_p: unknown key; other fields of the request body belong in [request.extra]",
        ),
        ("[output2]\npath = 'x'", "output2: unknown table; did you mean [output]?"),
        (
            "[endpoint]\napi_key = 's3cret'",
            "[endpoint] api_key: unknown key; did you mean endpoint.api_key_env?",
        ),
        ("prompt = 'x'", "[request] prompt: unknown key; did you mean prompt.template?"),
        (
            "[retry]\nretries = 3",
            (
                "[retry] retries: unknown key; keys of [retry] are max_attempts, useless_rows, max_tokens, "
                "max_wait_seconds, outage_seconds, in_doubt"
            ),
        ),
        (
            "[budget]\neur = 3",
            (
                "[budget] eur: unknown key; keys of [budget] are usd, usd_per_run, usd_per_day, credits, "
                "keep_credits, tokens, rows, seconds, pool"
            ),
        ),
    ],
)
def test_unknown_key_names_the_nearest(refusal: Refusal, added: str, text: str) -> None:
    """The suggestion crosses tables, and no value is repeated."""
    assert refusal(added) == text


def test_key_at_top_level_names_its_table(minimal: Path) -> None:
    """A key above the first table header is sent to the table where it belongs."""
    minimal.write_text("max_tokens = 16\n" + MINIMAL)
    with pytest.raises(
        JobError, match=r"max_tokens: unknown key; did you mean request\.max_tokens or retry\.max_tokens\?"
    ):
        load_job(minimal)


def test_unknown_table_without_a_likeness_lists_the_tables(refusal: Refusal) -> None:
    assert refusal("[zzzz]") == (
        "zzzz: unknown table; tables are "
        "input, prompt, request, endpoint, pricing, limits, retry, budget, output, labels, evaluation, "
        "on_finish, telemetry, workers"
    )


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ('request.max_tokens="five"', '[request] max_tokens: expected a whole number, got "five"'),
        ("request.max_tokens=1.5", "[request] max_tokens: expected a whole number, got 1.5"),
        ("request.max_tokens=true", "[request] max_tokens: expected a whole number, got true"),
        ("request.max_tokens=0", "[request] max_tokens: expected a whole number >= 1, got 0"),
        ("request.temperature=2.5", "[request] temperature: expected a number <= 2, got 2.5"),
        ("request.temperature=-0.1", "[request] temperature: expected a number >= 0, got -0.1"),
        ("request.temperature=nan", "[request] temperature: expected a number >= 0, got NaN"),
        ("request.stream=1", "[request] stream: expected true or false, got 1"),
        ("request.model=7", "[request] model: expected text, got 7"),
        ('request.model=""', "[request] model: must not be empty"),
        ("request.model=", "[request] model: must not be empty"),
        ("request.extra=[1]", "[request] extra: expected a table, got a list"),
        ("request.columns.max_tokens=7", "[request] columns: each value in it: expected text"),
        ("request.flagged_categories=hate", '[request] flagged_categories: expected a list, got "hate"'),
        (
            'request.flagged_categories=["hate", "spam"]',
            (
                '[request] flagged_categories[1]: expected "harassment" or "hate" or "illicit" or "sexual", '
                'got "spam"'
            ),
        ),
        ("retry.in_doubt=guess", '[retry] in_doubt: expected "ask" or "leave", got "guess"'),
        ("retry.in_doubt=3", '[retry] in_doubt: expected "ask" or "leave", got 3'),
        ("budget.usd=five", '[budget] usd: expected a number, got "five"'),
        ("budget.usd='5'", '[budget] usd: expected a number, got "5"'),
        ("budget.usd=true", "[budget] usd: expected a number, got true"),
        ("budget.usd=-1", "[budget] usd: expected an amount from 0 to 1000000000 USD, got -1"),
        ("budget.usd=nan", "[budget] usd: expected an amount from 0 to 1000000000 USD, got NaN"),
        ("budget.usd=1e400", "[budget] usd: expected an amount from 0 to 1000000000 USD, got 1E+400"),
        ("budget.usd=0.1234567891", "[budget] usd: expected at most 9 decimals, got 0.1234567891"),
        ("budget.rows=-1", "[budget] rows: expected a whole number >= 0, got -1"),
        ("budget=5", "budget: expected a table, [budget], with keys such as usd, got 5"),
        ("labels.pattern=", "[labels] pattern: must not be empty"),
        ("output.report=x", '[output] report: expected a name that ends in .html, got "x"'),
        ("telemetry.prometheus=x", '[telemetry] prometheus: expected a name that ends in .prom, got "x"'),
        (
            "telemetry.otlp=http://me:secret@host",
            "[telemetry] otlp: expected an http or https URL without a user, a query and a fragment",
        ),
        ("endpoint.timeout_seconds=0", "[endpoint] timeout_seconds: expected a number > 0, got 0"),
    ],
)
def test_wrong_value_says_place_and_expectation(refusal: Refusal, override: str, text: str) -> None:
    """Types, bounds and choices are told in the words of the job file."""
    assert refusal("", override) == text


@pytest.mark.parametrize("key", ["input.path", "request.model", "output.path"])
def test_required_key_is_named(tmp_path: Path, key: str) -> None:
    """A missing key is named, whether or not its table is there."""
    table, _, name = key.partition(".")
    tables: dict[str, dict[str, object]] = {
        "input": {"path": "a.csv"},
        "prompt": {"template": "x"},
        "request": {"model": "m"},
        "output": {"path": "o.csv"},
    }
    for present in (True, False):
        tables[table] = {}
        if not present:
            del tables[table]
        with pytest.raises(JobError) as caught:
            make_job(tables, tmp_path)
        assert str(caught.value) == f"[{table}] {name}: missing; every job needs {key}"


def test_syntax_error_has_its_line(tmp_path: Path) -> None:
    """TOML's own complaint with its line is passed on, after the file's name."""
    path = tmp_path / "job.toml"
    path.write_text("[input]\npath = = 3\n")
    with pytest.raises(JobError, match=r"job\.toml: not valid TOML: .*line 2"):
        load_job(path)


@pytest.mark.parametrize("line", [r'pattern = "\d+"', r'path = "C:\Users\me.csv"', r'path = "C:\u"'])
def test_backslash_between_double_quotes_is_explained(tmp_path: Path, line: str) -> None:
    """As people paste regular expressions and paths of Windows."""
    path = tmp_path / "job.toml"
    path.write_text(line)
    with pytest.raises(
        JobError, match=r"line 1.*Between double quotes a backslash is written \\\\; between single"
    ):
        load_job(path)


@pytest.mark.parametrize("number", ["1" * 5000, "1e" + "9" * 30])
def test_absurd_number_is_a_job_error(refusal: Refusal, number: str) -> None:
    """Numbers that Python's own parsers refuse end in an error of the job."""
    assert refusal(f"max_tokens = {number}") == "a number in it is too long, or its lists are nested too deep"


def test_missing_job_file_names_a_like_one(minimal: Path) -> None:
    """A mistyped file name is answered with the file that is there."""
    with pytest.raises(JobError, match=r"jop\.toml: there is no such job file; did you mean .*job\.toml\?"):
        load_job(minimal.with_name("jop.toml"))


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"the folder .*nowhere doesn't exist"):
        load_job(tmp_path / "nowhere" / "job.toml")


def test_folder_instead_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="can't read the job file: Is a directory"):
        load_job(tmp_path)


def test_job_file_that_is_not_utf8(minimal: Path) -> None:
    minimal.write_bytes(MINIMAL.encode() + "# Grüße".encode("latin-1"))
    with pytest.raises(JobError, match=r"not UTF-8 at byte \d+"):
        load_job(minimal)


@pytest.mark.parametrize("override", ["budget.usd", "=3", "budget.=3", ".usd=3"])
def test_override_without_key_or_value(refusal: Refusal, override: str) -> None:
    assert refusal("", override) == "expected --set TABLE.KEY=VALUE, such as --set budget.usd=2.5"


def test_override_below_a_value(refusal: Refusal) -> None:
    """A value can't be used as if it were a table."""
    assert refusal("", "request.model.name=3") == "request.model.name: model is not a table"


def test_header_values_are_never_shown(refusal: Refusal) -> None:
    """A header may hold a secret: neither a wrong type nor a wrong place prints it."""
    for override in (
        "endpoint.headers=s3cret",
        'endpoint.headers.a="s3cret\\n"',
        "endpoint.api_key_env=s3-cret",
    ):
        assert "cret" not in refusal("", override)


WITH_LINES = """[input]
path = "in.csv"

[prompt]  # what is said
template = '''
model = 1
[budget]
'''

[request]
model = "m"
max_tokens = 16
columns.temperature = "temp"
"flagged_categories" = ["hate"]

[output]
path = "out.csv"

[evaluation]
expected = "gold"
metric = "exact"
stop = {half_width = 0.1}
[budget]
usd = 1.0
[profiles.small.budget]
usd = 2.0
"""


@pytest.mark.parametrize(
    ("line", "instead", "about"),
    [
        (10, "[requests]", "requests: unknown table"),
        (11, "model = 7", "[request] model: expected text"),
        (12, "max_tokens = 0", "[request] max_tokens:"),
        (13, "columns.temp = 'temp'", "[request.columns] temp: unknown parameter"),
        (14, '"flagged_categories" = ["spam"]', "[request] flagged_categories[0]:"),
        (16, "[budgets]", "budgets: unknown table"),
        (22, "stop = {half = 0.1}", "[evaluation] stop.half: unknown key"),
        (24, "usd = 'a lot'", "[budget] usd: expected a number"),
        (26, "uds = 2.0", "[profiles.small] [budget] uds: unknown key"),
        (26, "usd = -1", "[budget] usd: expected an amount"),
        (20, "# gone", "[evaluation] expected: missing"),
    ],
)
def test_a_wrong_value_is_told_with_its_line(tmp_path: Path, line: int, instead: str, about: str) -> None:
    path = tmp_path / "job.toml"
    lines = WITH_LINES.splitlines()
    lines[line - 1] = instead
    path.write_text("\n".join(lines))
    with pytest.raises(JobError) as caught:
        load_job(path, profile="small" if line > 24 else None)
    missing_in = 19 if "missing" in about else line
    assert str(caught.value).startswith(f"{path}:{missing_in}: {about}")


def test_what_an_option_sets_has_no_line_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text(WITH_LINES)
    with pytest.raises(JobError, match=r"job\.toml with the options given: \[budget\] usd: expected"):
        load_job(path, ["budget.usd=much"])
    with pytest.raises(JobError, match=r"got \"\"; budget\.usd=null removes it"):
        load_job(path, ["budget.usd="])


def test_each_pattern_of_a_key_has_words() -> None:
    """A message without them would show a regular expression; here it would be a KeyError."""
    patterned = {
        f"{table}.{key}"
        for table, struct in STRUCTS.items()
        for key, schema in msgspec.json.schema(struct)["$defs"][struct.__name__]["properties"].items()
        if any("pattern" in form for form in (schema, *schema.get("anyOf", ())))
    }
    assert patterned == set(_FORMS)
