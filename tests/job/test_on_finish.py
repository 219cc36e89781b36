"""The table [on_finish]: what is refused, and that it shows nowhere."""

import json
from pathlib import Path
from typing import Any

import pytest

from batchrun.errors import JobError
from batchrun.job.file import make_job
from batchrun.job.spec import Job, public_job

SECRET = "T0KEN-in-the-path"


def job(**on_finish: Any) -> Job:
    tables = {
        "input": {"path": "in.csv"},
        "prompt": {"template": "{{ text }}"},
        "request": {"model": "m", "max_tokens": 16},
        "output": {"path": "out.parquet"},
        "on_finish": on_finish,
    }
    return make_job(tables, Path("/jobs"))


@pytest.mark.parametrize("command", ["mail me", ["mail", "me"]])
def test_a_command_is_text_or_a_list_and_a_url_may_stand_beside_it(command: Any) -> None:
    made = job(command=command, url="https://hooks.example.com/x").on_finish
    assert made is not None
    assert (made.when, made.timeout_seconds) == ("always", 30.0)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({}, "[on_finish]: give command or url"),
        ({"command": ""}, "[on_finish] command: must not be empty"),
        ({"command": []}, "[on_finish] command: must not be empty"),
        ({"command": "a\0b"}, "[on_finish] command: holds a null character"),
        ({"url": f"ftp://{SECRET}"}, "[on_finish] url: expected an http or https URL"),
        ({"url": "https://"}, "[on_finish] url: expected an http or https URL"),
        ({"url": "http://a:99999/"}, "[on_finish] url: expected an http or https URL"),
        ({"command": "x", "when": "never"}, '[on_finish] when: expected "always" or "trouble"'),
        ({"command": "x", "timeout_seconds": 0}, "[on_finish] timeout_seconds: expected a number > 0"),
        ({"comand": "x"}, "[on_finish] comand: unknown key; did you mean on_finish.command?"),
        ({"command": 3}, "[on_finish] command: "),
    ],
)
def test_what_is_wrong_is_said_without_the_value(table: dict[str, Any], says: str) -> None:
    with pytest.raises(JobError) as raised:
        job(**table)
    assert str(raised.value).startswith(says)
    assert SECRET not in str(raised.value)


def test_whom_it_tells_shows_in_no_text_of_the_job() -> None:
    """A webhook's URL is its password, and a command may hold one."""
    made = job(command=["curl", "-H", SECRET], url=f"https://hooks.example.com/{SECRET}")
    assert SECRET not in json.dumps(public_job(made)) + repr(made.on_finish)
    assert public_job(made)["on_finish"]["command"] == "***"
    assert public_job(job(command="true"))["on_finish"]["url"] is None
