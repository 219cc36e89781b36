"""Writes docs/cli.md: the help of every command, as `batchrun COMMAND --help` prints it.

python docs/generate_cli.py
"""

from pathlib import Path

import click

from batchrun.cli import batchrun_group
from batchrun.job.caps import CAPS

PAGE = Path(__file__).with_name("cli.md")

INTRODUCTION = """\
# Commands

| | |
| --- | --- |
| [check](#batchrun-check) | sends one row end to end (key, address, model) and checks the whole journal |
| [init](#batchrun-init), [plan](#batchrun-plan), [run](#batchrun-run) | write a job file for a table, say what it will cost, run it |
| [status](#batchrun-status), [export](#batchrun-export) | print the state of a job; write the output from the journal |
| [show](#batchrun-show) | prints [rows to read](looking.md): prompt, answer, label, reason, cost |
| [report](#batchrun-report) | writes [a page about a job](looking.md#a-page-about-a-job) as one HTML file |
| [view](#batchrun-view) | shows jobs in the browser, [live](looking.md#a-live-page), with a table of all rows |
| [set](#batchrun-set) | sets [caps and limits of the run that is going on](#changing-a-run-that-is-going-on), or lets it stop |
| [settle](#batchrun-settle) | books uncertain spend as the provider's bill has it |
| [pool](#batchrun-pool) | makes and shows [one budget for several jobs](guarantees.md#one-budget-for-several-jobs) |
| [evaluate](#batchrun-evaluate), [compare](#batchrun-compare) | estimate the score of all rows from the answers so far; compare two jobs |
| [race](#batchrun-race) | finds [the best of several jobs](evaluation.md#a-race) under one cap |
| [review](#batchrun-review) | writes rows for a person to check, and says [how many labels are right](labels.md#review) |
| [worker](#batchrun-worker) | sends requests for a run [on another machine](cluster.md) |
| [sandbox](#batchrun-sandbox), [schema](#batchrun-schema) | serve the provider's API on this machine; print the schema of job files |
| [help](#batchrun-help) | show the help of a command |

Text for people goes to stderr, results (`--json`, `plan`, `status`, `show`, `evaluate`, `compare`, `review --read`, `schema`) to stdout. The
blocks below are what `--help` prints.

## Exit codes

| code | meaning | run again? |
| --- | --- | --- |
| 0 | every row has an answer | nothing left |
| 1 | a fault of batchrun or of this machine (disk full, journal damaged) | after the fault is fixed |
| 2 | the command, the job file or the input is wrong; nothing was sent | after a correction |
| 3 | finished, some rows failed or are invalid | `--retry-failed` sends them again |
| 4 | stopped at a cap of the budget | continues when the cap allows |
| 5 | the endpoint refuses: key, credits, permission, wrong URL; or it is down for longer than `retry.outage_seconds`, or nothing usable comes back | continues |
| 75 | another run of this output holds the lock | later |
| 129, 130, 143 | interrupted (SIGHUP, SIGINT, SIGTERM): requests in flight were drained for up to 30 s; a second signal, SIGQUIT (131) and SIGXCPU (152) stop at once and leave the output as it was | continues |

## Changing a run that is going on

```sh
batchrun set reviews.toml budget.usd=5 limits.concurrency=20   # from another shell
batchrun set reviews.toml stop=true                            # as Ctrl-C: requests in flight end, the output is written
```

A run takes new values of [budget] and [limits] within a second, as long as it sends, and notes in its journal who set what, when and from which value.
`batchrun set` waits for that and says what came of it. The run's own display and log, `status`, the
report and `adjustments` in `summary.json` tell it too.

- **A raised cap** lets rows go on that wait at the cap for requests in flight. A run that has begun to end at its cap ends; the next one continues.
- **A cap below what is spent** stops the run as any cap does. Requests that were reserved before the change are still sent.
- **The job file is not changed.** The next run has its values again, so a job that stops at its cap there stops at once: write the new value there too.
- A cap on USD, credits or tokens can't be added to a run that has reserved no worst case for it, and no cap or limit can be removed. Other
  keys decide what is sent or how it is written: the next run takes them.

It ends with 0 if the run has taken the values, with 2 if no run is going on or the run refuses (the message has the reason), with 75 if the run
takes nothing within five seconds, as while it writes its output: then nothing was set.

## Cron

`batchrun run JOB.toml -q` is made for cron, systemd and CI: it is safe to repeat, sends only rows without an answer,
and is silent unless a person has to act.

| end of the run | `-q` prints | why |
| --- | --- | --- |
| 0, every row has an answer | nothing | |
| 3, rows have failed or are invalid | the reason, and how to send them again | a person has to look at them |
| 3, only rows that came during the run are left | nothing | the next run sends them |
| 4, at {self_clearing} | nothing | the next run continues by itself |
| 4, at one of these caps, but no row has had an answer for a day | which cap | it is too small for any row |
| 4, at any other cap | which cap, and how to continue | a person has to raise it |
| 1, 2, 5, 75, 129, 130, 143 | what is wrong and what to do | |

`needs_attention` in `summary.json` says the same, and `on_finish.when = "trouble"` depends on it. [`on_finish`](job-file.md#being-told)
calls a command or a URL. Examples: [jobs/crontab](../jobs/crontab), and a systemd
[timer](../jobs/batchrun-tickets.timer) with its [service](../jobs/batchrun-tickets.service).

## Output during a run

- On a terminal, a display shows progress; elsewhere there is a line a minute and one at the end. `TERM=dumb` is not a
  terminal. There are no colors, with or without `NO_COLOR`.
- `-v` prints a line for each failed attempt: its number, the failure, the wait that the endpoint requests, and
  whether its row is sent again. There is no moving display then.
- `--log-file PATH` appends one JSON object a line: `run started`, `attempt failed`, `run ended` with the whole summary,
  `run failed` for a fault, `worker joined` and `worker left` with [workers](cluster.md); each with `at`, the time in UTC. At 10 MB the file becomes `PATH.1`, and `PATH.1` becomes
  `PATH.2`. Only its owner can read it (0600), and it holds no prompts, answers or keys. The run's folder always has the same
  log, `log.jsonl`.

## Shell completion

click completes commands, options, files, the keys of `--set` and the kinds of `--fault`. For bash, in `~/.bashrc`:

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
    *others, last = [f"`{cap.name}`" for cap in CAPS if cap.self_clearing]
    introduction = INTRODUCTION.replace("{self_clearing}", f"{', '.join(others)} or {last}")
    blocks = [introduction, _block("batchrun", batchrun_group)]
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
