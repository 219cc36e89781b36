"""Simulates whole runs, or tells the history of one seed.

python -m proofs.simulation [--seeds N]
python -m proofs.simulation --seed N [--planted TEXT]
"""

import sys
import time

import click

from proofs.results import table
from proofs.simulation.campaign import prove_simulation
from proofs.simulation.parts import Parts
from proofs.simulation.planted import PLANTED
from proofs.simulation.shrinking import replayed, shrunk


@click.command()
@click.option("--seeds", default=1_000, show_default=True, type=click.IntRange(1), help="Histories.")
@click.option("--seed", type=click.IntRange(0), help="Tell this history; a failing one is shrunk first.")
@click.option("--planted", help="Part of a planted bug's name, such as 'retry': with this bug.")
def simulate(seeds: int, seed: int | None, planted: str | None) -> None:
    """Simulate whole runs from seeds; exit with 1 if a promise is broken."""
    parts = Parts() if planted is None else next(each for name, each in PLANTED.items() if planted in name)
    if seed is not None:
        sys.exit(_tell(seed, parts))
    started = time.monotonic()
    results = prove_simulation(lambda text: click.echo(text, err=True), seeds)
    click.echo(table(results))
    click.echo(f"{time.monotonic() - started:.0f} s")
    sys.exit(0 if all(result.kept for result in results) else 1)


def _tell(seed: int, parts: Parts) -> int:
    outcome = replayed(seed, parts)
    if outcome.violation is not None:
        click.echo(
            f"Seed {seed} breaks a promise after {outcome.counts['steps']} steps; shrinking it.", err=True
        )
        outcome = shrunk(seed, outcome, parts)
    click.echo("\n".join(outcome.trace))
    click.echo(f"\n{outcome.violation or 'No promise is broken.'}")
    return 0 if outcome.violation is None else 1


if __name__ == "__main__":
    simulate()
