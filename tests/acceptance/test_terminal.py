"""What people see: on a terminal, on a dumb one, in a pipe that is closed, and how fast --help is."""

import os
import pty
import re
import resource
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from batchrun import __version__
from tests.acceptance.command import Done, Place
from tests.forked import BatchrunProcess

REPLIES = r"""
[[reply]]
pattern = "."
text = "\u001b[31mred\u001b]0;title\u0007 \u202eback\nline"
"""


def on_a_terminal(
    place: Place,
    *arguments: str,
    term: str = "xterm-256color",
    columns: int = 100,
    once_shown: Callable[[subprocess.Popen[bytes], int], None] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Done:
    """The command on a pseudo-terminal; what it shows is in `err`. `once_shown` gets the process and the
    terminal's descriptor when the display is there; if it closes the terminal, nothing more is read.
    """
    terminal, end = pty.openpty()
    termios.tcsetwinsize(end, (24, columns))
    process = BatchrunProcess(
        arguments,
        cwd=place.folder,
        env={**place.environment, "TERM": term, **(environment or {})},
        stdin=end,
        stdout=end,
        stderr=end,
    )
    os.close(end)
    shown = b""
    try:
        while piece := os.read(terminal, 65536):
            shown += piece
            if once_shown is not None and b"held back" in shown:
                once_shown(process, terminal)
                once_shown = None
    except OSError:  # Linux: the other end is closed
        pass
    finally:
        with suppress(OSError):  # `once_shown` may have closed it
            os.close(terminal)
        code = ended_with(process)
    return Done(code, "", shown.decode(errors="replace"))


def ended_with(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait(40)
    finally:
        process.kill()


def test_a_terminal_shows_progress_that_goes_away_and_then_the_end(slow_place: Place) -> None:
    slow_place.texts(*(f"text {n}" for n in range(8)))
    done = on_a_terminal(slow_place, "run", "job.toml", "--concurrency", "4")
    assert done.code == 0
    assert re.search(r"\d of 8 rows \(\d+%\)", done.err)
    assert "in flight" in done.err
    assert "\x1b[" in done.err
    assert done.err.rstrip().endswith("Every row has an answer (8 rows).")


def live_lines(done: Done) -> list[str]:
    """What the display showed, line by line, without the sequences that move the cursor."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "\n", done.err)
    return [line for line in plain.splitlines() if line]


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_the_display_fits_into_the_terminal(slow_place: Place, columns: int) -> None:
    """And says how far it is, how fast, what holds it back, and what is spent, at any width."""
    slow_place.texts(*(f"text {n}" for n in range(12)))
    done = on_a_terminal(
        slow_place,
        "run",
        "job.toml",
        *("--concurrency", "2", "--rpm", "6000", "--max-usd", "5"),
        columns=columns,
    )
    assert done.code == 0
    shown = [line for line in live_lines(done) if re.search(r"rows \(|rows/s|reserved", line)]
    assert max(map(len, shown)) <= columns
    assert any(re.search(r"\d+ of 12 rows \(\d+%\), 0:0\d to go", line) for line in shown)
    assert any("rows/s, held back by limits.concurrency" in line for line in shown)
    assert any(re.search(r"spent \S+ USD \+ \S+ USD reserved of 5.00 USD", line) for line in shown)
    if columns == 200:
        rate = "of 6,000 requests/min (limit of the job)"
        assert any("limits.concurrency, " in line and rate in line for line in shown)


def test_the_display_follows_a_terminal_that_is_resized(slow_place: Place) -> None:
    slow_place.texts(*(f"text {n}" for n in range(16)))
    done = on_a_terminal(
        slow_place,
        *("run", "job.toml", "--concurrency", "2"),
        columns=120,
        once_shown=lambda _, terminal: termios.tcsetwinsize(terminal, (24, 60)),
    )
    assert done.code == 0
    lengths = [len(line) for line in live_lines(done) if re.search(r"rows \(|rows/s", line)]
    assert max(lengths) > 60
    assert max(lengths[-4:]) <= 60


@pytest.mark.parametrize("columns", [60, 80])
def test_after_ctrl_c_the_display_says_what_is_waited_for_and_what_a_second_one_does(
    place: Place, columns: int
) -> None:
    """Answers take longer than the display to follow."""
    place.texts(*(f"text {n}" for n in range(40)))
    done = on_a_terminal(
        place,
        *("run", "job.toml", "--concurrency", "4", "--sandbox", "--sandbox-latency", "1.5"),
        columns=columns,
        once_shown=lambda process, _: process.send_signal(signal.SIGINT),
    )
    assert done.code == 130
    lines = live_lines(done)
    assert re.search(r"^Interrupted by SIGINT. Waiting for [1-4] in flight.$", "\n".join(lines), re.MULTILINE)
    assert "Ctrl-C again ends at once; what is in flight may be billed." in lines
    assert max(map(len, lines)) <= columns


def test_an_end_without_a_last_error_names_none(place: Place) -> None:
    """Responses take longer than the two signals, on a busy machine too."""

    def twice(process: subprocess.Popen[bytes], _: int) -> None:
        for _number in range(2):
            process.send_signal(signal.SIGINT)
            time.sleep(0.1)

    place.texts(*(f"text {n}" for n in range(40)))
    slowly = ("--concurrency", "4", "--sandbox", "--sandbox-latency", "2")
    done = on_a_terminal(place, "run", "job.toml", *slowly, once_shown=twice)
    assert done.code == 130
    assert "errors    interrupted x" in done.err
    assert "None" not in done.err


@pytest.mark.parametrize("term", ["xterm-256color", "dumb"])
@pytest.mark.parametrize("columns", [60, 80])
def test_what_stays_is_broken_between_words(place: Place, columns: int, term: str) -> None:
    """The end of a run, a plan's lines, the status and an error: none is wider than the terminal."""
    place.texts("one", "two")
    end = on_a_terminal(place, "run", "job.toml", "--max-usd", "0.0004", columns=columns, term=term)
    assert end.code == 4
    kept = end.err[end.err.index("rows      ") :].splitlines()
    assert max(map(len, kept)) <= columns
    assert "raise budget.usd, then run the same command." in " ".join(kept)
    plan = on_a_terminal(place, "plan", "job.toml", "--max-usd", "1", columns=columns, term=term)
    lines = plan.err.partition("first request")[0].splitlines()
    assert max(map(len, lines)) <= columns
    assert [line for line in lines if line.startswith(" " * 10)]
    for command in (["status", "job.toml"], ["run", "job.toml", "--set", "labels.choices=['a', 'A']"]):
        shown = on_a_terminal(place, *command, columns=columns, term=term).err
        assert max(map(len, shown.splitlines())) <= columns


def test_in_a_pipe_no_line_is_broken(place: Place) -> None:
    place.texts("one")
    done = place.command("run", "job.toml", "--max-usd", "0", environment={"COLUMNS": "60"})
    assert done.last_line.startswith("Stopped at the cap budget.usd: no row fits, the next one needs ")


def test_a_terminal_that_goes_away_changes_nothing_but_what_is_seen(slow_place: Place) -> None:
    """Without a signal, as for a process that its shell has disowned: writing to the terminal fails."""
    slow_place.texts(*(f"text {n}" for n in range(12)))
    done = on_a_terminal(
        slow_place,
        *("run", "job.toml", "--concurrency", "4"),
        once_shown=lambda _, terminal: os.close(terminal),
    )
    assert done.code == 0
    assert slow_place.column("status") == ["ok"] * 12
    log = (slow_place.folder / "out.run" / "log.jsonl").read_text().splitlines()
    assert "run ended" in log[-1]


@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}])
def test_nothing_is_coloured(slow_place: Place, environment: dict[str, str]) -> None:
    slow_place.texts("one", "two")
    done = on_a_terminal(slow_place, "run", "job.toml", "--preview", "2", environment=environment)
    assert done.code == 0
    assert not re.search(r"\x1b\[(\d+;)*(3[0-8]|4[0-8]|9\d|10\d)[;m]", done.err)


