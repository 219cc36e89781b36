"""`batchrun help`, and what the shell completes."""

from click.shell_completion import ShellComplete
from click.testing import CliRunner

from batchrun.cli import batchrun_group
from batchrun.sandbox.faults import KINDS


def completed(arguments: list[str], begun: str) -> list[str]:
    shell = ShellComplete(batchrun_group, {}, "batchrun", "_BATCHRUN_COMPLETE")
    return [item.value for item in shell.get_completions(arguments, begun)]


def test_the_shell_completes_keys_of_the_job() -> None:
    assert completed(["run", "job.toml", "--set"], "budget.usd") == [
        "budget.usd=",
        "budget.usd_per_run=",
        "budget.usd_per_day=",
    ]
    assert "labels.votes=" in completed(["plan", "--set"], "")


def test_the_shell_completes_kinds_of_faults() -> None:
    assert completed(["sandbox", "--fault"], "") == [f"{kind}=" for kind in KINDS]
    assert completed(["sandbox", "--fault"], "429") == ["429=", "429-random="]


def test_help_is_a_command_too() -> None:
    def shown(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(batchrun_group, arguments)
        return result.exit_code, result.output

    # The usage line names how the command was called.
    assert shown("help") == shown("--help")
    assert shown("help", "plan") == shown("plan", "--help")
    code, text = shown("help", "pln")
    assert code == 2
    assert "pln" in text
