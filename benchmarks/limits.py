"""The pace of sending before servers that refuse requests, under a virtual clock.

python -m benchmarks.limits [--only TEXT] [--seeds 1-3] [--full] [--beside CHECKOUT] [--processes 2]

Prints for each server the goodput as a share of the most that could have been had, the share of requests that
were refused, and the longest stall; the worst of the seeds. `--full` takes each of the latencies 0.2 and 5 s
with 64 and 1,000 requests in flight, else it is 0.2 s and 64. `--beside` runs the limiter of another checkout
too.
"""

import argparse
import json
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

Setting = tuple[int, float]
"""Requests in flight, and the latency in seconds."""
QUICK: list[Setting] = [(64, 0.2)]
FULL: list[Setting] = [(64, 0.2), (1_000, 0.2), (64, 5.0), (1_000, 5.0)]
MOST_REQUESTS = 40_000
"""A run that could send more is cut short: it costs some 40 us of processor time a request."""
LEAST_SECONDS = 20.0


def measured(work: tuple[int, Setting, int]) -> dict[str, Any]:
    """One run, as a dict of `Result`'s fields."""
    from dataclasses import replace

    from benchmarks.limit_servers import Outage
    from benchmarks.limit_simulation import Simulation
    from benchmarks.limit_table import lines

    number, (in_flight, latency), seed = work
    case, _ = lines()[number]
    server = case.make(seed)
    if server.best(case.seconds) == float("inf") and not isinstance(server, Outage):
        enough = MOST_REQUESTS * (latency + 0.02) / in_flight
        case = replace(case, seconds=min(case.seconds, max(LEAST_SECONDS, 6 * latency, enough)))
    return asdict(Simulation(case, in_flight, latency, seed).run())


def worst(results: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        key: (min if key in ("goodput", "per_second") else max)(result[key] for result in results)
        for key in results[0]
    }


def run_all(only: str, settings: list[Setting], seeds: list[int], processes: int) -> dict[str, Any]:
    from benchmarks.limit_table import lines

    numbers = [n for n, (case, _) in enumerate(lines()) if only in case.name]
    work = [(n, setting, seed) for n in numbers for setting in settings for seed in seeds]
    if processes > 1:
        with ProcessPoolExecutor(processes) as pool:
            results = list(pool.map(measured, work))
    else:
        results = [measured(each) for each in work]
    cells: dict[str, list[dict[str, Any]]] = {}
    for (number, setting, _), result in zip(work, results, strict=True):
        cells.setdefault(json.dumps([number, *setting]), []).append(result)
    return {cell: worst(each) for cell, each in cells.items()}


def print_table(cells: dict[str, Any], other: dict[str, Any]) -> None:
    from benchmarks.limit_table import lines

    before = " | goodput before | refused before" if other else ""
    print(f"| server | in flight | latency | goodput | goal | refused | goal | stall{before} |")
    print("| --- " * (8 + 2 * bool(other)) + "|")
    met = 0
    for cell, result in cells.items():
        number, in_flight, latency = json.loads(cell)
        case, goal = lines()[number]
        good = result["goodput"] >= goal.goodput and result["refused"] <= goal.refused + 5e-5
        good = good and not result["failed"] and result["passed"] <= 0.03
        met += good
        extra = f" | {other[cell]['goodput']:.1%} | {other[cell]['refused']:.1%}" if other else ""
        extra += f" | {result['failed']} rows failed" if result["failed"] else ""
        extra += f" | limit passed by {result['passed']:.1%}" if result["passed"] > 0.001 else ""
        goodput = f"{result['goodput']:.1%}{'' if good else ' !'} | {goal.goodput:.0%}"
        refused = f"{result['refused']:.1%} | {goal.refused:.1%} | {result['stall']:.1f} s"
        print(f"| {case.name} | {in_flight:,} | {latency:g} s | {goodput} | {refused}{extra} |")
    print(f"{met} of {len(cells)} meet their goals")


def results_of(checkout: Path, arguments: list[str]) -> dict[str, Any]:
    """The same runs with the limiter of another checkout, whose modules need the same names."""
    here = Path(__file__).parents[1]
    program = (
        f"import sys; sys.path.insert(0, {str(checkout)!r}); import batchrun; sys.path[0] = {str(here)!r}; "
        "from benchmarks.limits import main; main()"
    )
    command = [sys.executable, "-c", program, *arguments, "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return dict(json.loads(done.stdout))


def seeds_of(text: str) -> list[int]:
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", default="", help="servers whose name contains this")
    parser.add_argument("--seeds", default="1-3", help="a seed, or the first and the last: 1-3")
    parser.add_argument("--full", action="store_true", help="all latencies and numbers in flight")
    parser.add_argument("--beside", type=Path, metavar="CHECKOUT")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    settings = FULL if options.full else QUICK
    cells = run_all(options.only, settings, seeds_of(options.seeds), options.processes)
    if options.json:
        print(json.dumps(cells))
        return
    arguments = ["--only", options.only, "--seeds", options.seeds, "--processes", str(options.processes)]
    arguments += ["--full"] if options.full else []
    print_table(cells, results_of(options.beside, arguments) if options.beside else {})


if __name__ == "__main__":
    main()
