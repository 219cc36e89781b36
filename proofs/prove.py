"""Proves the promises of docs/guarantees.md with real processes, and prints the numbers as one table.

python -m proofs.prove [--kills 200] [--cluster-kills 60] [--only NAME]...
"""

import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import click

from proofs.budget import prove_budget
from proofs.cluster import prove_cluster
from proofs.kills import prove_kills
from proofs.results import Result, Say, table
from proofs.simulation.campaign import prove_simulation
from proofs.size import prove_size
from proofs.suites import prove_commands, prove_properties, prove_slow
from proofs.tables import prove_tables
from proofs.wire import prove_wire
from proofs.workers import prove_workers


class Kills(NamedTuple):
    """How many there are at least: of runs, and of the processes of a Ray cluster."""

    runs: int
    cluster: int


PROOFS: dict[str, Callable[[Say, Kills], list[Result]]] = {
    "kills": lambda say, kills: prove_kills(say, kills.runs),
    "workers": lambda say, _kills: prove_workers(say),
    "cluster": lambda say, kills: prove_cluster(say, kills.cluster),
    "budget": lambda say, _kills: prove_budget(say),
    "simulation": lambda say, _kills: prove_simulation(say),
    "properties": lambda say, _kills: prove_properties(say),
    "commands": lambda say, _kills: prove_commands(say),
    "slow": lambda say, _kills: prove_slow(say),
    "tables": lambda say, _kills: prove_tables(say),
    "wire": lambda say, _kills: prove_wire(say),
    "size": lambda say, _kills: prove_size(say),
}


@click.command()
@click.option("--kills", default=200, show_default=True, type=click.IntRange(1), help="Kills at least.")
@click.option(
    "--cluster-kills",
    default=60,
    show_default=True,
    type=click.IntRange(1),
    help="Of a Ray cluster's processes.",
)
@click.option("--only", multiple=True, type=click.Choice(list(PROOFS)), help="This proof alone. Repeatable.")
def prove(kills: int, cluster_kills: int, only: Sequence[str]) -> None:
    """Run the proofs; exit with 1 if a promise is broken. Takes an hour on two cores."""
    os.environ["BATCHRUN_FORK"] = "0"
    started = time.monotonic()
    results: list[Result] = []
    for name in only or PROOFS:
        results += PROOFS[name](_saying(name, started), Kills(kills, cluster_kills))
    click.echo(table(results))
    promised = [result for result in results if result.promise]
    broken = [result for result in promised if not result.kept]
    click.echo(f"\n{len(promised) - len(broken)} of {len(promised)} promises kept.")
    click.echo(f"{time.monotonic() - started:.0f} s on {_machine()}.")
    sys.exit(1 if broken else 0)


def _saying(name: str, started: float) -> Say:
    return lambda text: click.echo(f"{time.monotonic() - started:5.0f} s  {name}: {text}", err=True)


def _machine() -> str:
    system = f"{platform.system()} {platform.machine()}"
    return f"{os.cpu_count()} cores, {system}, Python {platform.python_version()}"


if __name__ == "__main__":
    prove()
