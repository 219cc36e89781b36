"""The benchmark: `python -m benchmarks.bench` measures and prints the tables of docs/performance.md."""

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.goals import Bench, WholeTable
from benchmarks.jobs import Jobs
from benchmarks.machine import description
from benchmarks.peers import BARE_LOOP, PEERS, Loop, Peer, run_peer, version_of
from benchmarks.server import BenchmarkError, compile_server, serving
from benchmarks.tables import Goal, goals_table, peers_table

IN_FLIGHT = 256
CLOSED_LOOP_ROWS = 50_000
MILLION = 1_000_000


def main() -> int:
    """Prints the tables on stdout, what is being measured on stderr. Exit code 1 where a goal is missed."""
    options = _options()
    try:
        with tempfile.TemporaryDirectory(prefix="batchrun-bench-", dir=options.folder) as folder:
            bench = Bench(Jobs(Path(folder)), compile_server(Path(folder)))
            return _run(bench, Path(folder), options)
    except BenchmarkError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="measure this often; medians count (3)")
    parser.add_argument("--rows", type=int, default=MILLION, help="rows of the table for memory (1,000,000)")
    parser.add_argument("--full", action="store_true", help="also a table of ten times as many rows")
    parser.add_argument("--quick", action="store_true", help="one round, 100,000 rows, no peers: minutes")
    parser.add_argument("--tables", action="store_true", help="whole tables alone: memory, resume, status")
    parser.add_argument(
        "--start", action="store_true", help="what comes before requests alone: start and plan"
    )
    parser.add_argument("--folder", help="where inputs, journals and outputs go for the time (1 KB a row)")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.rows = 1, MILLION // 10
    return options


def _run(bench: Bench, folder: Path, options: argparse.Namespace) -> int:
    print(description())
    if options.tables:
        goals = _table_goals(bench, folder, options)
        print(goals_table(goals))
    elif options.start:
        goals = _start_goals(bench, folder, options)
        print(goals_table(goals))
    else:
        bare, ours = _against_bare_loop(bench, options.rounds)
        goals = _speed_goals(bench, bare, ours, options.rounds)
        goals += _start_goals(bench, folder, options) + _table_goals(bench, folder, options)
        peers = {} if options.quick else _peers(bench, options.rounds)
        goals += _peer_goals(ours, peers.get(PEERS[0]))
        print(goals_table(goals))
        print(peers_table({"batchrun, whole runs": ours, f"{BARE_LOOP.name}": bare}, peers, version_of))
    return 0 if all(goal.met for goal in goals) else 1


def _against_bare_loop(bench: Bench, rounds: int) -> tuple[Loop, Loop]:
    """Bare loop and batchrun by turns, so that both see the same machine."""
    bare, ours = [], []
    with serving(bench.program) as server:
        for _ in _rounds("bare loop and batchrun", rounds):
            bare.append(run_peer(BARE_LOOP, server, IN_FLIGHT))
            ours.append(bench.rows(server, CLOSED_LOOP_ROWS, IN_FLIGHT))
        counts = server.counts()
    print(f"The server took {counts.cpu_seconds / counts.requests * 1e6:.1f} us of CPU a request.\n")
    return _median_loop(bare), _median_loop(ours)


def _peers(bench: Bench, rounds: int) -> dict[Peer, Loop | str]:
    measured: dict[Peer, Loop | str] = {}
    for peer in PEERS:
        try:
            with serving(bench.program) as server:
                loops = [run_peer(peer, server, IN_FLIGHT) for _ in _rounds(peer.name, rounds)]
            measured[peer] = _median_loop(loops)
        except BenchmarkError as error:
            measured[peer] = str(error)
    return measured


