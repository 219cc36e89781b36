"""No file that a command writes is one that it reads or keeps, however the path is spelled."""

import json
import os
from pathlib import Path

import pytest

from batchrun.cli import batchrun_group
from batchrun.errors import OutputError
from batchrun.job.file import load_job
from batchrun.job.spec import Job
from batchrun.runs.paths import check_paths, matches
from batchrun.tables.writer import check_writable

JOB = """
[input]
path = "in.csv"
[prompt]
template_file = "prompt.txt"
[request]
model = "m"
max_tokens = 5
[endpoint]
api_key_file = "key"
[output]
path = "out.csv"
[labels]
json_schema = "schema.json"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The present folder, with a job whose files all exist but the output."""
    monkeypatch.chdir(tmp_path)
    Path("in.csv").write_text("text\none\n")
    Path("key").write_text("sk-test")
    Path("prompt.txt").write_text("{{ text }}")
    Path("replies.toml").write_text('[[reply]]\npattern = "."\ntext = "x"\n')
    Path("schema.json").write_text(json.dumps({"type": "object", "properties": {"a": {"type": "string"}}}))
    Path("job.toml").write_text(JOB)
    Path("link.csv").symlink_to("in.csv")
    os.link("in.csv", "hard.csv")
    Path("sub").mkdir()
    Path("alias").symlink_to(".")
    return tmp_path


def loaded(*overrides: str) -> Job:
    return load_job(Path("job.toml"), overrides)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


COMMANDS = [
    "export job.toml --to in.csv",
    "export job.toml --to sub/../in.csv",
    "export job.toml --to alias/in.csv",
    "export job.toml --to link.csv",
    "export job.toml --to hard.csv",
    "export job.toml --to out.run/x.csv",
    "run job.toml --output in.csv",
    "run job.toml --output alias/alias/in.csv",
    "run job.toml --output link.csv",
    "run job.toml --input *.csv",
    "run job.toml --input **/*.csv",
    "plan job.toml --output in.csv",
    "run job.toml --log-file in.csv",
    "run job.toml --log-file hard.csv",
    "run job.toml --log-file job.toml",
    "run job.toml --log-file alias/job.toml",
    "run job.toml --log-file schema.json",
    "run job.toml --log-file key",
    "run job.toml --log-file prompt.txt",
    "run job.toml --log-file out.csv",
    "run job.toml --log-file alias/out.csv",
    "run job.toml --log-file out.run/journal.sqlite",
    "run job.toml --log-file out.run/lock",
    "run job.toml --sandbox --sandbox-replies replies.toml --log-file replies.toml",
    "review job.toml --to in.csv --again",
    "review job.toml --to hard.csv --again",
    "review job.toml --to out.csv --again",
    "review job.toml --read review.csv --corrected in.csv",
    "review job.toml --read review.csv --corrected review.csv",
    "review job.toml --read review.csv --corrected out.csv",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_that_would_be_lost_is_refused(folder: Path, command: str) -> None:
    before = contents(folder)
    with pytest.raises(OutputError) as raised:
        batchrun_group.main(command.split(), standalone_mode=False)
    assert raised.value.exit_code == 2
    assert contents(folder) == before
    told = str(raised.value)
    assert len(told.splitlines()) <= 2
    assert any(option in told for option in ("--to", "--log-file", "--corrected", "[output] path"))


def test_a_null_character_is_refused_by_the_option_s_name(folder: Path) -> None:
    with pytest.raises(OutputError, match="--to: a path can't hold a null character"):
        check_paths(loaded(), {"--to": Path("a\0.csv")})


def test_a_file_url_is_a_path_too(folder: Path) -> None:
    job = loaded(f"input.path='file://{folder}/in.csv'")
    with pytest.raises(OutputError, match=r"--log-file .* is the job's input"):
        check_paths(job, {"--log-file": Path("in.csv")})


@pytest.mark.parametrize("path", ["shop.db", "sqlite:///shop.db", "duckdb:///alias/shop.db"])
def test_a_database_is_an_input_too(folder: Path, path: str) -> None:
    Path("shop.db").write_bytes(b"rows")
    with pytest.raises(OutputError, match=r"--log-file .* is the job's input"):
        check_paths(loaded(f"input.path={path}"), {"--log-file": Path("shop.db")})


def test_a_log_that_rotates_may_not_reach_a_file_of_the_job(folder: Path) -> None:
    Path("in.jsonl").write_text('{"text": "a"}\n')
    Path("x.log.1").symlink_to("in.jsonl")
    with pytest.raises(OutputError, match=r"rotated to \.1"):
        batchrun_group.main(
            ["run", "job.toml", "--input", "in.jsonl", "--log-file", "x.log"], standalone_mode=False
        )


@pytest.mark.parametrize("own", ["log.jsonl", "journal.sqlite", "journal.sqlite-wal", "lock", "summary.json"])
def test_a_link_in_the_run_s_folder_leads_to_no_file_of_the_job(folder: Path, own: str) -> None:
    Path("out.run").mkdir()
    (folder / "out.run" / own).symlink_to("../in.csv")
    with pytest.raises(OutputError, match="is the job's input"):
        check_paths(loaded())


def test_what_is_no_danger_is_let_through(folder: Path) -> None:
    job = loaded()
    check_paths(job)
    check_paths(job, {"--to": Path("out.csv")}, may_be_output=True)
    check_paths(job, {"--to": Path("new.csv"), "--log-file": Path("sub/in.csv")})
    for path in ("in*.csv", "memory://", "none.csv"):
        check_paths(loaded(f"input.path={path}"))


def test_a_pattern_finds_what_glob_finds(folder: Path) -> None:
    assert matches(Path("out.csv"), folder, "*.csv")
    assert matches(Path("out.csv"), folder, "**/*.csv")
    assert matches(Path("sub/deep/out.csv"), folder, "sub/**/o?t.[c]sv")
    assert not matches(Path("sub/out.csv"), folder, "*.csv")
    assert not matches(Path(".out.csv"), folder, "*.csv")
    assert not matches(Path("out.csv"), folder, "in*.csv")


def test_a_link_as_output_needs_a_word(folder: Path) -> None:
    Path("out.csv").symlink_to("elsewhere.csv")
    with pytest.raises(OutputError, match=r"output\.follow_links = true"):
        check_paths(loaded())
    check_paths(loaded("output.follow_links=true"))


def test_an_output_of_another_user_is_refused_before_anything_is_sent(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("out.csv").touch()
    check_paths(loaded())
    if os.geteuid() == 0:
        os.chown("out.csv", 12_345, -1)
        with pytest.raises(OutputError, match="file of another user"):
            check_paths(loaded())
    Path("sub").chmod(0o1777)
    Path("sub/out.csv").touch()
    owner = folder.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 7)
    if owner == 0:
        os.chown("sub/out.csv", 12_345, -1)
        with pytest.raises(OutputError, match="sticky folder"):
            check_writable(Path("sub/out.csv"))


def test_a_name_that_leaves_no_room_for_the_temporary_file_is_refused(folder: Path) -> None:
    with pytest.raises(OutputError, match="File name too long"):
        check_writable(Path("n" * 245 + ".csv"))
    check_writable(Path("n" * 230 + ".csv"))
    assert not list(folder.glob(".n*"))
