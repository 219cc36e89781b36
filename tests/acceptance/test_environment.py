"""Environment variables with empty, wrong and odd values: the documented exit code, and never a traceback.

Python reads PYTHONUTF8 and PYTHONIOENCODING before batchrun begins, and refuses unknown values itself.
"""

from collections.abc import Mapping
from errno import ENOSPC
from pathlib import Path

import pytest

from batchrun.cli import fault_of
from tests.acceptance.command import Place

WITHOUT_EFFECT = (
    "ALL_PROXY BATCHRUN_ CLICOLOR_FORCE COLUMNS CURL_CA_BUNDLE FORCE_COLOR HOME HTTPS_PROXY HTTP_PROXY"
    " LINES NO_COLOR NO_PROXY PATH PWD SHELL SQLITE_TMPDIR SSL_CERT_DIR SSL_CERT_FILE TEMP TERM TMP TMPDIR TZ"
    " USER XDG_CACHE_HOME XDG_CONFIG_HOME http_proxy"
)
"""On a run against this machine, over plain HTTP."""
LOCALE = "LANG LC_ALL LC_CTYPE"
THREADS = "OMP_NUM_THREADS OPENBLAS_NUM_THREADS"
WRONG = ["/no/such/place", "x y", "\u00fc\x01", "-1", "9" * 20, "://", "http://[", "a" * 5_000, "\udcff"]


@pytest.mark.parametrize("value", ["", "0", *WRONG])
def test_no_value_of_a_variable_that_does_not_matter_changes_how_a_run_ends(place: Place, value: str) -> None:
    check_run(place, dict.fromkeys(WITHOUT_EFFECT.split(), value))


@pytest.mark.parametrize(
    ("locale", "threads"),
    [("", "0"), ("/no/such/place", "-1"), ("\u00fc\x01", "9" * 20), ("a" * 5_000, "x y"), ("\udcff", "")],
)
def test_nor_does_one_that_the_interpreter_or_a_library_reads_at_its_start(
    place: Place, locale: str, threads: str
) -> None:
    values = dict.fromkeys(LOCALE.split(), locale) | dict.fromkeys(THREADS.split(), threads)
    check_run(place, dict.fromkeys(WITHOUT_EFFECT.split(), locale) | values)


def check_run(place: Place, environment: Mapping[str, str]) -> None:
    place.texts("one", "two \u2603")
    done = place.command("run", "job.toml", environment=environment)
    assert done.code == 0, done.err
    assert "Traceback" not in done.err
    assert "Warning" not in done.err
    assert place.column("status") == ["ok", "ok"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SSL_CERT_FILE", ""),
        ("SSL_CERT_FILE", "\udcff"),
        ("SSL_CERT_FILE", "a" * 5_000),
        ("SSL_CERT_DIR", "/no/such/place"),
        ("SSL_CERT_DIR", "a" * 5_000),
        ("HTTPS_PROXY", "http://["),
        ("HTTPS_PROXY", "ftp://x"),
        ("ALL_PROXY", "http://127.0.0.1:99999"),
    ],
)
def test_a_value_that_does_matter_is_refused_by_the_variable_s_name(
    place: Place, name: str, value: str
) -> None:
    place.texts("one")
    other = {"SSL_CERT_FILE": "/no/such/file"} if name == "SSL_CERT_DIR" else {}
    address = "endpoint.base_url=https://model.invalid"
    done = place.command(
        "run",
        "job.toml",
        "--set",
        address,
        "--set",
        "retry.outage_seconds=1",
        environment={**other, name: value},
    )
    assert "Traceback" not in done.err
    assert (done.code, name in done.err) == (2, True), done.err


def test_streams_that_take_ascii_alone_end_no_command(place: Place) -> None:
    environment = {"PYTHONIOENCODING": "ascii:strict", "LANG": "C", "LC_ALL": "C"}
    place.texts("two \u2603 \U0001f642")
    for arguments in (["run", "job.toml"], ["plan", "job.toml", "--show", "1"]):
        done = place.command(*arguments, environment=environment)
        assert done.code == 0, done.err
        assert "Traceback" not in done.err


def test_a_current_folder_that_was_removed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error that Python raises then has no file's name, as one of a full stdout."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(FileNotFoundError) as caught:
        Path.cwd()
    monkeypatch.chdir(tmp_path)
    assert fault_of(caught.value).startswith("The current folder has been removed. Go to another one")
    assert fault_of(OSError(ENOSPC, "full")).startswith("the output of the command: ")
