"""Writes docs/cli.md: the help of every command, as `batchrun COMMAND --help` prints it.

python docs/generate_cli.py
"""

from pathlib import Path

import click

from batchrun.cli import batchrun_group

PAGE = Path(__file__).with_name("cli.md")

INTRODUCTION = """\
# Commands

What each command prints with `--help`. Everything for people goes to stderr, results (`--json`, `plan`,
`status`, `schema`) to stdout. What the exit codes mean:

| code | meaning | run again? |
| --- | --- | --- |
| 0 | every row has an answer | nothing left |
| 1 | a fault of batchrun or of this machine (disk full, journal damaged) | after the fault is mended |
| 2 | the command, the job file or the input is wrong; nothing was sent | after a correction |
| 3 | finished, some rows failed | `--retry-failed` asks for them again |
| 4 | stopped at a cap of the budget | continues when the cap allows |
| 5 | the endpoint won't have it: key, credits, permission, wrong URL, or down for longer than patience lasts | continues |
| 75 | another run of this output holds the lock | later |
| 130, 143 | interrupted (SIGINT, SIGTERM): requests in flight were drained for up to 30 s; a second signal stops at once, and leaves the output as it was | continues |
"""


def cli_page() -> str:
    """The whole page."""
    blocks = [INTRODUCTION, _block("batchrun", batchrun_group)]
    blocks += [
        _block(f"batchrun {name}", command) for name, command in sorted(batchrun_group.commands.items())
    ]
    return "\n".join(blocks)


def _block(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=name, terminal_width=100, max_content_width=100)
    context.help_option_names = ["-h", "--help"]
    return f"## {name}\n\n```text\n{command.get_help(context)}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(cli_page(), encoding="utf-8")
