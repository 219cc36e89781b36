"""The command line: parse, call, print. Heavy imports wait until a command needs them."""

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from batchrun.cli.check import check_command
from batchrun.cli.evaluate import compare_command, evaluate_command
from batchrun.cli.export import export_command
from batchrun.cli.help import help_command
from batchrun.cli.init import init_command, schema_command
from batchrun.cli.lines import say
from batchrun.cli.plan import plan_command
from batchrun.cli.pool import pool_command
from batchrun.cli.race import race_command
from batchrun.cli.report import report_command
from batchrun.cli.review import review_command
from batchrun.cli.run import run_command
from batchrun.cli.sandbox import sandbox_command
from batchrun.cli.set import set_command
from batchrun.cli.settle import settle_command
from batchrun.cli.show import show_command
from batchrun.cli.status import status_command
from batchrun.cli.view import view_command
from batchrun.cli.worker import worker_command
from batchrun.errors import EXIT_FAULT, EXIT_SIGINT, BatchrunError, cause_of
from batchrun.version import __version__


class InOrderOfUse(click.Group):
    """Lists its commands in the order of adding: the order in which a user needs them."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    cls=InOrderOfUse, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="batchrun")
def batchrun_group() -> None:
    """Send every row of a table as a prompt to a Messages API, under a budget that holds.

    \b
    batchrun init reviews.csv          write a job file for a table
    batchrun plan reviews.toml         what it will cost; sends nothing
    batchrun run reviews.toml          send every row without an answer

    Running a job again sends only the missing rows: after an interruption, for new rows, after a change.
    """


for command in (
    init_command,
    plan_command,
    check_command,
    run_command,
    status_command,
    show_command,
    report_command,
    view_command,
    set_command,
    settle_command,
    pool_command,
    export_command,
    evaluate_command,
    compare_command,
    race_command,
    review_command,
    sandbox_command,
    worker_command,
    schema_command,
    help_command,
):
    batchrun_group.add_command(command)


def main() -> NoReturn:
    """The entry point. Exits with the documented code; only a fault of batchrun itself shows a traceback."""
    _open_closed_streams()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as `nohup` has it
            signal.signal(number, _end_by_signal)
    try:
        code = batchrun_group.main(prog_name="batchrun", standalone_mode=False)
    except BatchrunError as error:
        _say(str(error))
        code = error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        code = error.exit_code
    except click.ClickException as error:
        _say(_in_two_lines(error))
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        _say(_interrupted_by(signal.SIGINT))
        code = EXIT_SIGINT
    except BrokenPipeError:
        code = EXIT_FAULT
    except MemoryError:
        _say("This process has no memory left. Free some or raise its limit, then run the same command.")
        code = EXIT_FAULT
    except OSError as error:  # stdout on a full disk
        _say(fault_of(error))
        code = EXIT_FAULT
    _drop_what_nobody_reads()
    sys.exit(code if isinstance(code, int) else 0)


def _open_closed_streams() -> None:
    """After `<&-` a run's lock would get a stream's descriptor, which no process inherits as it is."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115


def fault_of(error: OSError) -> str:
    """Returns what to say of an error that no command expected."""
    if isinstance(error, FileNotFoundError) and error.filename is None:  # os.getcwd names none
        return "The current folder has been removed. Go to another one (cd), then run the same command."
    where = error.filename or "the output of the command"
    return f"{where}: {cause_of(error)}.\nFix the cause, then run the same command."


def _drop_what_nobody_reads() -> None:
    """Without this the interpreter would flush again at its end, fail again, and exit with 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # the pipe's reader or the terminal is closed
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _say(text: str) -> None:
    for line in f"batchrun: {text}".splitlines():
        say(line, err=True)


def _in_two_lines(error: click.ClickException) -> str:
    """Returns what is wrong with the command line, and where its options are explained."""
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f"{error.format_message()}\n{error.ctx.command_path} --help lists the options."
    return error.format_message()


def _end_by_signal(number: int, _frame: FrameType | None) -> NoReturn:
    """Ends the process, but lets temporary files be removed; during sending the run drains instead."""
    _say(_interrupted_by(number))
    raise SystemExit(128 + number)


def _interrupted_by(number: int) -> str:
    """Returns what to say outside a run, which has words of its own: a plan or a report starts again."""
    return f"Interrupted by {signal.Signals(number).name}. Nothing is lost: run the same command again."