def test_a_dumb_terminal_gets_plain_lines(place: Place) -> None:
    place.texts("one")
    done = on_a_terminal(place, "run", "job.toml", "--preview", "1", term="dumb")
    assert done.code == 0
    assert "\x1b" not in done.err
    assert "Every row has an answer" in done.err


@pytest.mark.parametrize("term", ["xterm-256color", "dumb"])
def test_answers_can_t_steer_the_terminal(place: Place, term: str) -> None:
    (place.folder / "replies.toml").write_text(REPLIES)
    place.texts("one\x1b[2J\x07")
    done = on_a_terminal(
        place,
        "run",
        "job.toml",
        "--sandbox",
        "--sandbox-replies",
        "replies.toml",
        "--preview",
        "1",
        term=term,
    )
    assert done.code == 0
    assert "red" in done.err
    for control in ("\x1b[31m", "\x1b]0;", "\x07", "\x1b[2J", "\u202e"):
        assert control not in done.err


@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize(
    "settings",
    [
        'input.path="evil\\u001b[31m.csv"',
        'prompt.template="{{ nope }}"',
        'prompt.template="{{ row[\\"a\\u001b[31m\\"] }} \\u009b31m \\u202e"',
    ],
)
def test_names_and_prompts_can_t_steer_the_terminal(place: Place, command: str, settings: str) -> None:
    (place.folder / "in.csv").write_text("a\x1b[31m,b\n1,2\n")
    done = on_a_terminal(place, command, "job.toml", "--set", settings, "--set", "output.path=a\x1b[31m.csv")
    assert done.err
    for control in ("\x1b[31m", "\x9b", "\u202e"):
        assert control not in done.err


