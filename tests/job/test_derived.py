"""What follows from a loaded job: paths, fingerprint, the public form and the key."""

import json
from pathlib import Path

import pytest

from batchrun.errors import JobError
from batchrun.job.credentials import api_key, without_key
from batchrun.job.file import load_job
from batchrun.job.spec import fingerprint, input_path, output_path, public_job, run_folder


def test_paths_start_from_the_job_file(minimal: Path) -> None:
    base = minimal.parent
    job = load_job(minimal, ["output.path=out/labels.v2.parquet"])
    assert input_path(job) == str(base / "reviews.csv")
    assert output_path(job) == base / "out" / "labels.v2.parquet"
    assert run_folder(job) == base / "out" / "labels.v2.run"


def test_absolute_paths_and_urls_stay(minimal: Path, tmp_path: Path) -> None:
    job = load_job(minimal, ["input.path=s3://bucket/*.parquet", f"output.path={tmp_path}/x/o.csv"])
    assert input_path(job) == "s3://bucket/*.parquet"
    assert output_path(job) == tmp_path / "x" / "o.csv"


@pytest.mark.parametrize(
    "override",
    [
        "prompt.template=other",
        "prompt.system=s",
        "request.model=other",
        "request.max_tokens=3",
        "request.extra.top_p=0.5",
        "request.columns.model=m",
        "endpoint.base_url=https://example.com",
    ],
)
def test_fingerprint_changes_with_the_requests(minimal: Path, override: str) -> None:
    assert fingerprint(load_job(minimal, [override])) != fingerprint(load_job(minimal))


@pytest.mark.parametrize(
    "override",
    [
        "budget.rows=1",
        "output.path=other.csv",
        "limits.concurrency=1",
        "endpoint.base_url=https://api.abliteration.ai/",
        "endpoint.api_key_env=OTHER",
    ],
)
def test_fingerprint_ignores_the_rest(minimal: Path, override: str) -> None:
    assert fingerprint(load_job(minimal, [override])) == fingerprint(load_job(minimal))


def test_fingerprint_does_not_depend_on_the_order_of_keys(minimal: Path) -> None:
    forth = ["request.extra.a=1", "request.extra.b=2"]
    assert fingerprint(load_job(minimal, forth)) == fingerprint(load_job(minimal, forth[::-1]))
    assert len(bytes.fromhex(fingerprint(load_job(minimal)))) == 32


def test_public_job_is_json_without_secrets(minimal: Path) -> None:
    """Header values and a URL's password and signature are gone; the rest stands as it was."""
    overrides = [
        "endpoint.headers.x-secret=s3cret",
        "input.path=https://me:s3cret@example.com/a.parquet?sig=s3cret",
        "request.max_tokens=16",
        "budget.usd=2.50",
    ]
    job = load_job(minimal, overrides)
    public = public_job(job)
    assert "s3cret" not in json.dumps(public)
    assert public["endpoint"]["headers"] == {"x-secret": "***"}
    assert public["input"] == {
        "path": "https://example.com/a.parquet",
        "types": {},
        "endpoint_url": None,
        "skip_lines": 0,
        "sheet": None,
        "query": None,
        "hive": False,
    }
    assert public["budget"]["usd"] == "2.50"
    assert public["request"]["max_tokens"] == 16
    assert str(minimal.parent) not in json.dumps(public)
    assert job.endpoint.headers == {"x-secret": "s3cret"}


@pytest.mark.parametrize("path", ["s3://bucket/a@b/*.csv", "s3://[x/a.csv", "a?.csv", "user@host.csv"])
def test_public_input_path_without_secrets_stays(minimal: Path, path: str) -> None:
    """Only what stands before a host's `@` or after a URL's `?` can be a secret."""
    assert public_job(load_job(minimal, [f"input.path={path}"]))["input"]["path"] == path


def test_repr_hides_header_values(minimal: Path) -> None:
    assert "s3cret" not in repr(load_job(minimal, ["endpoint.headers.x-secret=s3cret"]))


def test_key_from_the_variable(minimal: Path) -> None:
    """Line ends that shells and editors leave behind are cut off."""
    job = load_job(minimal, ["endpoint.api_key_env=MY_KEY"])
    assert api_key(job, {"MY_KEY": " sk-1\r\n", "ABLIT_KEY": "other"}) == "sk-1"


def test_key_from_the_file_wins(minimal: Path) -> None:
    (minimal.parent / "key.txt").write_text("sk-file\n")
    job = load_job(minimal, ["endpoint.api_key_file=key.txt"])
    assert api_key(job, {"ABLIT_KEY": "sk-env"}) == "sk-file"


@pytest.mark.parametrize("override", ["endpoint.auth=none", "request.free_tier=true"])
def test_no_key_where_none_is_sent(minimal: Path, override: str) -> None:
    assert api_key(load_job(minimal, [override]), {"ABLIT_KEY": "sk-1"}) is None


@pytest.mark.parametrize("environ", [{}, {"ABLIT_KEY": ""}, {"ABLIT_KEY": " \n"}])
def test_missing_key_says_how_to_set_it(minimal: Path, environ: dict[str, str]) -> None:
    with pytest.raises(JobError) as caught:
        api_key(load_job(minimal), environ)
    assert str(caught.value) == (
        "no API key: the environment variable ABLIT_KEY is not set.\n"
        "Set it with `export ABLIT_KEY=...`, or name another variable in endpoint.api_key_env."
    )


@pytest.mark.parametrize("key", ["s3cret s3cret", "s3cret\x00", "s3crét", "Bearer s3cret", "s3cret\ns3cret"])
def test_key_that_fits_no_header_is_not_printed(minimal: Path, key: str) -> None:
    with pytest.raises(JobError, match="the bare key alone") as caught:
        api_key(load_job(minimal), {"ABLIT_KEY": key})
    assert "s3cr" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "text"),
    [(None, "No such file"), (b"\n", "is empty"), (b"\xff\xfe", "non-ASCII"), (b"x" * 20_000, "too long")],
)
def test_key_file_that_holds_no_key(minimal: Path, content: bytes | None, text: str) -> None:
    if content is not None:
        (minimal.parent / "key.txt").write_bytes(content)
    job = load_job(minimal, ["endpoint.api_key_file=key.txt"])
    with pytest.raises(JobError, match=text) as caught:
        api_key(job, {})
    assert "key.txt" in str(caught.value)


def test_processes_that_are_to_have_no_key_get_no_variable_that_holds_it(minimal: Path) -> None:
    key = "sk-0123456789abcdef"
    environ = {"ABLIT_KEY": "another", "COPY": key, "CURL": f"-H 'x-api-key: {key}'", "PATH": "/usr/bin"}
    assert without_key(environ, load_job(minimal), key) == {"PATH": "/usr/bin"}


def test_a_short_key_takes_no_path_or_proxy_away(minimal: Path) -> None:
    """Servers that want any key get such as "test"."""
    kept = {"PATH": "/test/bin", "HTTPS_PROXY": "http://proxy.test:3128"}
    assert without_key({**kept, "ABLIT_KEY": "test", "COPY": "test"}, load_job(minimal), "test") == kept
