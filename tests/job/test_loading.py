"""A right job file becomes exactly the job that it describes."""

import tomllib
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.errors import JobError
from batchrun.job.budget import Budget, nano_usd
from batchrun.job.file import load_job, make_job, with_file
from batchrun.job.prices import Prices, prices
from batchrun.job.sources import load_given
from batchrun.job.spec import Job, fingerprint, input_path
from tests.job.conftest import MINIMAL

FULL = """
[input]
path = "reviews.csv"

[prompt]
template = "Sentiment of this review, one word: {{ text }}"
system = "You label product reviews."

[request]
model = "abliterated-model"
max_tokens = 16
temperature = 0.5
flagged_categories = ["hate"]
stream = true
free_tier = false
extra = { top_p = 0.25, nested = { list = [1, "two", true] } }
[request.columns]
temperature = "temp"

[endpoint]
base_url = "https://api.abliteration.ai"
api_key_env = "ABLIT_KEY"
auth = "x-api-key"
headers = { anthropic-version = "2023-06-01" }
timeout_seconds = 120
idle_timeout_seconds = 30
max_answer_bytes = 1048576

[pricing]
input_usd_per_million = 4.5
output_usd_per_million = 5.000000001
credits_per_million_tokens = 1000

[limits]
requests_per_minute = 600
tokens_per_minute = 2000000
concurrency = 64

[retry]
max_attempts = 3
max_wait_seconds = 60
outage_seconds = 0.5
in_doubt = "leave"

[budget]
usd = 5.0
usd_per_run = 2
usd_per_day = 0.1
credits = 1000
keep_credits = 50
tokens = 10000000
rows = 10000
seconds = 3600

[output]
path = "out/labels.parquet"
duplicates = "separate"
order = "random"
seed = 7
prefix = "llm_"
"""


@pytest.fixture
def full(tmp_path: Path) -> Job:
    path = tmp_path / "job.toml"
    path.write_text(FULL)
    return load_job(path)


def test_every_key_arrives(full: Job) -> None:
    """Each table of the file reads back from the job, value by value."""
    written = tomllib.loads(FULL, parse_float=Decimal)
    for table, keys in written.items():
        for key, value in keys.items():
            loaded = getattr(getattr(full, table), key)
            if (table, key) == ("request", "extra"):
                assert loaded == {"top_p": 0.25, "nested": {"list": [1, "two", True]}}
            elif isinstance(loaded, tuple):
                assert list(loaded) == value
            else:
                assert loaded == value


def test_body_fields_hold_floats_and_amounts_decimals(full: Job) -> None:
    """What goes into a request body is JSON's; money stays exact."""
    assert type(full.request.extra["top_p"]) is float
    assert type(full.request.temperature) is float
    assert full.budget.usd_per_day == Decimal("0.1")


def test_defaults_are_the_documented_ones(minimal: Path) -> None:
    """A minimal job: no cap, no limit, the provider's address, shared duplicates."""
    job = load_job(minimal)
    assert job.budget == Budget()
    assert (job.endpoint.base_url, job.endpoint.auth) == ("https://api.abliteration.ai", "bearer")
    assert (job.endpoint.timeout_seconds, job.endpoint.idle_timeout_seconds) == (120, 60)
    assert job.endpoint.max_answer_bytes == 16 * 1024 * 1024
    assert (job.limits.requests_per_minute, job.limits.tokens_per_minute, job.limits.concurrency) == (
        None,
        None,
        256,
    )
    assert (job.retry.max_attempts, job.retry.max_wait_seconds) == (6, 120)
    assert (job.retry.outage_seconds, job.retry.in_doubt) == (900, "ask")
    assert (job.output.duplicates, job.output.order, job.output.seed, job.output.prefix) == (
        "share",
        None,
        0,
        "",
    )
    assert (job.request.max_tokens, job.request.temperature, job.request.stream) == (None, None, False)


def test_amounts_are_whole_nano_usd(full: Job) -> None:
    """USD and prices become integers without passing a float."""
    assert full.budget.nano_usd == 5_000_000_000
    limits = {cap.key: full.budget.limit(cap) for cap in full.budget.given() if cap.unit == "nano_usd"}
    assert limits == {"usd": 5_000_000_000, "usd_per_run": 2_000_000_000, "usd_per_day": 100_000_000}
    assert prices(full) == Prices(4_500_000_000, 5_000_000_001)


