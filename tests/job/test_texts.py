"""Paths and texts that no system can take: exit code 2, by the name of the key or the option."""

from pathlib import Path

import pytest

from batchrun.cli import batchrun_group
from batchrun.errors import UsageError
from batchrun.job.texts import PATHS
from tests.job.conftest import Refusal

KEYS = [f"{table}.{key}" for table, keys in PATHS.items() for key in keys]
RUN = ["run", "--prompt", "{{ text }}", "--model", "m", "--max-tokens", "5", "--sandbox"]
OUR_FILES = ["journal.sqlite", "journal.sqlite-wal", "lock", "log.jsonl", "summary.json", "ballast"]


def refused(*arguments: str) -> str:
    with pytest.raises(UsageError) as raised:
        batchrun_group.main(list(arguments), standalone_mode=False)
    told = str(raised.value)
    assert len(told.splitlines()) <= 2
    told.encode()
    return told


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("a\\u0000.csv", "null"),
        ("n" * 300 + ".csv", "too long"),
        ("a\udcff.csv", "not UTF-8"),
        ("a/" * 2_100, "too long"),
    ],
)
def test_a_path_that_can_t_be_one_is_refused_by_its_key(
    refusal: Refusal, key: str, path: str, reason: str
) -> None:
    table, name = key.split(".")
    told = refusal("", f'{key}="{path}"')
    assert f"[{table}] {name}" in told
    assert reason in told


def test_any_text_that_is_not_utf8_is_refused_by_its_key(refusal: Refusal) -> None:
    assert "[prompt] system: holds bytes" in refusal("", "prompt.system='\udcff'")
    assert "[endpoint] headers: holds bytes" in refusal("", "endpoint.headers.x-a='\udcff'")


def test_options_are_refused_by_their_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in.csv").write_text("text\none\n")
    rest = [*RUN, "--output", "out.csv"]
    assert "[input] path" in refused(*rest, "--input", "n" * 300)
    assert "not UTF-8" in refused("init", "a\udcff.csv")
    assert "too long" in refused(*rest, "--input", "in.csv", "--log-file", "n" * 300)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv"]


@pytest.mark.parametrize("name", OUR_FILES)
def test_a_folder_in_the_place_of_a_file_of_the_run_is_refused_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in.csv").write_text("text\none\n")
    Path(f"out.run/{name}").mkdir(parents=True)
    assert f"{name} is a folder" in refused(*RUN, "--input", "in.csv", "--output", "out.csv")
