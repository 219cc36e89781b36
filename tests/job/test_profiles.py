"""Profiles of a job file, and variables of the environment, in place of the job's own keys."""

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

import batchrun
from batchrun.errors import JobError
from batchrun.job.file import job_schema, load_job, read_tables
from batchrun.job.spec import Job
from tests.job.conftest import MINIMAL

PROFILES = """
max_tokens = 16
[budget]
usd = 20
rows = 7
[endpoint]
headers = {x-team = "a", x-stage = "real"}
[profiles.staging.endpoint]
base_url = "https://staging.example.com"
headers = {x-stage = "staging"}
[profiles.staging.budget]
usd = 0.5
[profiles.staging.pricing]
input_usd_per_million = 1.0
output_usd_per_million = 1.0
[profiles.small.budget]
rows = 3
"""


@pytest.fixture
def path(minimal: Path) -> Path:
    minimal.write_text(MINIMAL + PROFILES)
    return minimal


def load(path: Path, *overrides: str, profile: str | None = None, **environ: str) -> Job:
    return load_job(path, overrides, profile=profile, environ=environ)


def refused(path: Path, profile: str | None = None, **environ: str) -> str:
    with pytest.raises(JobError) as caught:
        load(path, profile=profile, **environ)
    text = str(caught.value)
    assert text.startswith(str(path))
    return re.sub(r"^:\d+", "", text.removeprefix(str(path)))


def test_without_a_name_profiles_change_nothing(path: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain.toml"
    plain.write_text(MINIMAL + PROFILES.partition("[profiles")[0])
    job, same = load(path), load(plain)
    assert (job.budget, job.endpoint, job.pricing) == (same.budget, same.endpoint, same.pricing)


def test_a_profile_s_keys_take_the_place_of_the_job_s(path: Path) -> None:
    job = load(path, profile="staging")
    assert job.endpoint.base_url == "https://staging.example.com"
    assert job.endpoint.headers == {"x-stage": "staging"}
    assert (job.budget.usd, job.budget.rows) == (Decimal("0.5"), 7)
    assert load(path, profile="small").budget.rows == 3


def test_options_win_over_variables_these_over_the_profile_and_that_over_the_job(path: Path) -> None:
    variable = {"BATCHRUN_BUDGET__USD": "2"}
    assert load(path, "budget.usd=3", profile="staging", **variable).budget.usd == 3
    assert load(path, profile="staging", **variable).budget.usd == 2
    assert load(path, **variable).budget.usd == 2
    assert load(path, "budget.usd=null", profile="staging", **variable).budget.usd is None


def test_variables_are_read_as_options_are(path: Path) -> None:
    job = load(
        path,
        BATCHRUN_REQUEST__FLAGGED_CATEGORIES='["hate"]',
        BATCHRUN_REQUEST__MODEL="a-model",
        BATCHRUN_REQUEST__EXTRA__TOP_P="0.5",
        BATCHRUN_ON_FINISH__COMMAND="touch done",
    )
    assert job.request.flagged_categories == ("hate",)
    assert (job.request.model, job.request.extra) == ("a-model", {"top_p": 0.5})
    assert job.on_finish is not None


def test_an_empty_variable_and_others_of_the_prefix_set_nothing(path: Path) -> None:
    job = load(path, BATCHRUN_BUDGET__USD="", BATCHRUN_BUDGET__ROWS=" ", BATCHRUN_FORK="0", BUDGET__USD="1")
    assert (job.budget.usd, job.budget.rows) == (Decimal(20), 7)


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        (
            {"BATCHRUN_BUDGET__UDS": "1"},
            (
                ": the environment variable BATCHRUN_BUDGET__UDS names no key of a job; "
                "did you mean BATCHRUN_BUDGET__USD?"
            ),
        ),
        (
            {"BATCHRUN_BUDGET__USD": "much"},
            ' with BATCHRUN_BUDGET__USD: [budget] usd: expected a number, got "much"',
        ),
    ],
)
def test_a_wrong_variable_is_named(path: Path, environ: dict[str, str], text: str) -> None:
    assert refused(path, **environ) == text


@pytest.mark.parametrize(
    ("added", "profile", "text"),
    [
        ("", "stagin", ': there is no profile "stagin"; did you mean staging?'),
        ("", "zz", ': there is no profile "zz"; profiles are staging, small'),
        (
            "[profiles.other.budget]\nuds = 1",
            None,
            ": [profiles.other] [budget] uds: unknown key; did you mean budget.usd?",
        ),
        (
            "[profiles]\nother = 1",
            None,
            ": [profiles.other]: expected tables such as [profiles.staging.endpoint], got 1",
        ),
        ("[profiles.staging.budget]\nusd = -1", "staging", ": [budget] usd: expected an amount from 0 to"),
    ],
)
def test_a_wrong_profile_is_told(minimal: Path, added: str, profile: str | None, text: str) -> None:
    of_file = PROFILES.partition("[profiles")[0] if "usd = -1" in added else PROFILES
    if added.startswith("[profiles]"):
        of_file = PROFILES.replace("[profiles.staging.endpoint]", f"{added}\n[profiles.staging.endpoint]", 1)
        added = ""
    minimal.write_text(MINIMAL + of_file + added)
    assert refused(minimal, profile).startswith(text)


def test_a_job_without_profiles_says_how_one_is_written(minimal: Path) -> None:
    text = refused(minimal, "staging")
    assert text == (
        ': there is no profile "staging"; the job has none. '
        "A profile is written as tables such as [profiles.staging.endpoint]"
    )


def test_python_leaves_profiles_aside_unless_a_loaded_job_has_one(path: Path, tmp_path: Path) -> None:
    (tmp_path / "reviews.csv").write_text("text\na\nb\nc\nd\n")
    assert batchrun.plan(path, sandbox=True)["rows"]["total"] == 4
    job = batchrun.load_job(str(path), profile="staging")
    assert batchrun.plan(job, sandbox=True)["budget"]["usd"] == 0.5


def test_the_schema_of_editors_knows_profiles(path: Path) -> None:
    check = jsonschema_rs.validator_for(job_schema())
    tables = _plain(read_tables(path.read_text()))
    assert list(check.iter_errors(tables)) == []
    tables["profiles"]["small"]["budget"] = {"uds": 1}
    assert len(list(check.iter_errors(tables))) == 1


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return float(value) if isinstance(value, Decimal) else value
