"""Writes docs/cli.md: the help of every command, as `batchrun COMMAND --help` prints it.

python docs/generate_cli.py
"""

from pathlib import Path

import click

from batchrun.cli import batchrun_group

PAGE = Path(__file__).with_name("cli.md")

INTRODUCTION = """\
# Commands

| | |
| --- | --- |
| [init](#batchrun-init), [plan](#batchrun-plan), [run](#batchrun-run) | from a table to a job file, to what it will cost, to answers |
| [status](#batchrun-status), [export](#batchrun-export) | where a job stands; the output as it stands |
| [evaluate](#batchrun-evaluate), [compare](#batchrun-compare) | what the answers so far tell about all rows |
| [review](#batchrun-review) | rows for a person's eye, and [how many labels are right](labels.md#review) |
| [sandbox](#batchrun-sandbox), [schema](#batchrun-schema) | the provider's API on this machine; the schema of job files |

Everything for people goes to stderr, results (`--json`, `plan`, `status`, `evaluate`, `compare`, `review --read`, `schema`) to stdout. The
blocks below are what `--help` prints.

## Exit codes

| code | meaning | run again? |
| --- | --- | --- |
| 0 | every row has an answer | nothing left |
| 1 | a fault of batchrun or of this machine (disk full, journal damaged) | after the fault is mended |
| 2 | the command, the job file or the input is wrong; nothing was sent | after a correction |
| 3 | finished, some rows failed or are invalid | `--retry-failed` asks for them again |
| 4 | stopped at a cap of the budget | continues when the cap allows |
| 5 | the endpoint won't have it: key, credits, permission, wrong URL, or down for longer than patience lasts | continues |
| 75 | another run of this output holds the lock | later |
| 130, 143 | interrupted (SIGINT, SIGTERM): requests in flight were drained for up to 30 s; a second signal stops at once, and leaves the output as it was | continues |

## Cron

`batchrun run JOB.toml -q` is made for cron, systemd and CI: safe to repeat, it asks only for what has no answer yet,
and it is silent unless something needs a person.

| how it ended | `-q` says | since |
| --- | --- | --- |
| 0, every row has an answer | nothing | |
| 3, rows have failed or are invalid | why, and how to ask again | somebody has to look at them |
| 3, only rows that came while the run was going on are left | nothing | the next run asks for them |
| 4, at `budget.usd_per_day`, `usd_per_run`, `rows` or `seconds` | nothing | the next run goes on by itself |
| 4, at one of these caps, but no row has had an answer for a day | which cap | it is too small for any row |
| 4, at any other cap | which cap, and how to go on | somebody has to raise it |
| 1, 2, 5, 75, 130, 143 | what is wrong, and what to do | |

`needs_person` in `summary.json` says the same, and `on_finish.when = "trouble"` goes by it. [`on_finish`](job-file.md#being-told)
tells a command or a URL. Examples: [jobs/crontab](../jobs/crontab), and a systemd
[timer](../jobs/batchrun-tickets.timer) with its [service](../jobs/batchrun-tickets.service).

## What happens on the way

- On a terminal, a display shows progress; elsewhere there is a line a minute and one at the end. `TERM=dumb` is no
  terminal. Nothing is coloured, with or without `NO_COLOR`.
- `-v` says each failed attempt on a line of its own: its number, what went wrong, how long the endpoint asks to wait, and
  whether its row is asked again. There is no moving display then.
- `--log-file PATH` appends one JSON object a line: `run started`, `attempt failed`, `run ended` with the whole summary,
  `run failed` for a fault; each with `at`, the time in UTC. At 10 MB the file becomes `PATH.1`, and `PATH.1` becomes
  `PATH.2`. It is for its owner alone (0600) and holds no prompts, answers or keys. The run's folder has the same log by
  itself, `log.jsonl`.

## Shell completion

Commands, options and files, by click. For bash, in `~/.bashrc`:

```sh
eval "$(_BATCHRUN_COMPLETE=bash_source batchrun)"
```

For zsh, in `~/.zshrc`, the same with `zsh_source`. For fish:

```sh
_BATCHRUN_COMPLETE=fish_source batchrun > ~/.config/fish/completions/batchrun.fish
```
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