@given(st.integers(0, 10**18))
def test_nano_usd_is_exact(nano: int) -> None:
    """Every amount with nine decimals comes back as the integer that it was made of."""
    assert nano_usd(Decimal(f"{nano // 10**9}.{nano % 10**9:09}")) == nano


@pytest.mark.parametrize(
    "usd", ["1e-10", "0.00000000010", "1.0000000001", "1e-999999", "1000000000.1", "-1e-9", "inf"]
)
def test_nano_usd_refuses_what_it_cannot_hold(usd: str) -> None:
    """Nothing is rounded away, and sums stay within 64 bits."""
    with pytest.raises(ValueError, match="expected"):
        nano_usd(Decimal(usd))


def test_many_digits_are_not_rounded_away() -> None:
    """A value with more digits than a decimal context keeps is still seen to have too many decimals."""
    with pytest.raises(ValueError, match="9 decimals"):
        nano_usd(Decimal("0.1" + "0" * 60 + "1"))


@pytest.mark.parametrize(
    ("override", "table", "key", "value"),
    [
        ("budget.usd=2.5", "budget", "usd", Decimal("2.5")),
        ("request.max_tokens = 32", "request", "max_tokens", 32),
        ("request.stream=true", "request", "stream", True),
        ("request.model=claude-x", "request", "model", "claude-x"),
        ('request.model="quoted"', "request", "model", "quoted"),
        (
            'request.flagged_categories=["hate", "sexual"]',
            "request",
            "flagged_categories",
            ("hate", "sexual"),
        ),
        ("request.columns.model=m", "request", "columns", {"model": "m"}),
        ("request.extra.top_p=0.5", "request", "extra", {"top_p": 0.5}),
        ("endpoint.headers.x-team=a=b", "endpoint", "headers", {"x-team": "a=b"}),
        ("prompt.template=a\nseed = 3", "prompt", "template", "a\nseed = 3"),
        ("prompt.template=3\nseed = 3", "prompt", "template", "3\nseed = 3"),
    ],
)
def test_override(minimal: Path, override: str, table: str, key: str, value: object) -> None:
    """An override is a TOML value where it can be read as one, else text."""
    job = load_job(minimal, ["request.max_tokens=16", override])
    assert getattr(getattr(job, table), key) == value


def test_later_override_wins(minimal: Path) -> None:
    job = load_job(minimal, ["request.model=a", "request.model=b"])
    assert job.request.model == "b"


def test_job_from_plain_tables_equals_the_loaded_one(minimal: Path) -> None:
    """The command line's way to a job leads to the same value as the file's."""
    tables = {
        "input": {"path": "reviews.csv"},
        "prompt": {"template": "{{ text }}"},
        "request": {"model": "abliterated-model"},
        "output": {"path": "labels.parquet"},
    }
    assert with_file(make_job(tables, minimal.parent), minimal) == load_job(minimal)


def test_amount_given_as_a_float_is_the_number_it_prints_as(tmp_path: Path) -> None:
    """0.1 from a caller is a tenth of a dollar, not its binary neighbour."""
    tables: dict[str, dict[str, object]] = {
        "input": {"path": "a.csv"},
        "prompt": {"template": "x"},
        "request": {"model": "m", "max_tokens": 1},
        "output": {"path": "o.csv"},
        "budget": {"usd": 0.1},
    }
    before = {name: dict(table) for name, table in tables.items()}
    assert make_job(tables, tmp_path).budget.nano_usd == 100_000_000
    assert tables == before


def test_byte_order_mark_is_passed_over(minimal: Path) -> None:
    """Editors on Windows put one before the text."""
    minimal.write_bytes(b"\xef\xbb\xbf" + minimal.read_bytes())
    assert load_job(minimal).request.model == "abliterated-model"


