"""Bad input gets a clear error of a line or two with exit code 2, and nothing is sent."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pytest

from tests.acceptance.command import Done, Place


def _nothing(_place: Place) -> None:
    pass


@dataclass(frozen=True)
class Mistake:
    """What is done to a good job (settings, files, environment), and words that the error must have."""

    named: tuple[str, ...]
    settings: tuple[str, ...] = ()
    make: Callable[[Place], object] = _nothing
    environment: dict[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()


def _written(content: bytes, name: str = "in.csv") -> Callable[[Place], int]:
    return lambda place: (place.folder / name).write_bytes(content)


def _job(old: str, new: str) -> Callable[[Place], int]:
    return lambda place: place.job_file.write_text(place.job_file.read_text().replace(old, new))


def _cut_parquet(place: Place) -> None:
    path = place.parquet(pa.table({"text": ["one", "two"] * 1000}))
    path.write_bytes(path.read_bytes()[:-100])


def _file_for_folder(place: Place) -> None:
    (place.folder / "out.run").write_text("not a folder")


MISTAKES: dict[str, Mistake] = {
    "missing file": Mistake(("no such file", "inn.csv", "in.csv"), ("input.path=inn.csv",)),
    "no match": Mistake(("no file matches", "x*.csv"), ('input.path="x*.csv"',)),
    "empty file": Mistake(("in.csv", "empty"), make=_written(b"")),
    "folder as input": Mistake(
        ("folder",), make=lambda p: (p.folder / "d.csv").mkdir(), settings=("input.path=d.csv",)
    ),
    "unknown kind of file": Mistake(("in.txt", ".parquet"), ("input.path=in.txt",), _written(b"a", "in.txt")),
    "unknown column": Mistake(("'txt'", "'text'", "id, text"), ('prompt.template="{{ txt }}"',)),
    "unknown column by row": Mistake(("row['txt']", "id, text"), ("""prompt.template='{{ row["txt"] }}'""",)),
    "unknown column in system": Mistake(("prompt.system", "'lang'"), ('prompt.system="{{ lang }}"',)),
    "unknown column in request.columns": Mistake(
        ("'temp'", "id, text"), ("request.columns.temperature=temp",)
    ),
    "unknown messages column": Mistake(
        ("'chat'",), make=_job('template = "Sentiment, one word: {{ text }}"', 'messages = "chat"')
    ),
    "broken template": Mistake(("prompt.template", "line 2"), ('prompt.template="a\\n{{ text"',)),
    "template that fails": Mistake(
        ("first row", "prompt.template, line 1"), ('prompt.template="{{ text.nope }}"',)
    ),
    "unknown key": Mistake(("max_token", "max_tokens"), make=_job("max_tokens = 16", "max_token = 16")),
    "unknown table": Mistake(("requests", "[request]"), make=_job("[request]", "[requests]")),
    "unknown key by option": Mistake(("uds", "budget.usd"), ("budget.uds=2",)),
    "wrong type": Mistake(
        ("[request] max_tokens", '"many"'), make=_job("max_tokens = 16", 'max_tokens = "many"')
    ),
    "out of range": Mistake(("[request] temperature", "2"), ("request.temperature=3",)),
    "negative budget": Mistake(("[budget] usd", "-1"), ("budget.usd=-1",)),
    "no TOML": Mistake(("job.toml", "line 1"), make=_written(b"a = 1 2\n", "job.toml")),
    "no such job file": Mistake(("no such job file",), make=lambda p: p.job_file.unlink()),
    "both template and messages": Mistake(("template", "messages"), ("prompt.messages=text",)),
    "ragged CSV": Mistake(("line 3", "in.csv"), make=_written(b"id,text\n1,a\n2,b,c\n3,d\n")),
    "short CSV line": Mistake(("line 3",), make=_written(b"id,text\n1,a\n2\n3,d\n")),
    "CSV in Latin-1": Mistake(
        ("line 3", "UTF-8"), make=_written("id,text\n1,a\n2,schön\n".encode("latin-1"))
    ),
    "open quote in CSV": Mistake(("line 2",), make=_written(b'id,text\n1,"a\n2,b\n')),
    "column twice": Mistake(("text",), make=_written(b"text,text\n1,a\n")),
    "broken JSON line": Mistake(
        ("line 2", "in.jsonl"), ("input.path=in.jsonl",), _written(b'{"text": "a"}\n{"text": \n', "in.jsonl")
    ),
    "Parquet cut short": Mistake(("in.parquet",), ("input.path=in.parquet",), _cut_parquet),
    "no Parquet": Mistake(
        ("in.parquet",), ("input.path=in.parquet",), _written(b"id,text\n1,a\n", "in.parquet")
    ),
    "column in the way": Mistake(("'status'", "output.prefix"), make=_written(b"text,status\na,b\n")),
    "unknown kind of output": Mistake(("[output] path", ".parquet"), ("output.path=out.xlsx",)),
    "output is the input": Mistake(("[output] path", "in.csv"), ("output.path=in.csv",)),
    "output is a folder": Mistake(("folder",), make=lambda p: p.output.mkdir()),
    "file where the run's folder goes": Mistake(("out.run", "file"), make=_file_for_folder),
    "folder that can't be made": Mistake(("in.csv/out.parquet",), ("output.path=in.csv/out.parquet",)),
    "no key": Mistake(("ABLIT_KEY",), environment={"ABLIT_KEY": ""}),
    "no key in another variable": Mistake(("MY_KEY",), ("endpoint.api_key_env=MY_KEY",)),
    "key with a line break": Mistake(("ABLIT_KEY",), environment={"ABLIT_KEY": "sk-\nsecret"}),
    "key over http": Mistake(("example.com", "https"), ("endpoint.base_url=http://example.com",)),
    "no URL": Mistake(("[endpoint] base_url",), ("endpoint.base_url=example.com",)),
    "cap without prices": Mistake(
        ("[budget] usd", "pricing"),
        ("budget.usd=1",),
        _job("[pricing]\ninput_usd_per_million = 5.0\noutput_usd_per_million = 5.0", ""),
    ),
    "cap without max_tokens": Mistake(
        ("[budget] usd", "request.max_tokens"), ("budget.usd=1",), _job("max_tokens = 16", "")
    ),
    "bad --set": Mistake(("--set",), options=("--set", "budget")),
    "unknown option": Mistake(("--max-uds", "--max-usd"), options=("--max-uds", "1")),
    "reply file that isn't there": Mistake(
        ("gone.toml",), options=("--sandbox", "--sandbox-replies", "gone.toml")
    ),
}


def check_refused(place: Place, done: Done, named: tuple[str, ...]) -> None:
    assert done.code == 2, done
    assert done.out == ""
    lines = done.err.strip().splitlines()
    assert 1 <= len(lines) <= 3, done.err
    assert "Traceback" not in done.err
    assert [word for word in named if word not in done.err] == [], done.err
    assert place.requests == 0


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named_in_a_line_or_two_and_nothing_is_sent(place: Place, mistake: Mistake) -> None:
    place.texts("one", "two")
    mistake.make(place)
    command = ("run", "job.toml", *(part for setting in mistake.settings for part in ("--set", setting)))
    done = place.command(*command, *mistake.options, environment=mistake.environment)
    check_refused(place, done, mistake.named)
    assert "secret" not in done.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_named(place: Place) -> None:
    place.texts("one")
    place.folder.chmod(0o500)
    try:
        check_refused(place, place.run(), ("out.parquet", "Permission denied"))
    finally:
        place.folder.chmod(0o700)


def test_a_read_only_place_for_the_output_is_named(place: Place) -> None:
    """/proc takes no new files, not even from root."""
    place.texts("one")
    done = place.run("output.path=/proc/out.parquet")
    check_refused(place, done, ("/proc/out.parquet",))


@pytest.mark.parametrize("command", ["plan", "status", "export"])
def test_the_other_commands_say_so_too(place: Place, command: str) -> None:
    place.texts("one")
    check_refused(place, place.command(command, "job.toml", "--set", "input.pth=a"), ("pth", "input.path"))


@pytest.mark.parametrize("command", ["status", "export"])
def test_there_is_nothing_to_look_at_before_the_first_run(place: Place, command: str) -> None:
    place.texts("one")
    check_refused(place, place.command(command, "job.toml"), ("Nothing has been run yet", "batchrun run"))


def test_without_a_job_the_options_that_are_needed_are_named(place: Place) -> None:
    check_refused(place, place.command("run"), ("--input", "--prompt", "--output", "--model"))
    done = place.command("run", "--input", "in.csv", "--output", "o.parquet", "--model", "m")
    check_refused(place, done, ("[prompt]", "template"))


def test_a_mistake_is_found_before_a_folder_is_made(place: Place) -> None:
    place.texts("one")
    place.run('prompt.template="{{ nope }}"', "output.path=deep/er/out.parquet")
    assert not (place.folder / "deep").exists()
    assert not Path(place.folder / "out.run").exists()