@pytest.mark.parametrize("command", ["plan job.toml", "plan job.toml --json", "status job.toml", "schema"])
def test_a_closed_pipe_is_no_traceback(place: Place, command: str) -> None:
    place.texts(*(f"text {n}" for n in range(3)))
    if command.startswith("status"):
        place.run()
    with place.start(*command.split()) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert process.wait(20) in (0, 1)


def test_a_run_whose_reader_has_gone_still_asks_and_writes_everything(place: Place) -> None:
    place.texts("one", "two")
    with place.start("run", "job.toml", "--json") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stderr.close()
        process.wait(20)
    assert place.column("status") == ["ok", "ok"]
    assert place.summary()["exit_code"] == 0


def test_closed_streams_are_no_fault(place: Place) -> None:
    place.texts("one", "two")
    run = f"{sys.executable} -m batchrun run job.toml <&- >&- 2>&-"
    done = subprocess.run(run, shell=True, cwd=place.folder, env=place.environment, check=False)
    assert done.returncode == 0
    assert place.column("status") == ["ok", "ok"]


def test_version_and_help_name_what_there_is(place: Place) -> None:
    assert place.command("--version").out.split()[-1] == __version__
    help_text = place.command("--help").out
    listed = help_text.partition("Commands:")[2]
    assert re.findall(r"^  (\w+) {2,}\S", listed, re.MULTILINE)[:4] == ["init", "plan", "check", "run"]
    assert "..." not in listed
    assert place.command("run", "-h").code == 0


def test_help_takes_less_than_150_milliseconds_of_cpu() -> None:
    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "batchrun", "--help"], stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(3)) < 0.15


def test_help_imports_nothing_heavy() -> None:
    heavy = "{'polars', 'pyarrow', 'httpx', 'starlette', 'uvicorn', 'rich', 'msgspec', 'minijinja', 'uvloop'}"
    code = f"import sys, batchrun.cli; sys.exit(', '.join({heavy} & set(sys.modules)) or 0)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert (done.returncode, done.stderr) == (0, "")