def test_relative_job_path_has_an_absolute_base(minimal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job keeps its folder even if the process moves on to another one."""
    monkeypatch.chdir(minimal.parent)
    assert load_job(Path("job.toml")).base == minimal.parent


@pytest.mark.parametrize(
    "override", ["prompt.template=\udcff", "input.path=\udcff.csv", "request.extra.a=\udcff"]
)
def test_bytes_that_are_no_text_are_refused(minimal: Path, override: str) -> None:
    """A terminal's latin-1 bytes would else fail in the middle of a run."""
    with pytest.raises(JobError, match="not UTF-8"):
        load_job(minimal, [override])


def test_a_template_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_text("Read {{ text }}\n\n")
    (tmp_path / "system.txt").write_text("\ufeffBe brief.\r\n")
    tables = {
        "input": {"path": "in.csv"},
        "prompt": {"template_file": "prompt.txt", "system_file": "system.txt"},
        "request": {"model": "m", "max_tokens": 5},
        "output": {"path": "out.parquet"},
    }
    job = make_job(tables, tmp_path, sandbox=True)
    assert (job.prompt.template, job.prompt.system) == ("Read {{ text }}\n", "Be brief.")
    plain = {**tables, "prompt": {"template": "Read {{ text }}\n", "system": "Be brief."}}
    assert fingerprint(job) == fingerprint(make_job(plain, tmp_path, sandbox=True))
    for prompt, problem in (
        ({"template_file": "none.txt"}, "none.txt can't be read: No such file"),
        ({"template": "x", "template_file": "prompt.txt"}, "not both"),
    ):
        with pytest.raises(JobError, match=problem):
            make_job({**tables, "prompt": prompt}, tmp_path, sandbox=True)


@pytest.mark.parametrize(
    "override", ["budget.usd=null", "budget.usd = null ", "budget=null", "budget.credits=null"]
)
def test_null_removes_a_key_or_a_table(minimal: Path, override: str) -> None:
    minimal.write_text(minimal.read_text() + "max_tokens = 16\n[budget]\nusd = 5\n")
    job = load_job(minimal, [override])
    assert job.budget.usd == (5 if "credits" in override else None)


@pytest.mark.parametrize("override", ["budget.usd=", "budget="])
def test_an_empty_value_never_removes_a_cap(minimal: Path, override: str) -> None:
    """It may come from a variable of the shell that isn't set."""
    with pytest.raises(JobError, match="budget"):
        load_job(minimal, [override])


def test_the_last_override_of_a_key_wins(minimal: Path) -> None:
    assert load_job(minimal, ["budget.rows=null", "budget.rows=3"]).budget.rows == 3
    assert load_job(minimal, ["budget.rows=3", "budget.rows=null"]).budget.rows is None


def test_paths_are_shown_without_dots_unless_a_link_gives_them_a_meaning(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "linked").symlink_to(tmp_path / "elsewhere" / "deep")
    text = MINIMAL.replace("reviews.csv", "../data/reviews.csv")
    for folder, shown in [
        ("jobs", tmp_path / "data/reviews.csv"),
        ("linked", tmp_path / "linked/../data/reviews.csv"),
    ]:
        (tmp_path / folder / "job.toml").write_text(text)
        assert input_path(load_job(tmp_path / folder / "job.toml")) == str(shown)


def test_values_of_numpy_and_of_columns_are_those_that_they_stand_for() -> None:
    """As `choices = frame["gold"].unique()` and `max_tokens = lengths.max()` give them."""
    job = load_given(
        {
            "input": {"path": "a.csv"},
            "prompt": {"template": "{{ text }}"},
            "request": {"model": "m", "max_tokens": np.int64(7), "extra": {"top_p": [np.float32(0.5)]}},
            "labels": {"choices": pl.Series(["yes", "no"])},
            "output": {"path": "o.csv"},
        },
        {"request.temperature": np.float64(0.5), "request.stream": np.True_, "budget.usd": np.int64(2)},
        sandbox=True,
    )
    assert job.labels is not None
    assert (job.request.max_tokens, job.request.temperature, job.request.stream) == (7, 0.5, True)
    assert (job.request.extra, job.labels.choices) == ({"top_p": [0.5]}, ("yes", "no"))
    assert job.budget.usd == 2
    with pytest.raises(JobError, match=r"\[request.extra\] x: a value of type object can't be sent as JSON"):
        load_given(
            {"input": {"path": "a"}, "prompt": {"template": "x"}, "output": {"path": "o.csv"}},
            {"request.model": "m", "request.extra": {"x": object()}},
        )
