"""Tests that also run in CI, run here for longer."""

import os
import re
import subprocess
import sys
from pathlib import Path

from proofs.results import Result, Say

_PROJECT = Path(__file__).parents[1]
_EXAMPLES = 1_000


def prove_properties(say: Say) -> list[Result]:
    """The Hypothesis tests and state machines of the money, with more examples than in CI."""
    say(f"tests/money with {_EXAMPLES:,} examples for each property")
    return _suite(
        say,
        f"properties, {_EXAMPLES:,} examples each",
        ["tests/money"],
        {"BATCHRUN_EXAMPLES": str(_EXAMPLES)},
    )


def prove_commands(say: Say) -> list[Result]:
    """The tests of the commands, each command in an interpreter of its own."""
    say("tests/acceptance with an interpreter for each command, for some minutes")
    return _suite(say, "commands", ["-n", "2", "-m", "not slow", "tests/acceptance"], {"BATCHRUN_FORK": "0"})


def prove_slow(say: Say) -> list[Result]:
    """The tests that are too slow for every change: most of their time they wait."""
    say("the tests that are marked slow, for some minutes")
    return _suite(say, "slow tests", ["-n", "6", "-m", "slow and not servers", "tests"], {})


def _suite(say: Say, proof: str, arguments: list[str], settings: dict[str, str]) -> list[Result]:
    command = [sys.executable, "-m", "pytest", "-q", "--timeout", "900", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(  # noqa: S603 - the arguments stand above
        command, cwd=_PROJECT, env=os.environ | settings, capture_output=True, text=True, check=False
    )
    for line in re.findall(r"^(?:FAILED|ERROR) .*", done.stdout, re.MULTILINE):
        say(line)
    last = done.stdout.strip().rpartition("\n")[2] or done.stderr.strip().rpartition("\n")[2]
    counts = ", ".join(re.findall(r"\d+ (?:passed|failed|errors?|xfailed|skipped)", last)) or last
    return [Result(proof, "tests", counts, "all pass", done.returncode == 0)]