def _speed_goals(bench: Bench, bare: Loop, ours: Loop, rounds: int) -> list[Goal]:
    few = _median_loop([bench.paced(32) for _ in _rounds("32 in flight", rounds)])
    many = _median_loop([bench.paced(4_000) for _ in _rounds("4,000 in flight", rounds)])
    share = median([bench.share_of_ideal_rate() for _ in _rounds("1 s latency", rounds)])
    return [
        Goal(
            f"CPU per row of a whole run, {IN_FLIGHT} in flight, against the bare loop",
            f"{ours.cpu_us_per_row:.0f} us against {bare.cpu_us_per_row:.0f} us",
            ours.cpu_us_per_row / bare.cpu_us_per_row,
            most=2.0,
        ),
        Goal(
            "CPU per row at 4,000 in flight, against 32",
            f"{many.cpu_us_per_row:.0f} us against {few.cpu_us_per_row:.0f} us",
            many.cpu_us_per_row / few.cpu_us_per_row,
            most=1.2,
        ),
        Goal("answers a second at 1 s latency, 2,000 in flight", f"{share * 2000:,.0f}", share, least=0.99),
    ]


def _start_goals(bench: Bench, folder: Path, options: argparse.Namespace) -> list[Goal]:
    rounds = options.rounds
    few = median([bench.few_rows().cpu for _ in _rounds("10 rows", rounds)])
    told = median([bench.help(folder).cpu for _ in _rounds("--help", rounds)])
    plans = [
        bench.plan(folder, options.rows) for _ in _rounds(f"plan of {options.rows:,} rows of CSV", rounds)
    ]
    plan, alone = sorted(plans, key=lambda pair: pair[0].cpu / pair[1].cpu)[rounds // 2]
    return [
        Goal("a whole run of 10 rows, seconds of CPU", "", few, most=0.5),
        Goal("`batchrun --help`, seconds of CPU", "", told, most=0.12),
        Goal(
            f"CPU of a plan of {options.rows:,} rows of CSV, against reading and rendering alone",
            f"{plan.cpu:.1f} s against {alone.cpu:.1f} s, {plan.peak_mb:.0f} MB",
            plan.cpu / alone.cpu,
            most=2.0,
        ),
    ]


def _table_goals(bench: Bench, folder: Path, options: argparse.Namespace) -> list[Goal]:
    table = _whole_table(bench, folder, options.rows)
    goals = [
        Goal(f"peak memory, {table.rows:,} rows, MB", "", table.run.peak_mb, most=180),
        Goal(
            f"{table.rows:,} answered rows and a few new: seconds to the first request",
            f"{table.resumed.cpu:.1f} s of CPU",
            table.resumed.wall,
            most=3.5,
        ),
        Goal("the same: peak memory of that run, MB", "", table.resumed.peak_mb, most=300),
        Goal(f"`batchrun status`, {table.rows:,} rows, seconds", "", table.status.wall, most=0.3),
    ]
    if options.full:
        larger = _whole_table(bench, folder, 10 * options.rows)
        goals += [
            Goal(
                f"peak memory of {larger.rows:,} rows, against {table.rows:,}",
                f"{larger.run.peak_mb:.0f} MB",
                larger.run.peak_mb / table.run.peak_mb,
                most=1.1,
            )
        ]
    return goals


def _whole_table(bench: Bench, folder: Path, rows: int) -> WholeTable:
    """Measures it, and prints figures without a goal on stderr."""
    _say(f"a table of {rows:,} rows")
    table = bench.whole_table(folder, rows, IN_FLIGHT)
    for what, usage in (("run", table.run), ("status", table.status), ("first new request", table.resumed)):
        figures = f"{usage.wall:.1f} s, {usage.cpu:.1f} s of CPU, {usage.peak_mb:.0f} MB"
        print(f"    {what}: {figures}", file=sys.stderr)
    return table


def _peer_goals(ours: Loop, by_hand: Loop | str | None) -> list[Goal]:
    if not isinstance(by_hand, Loop):
        return []
    dearer = by_hand.cpu_us_per_row / ours.cpu_us_per_row
    faster = ours.rows_per_second / by_hand.rows_per_second
    return [
        Goal("CPU per row of the anthropic SDK, against ours", "", dearer, least=20),
        Goal("our rows a second, against the anthropic SDK's", "", faster, least=20),
    ]


def _median_loop(loops: list[Loop]) -> Loop:
    """The loop of median CPU time; of an even number, the more expensive of the middle two."""
    return sorted(loops, key=lambda loop: loop.cpu)[len(loops) // 2]


def _rounds(what: str, rounds: int) -> range:
    _say(f"{what}, {rounds} times")
    return range(rounds)


def _say(what: str) -> None:
    print(f"measuring: {what}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
