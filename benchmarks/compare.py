"""Two checkouts by turns: `python -m benchmarks.compare REV_A REV_B` shows what a change gains.

Both run the same job against the same server, one after the other, so that they see the same machine. A gain
counts as shown where the two ranges don't overlap.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.jobs import Jobs
from benchmarks.processes import Usage, measure
from benchmarks.server import BenchmarkError, Server, compile_server, serving


@dataclass(frozen=True)
class Pair:
    """One run of each of the two revisions, one right after the other."""

    before: Usage
    after: Usage


def main() -> int:
    """Prints medians and ranges. Exit code 2 where nothing could be measured."""
    options = _options()
    try:
        with tempfile.TemporaryDirectory(prefix="batchrun-compare-", dir=options.folder) as name:
            folder = Path(name)
            trees = [_checkout(revision, folder) for revision in options.revisions]
            with serving(compile_server(folder)) as server:
                pairs = _pairs(trees, Jobs(folder), server, options)
    except BenchmarkError as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2
    print(comparison(options.revisions, pairs, options.rows))
    return 0


def comparison(revisions: Sequence[str], pairs: Sequence[Pair], rows: int) -> str:
    """The table: for each quantity the medians, the ranges, and the ratio of the pairs."""
    quantities = {
        "CPU per row, us": lambda usage: usage.cpu / rows * 1e6,
        "wall time per row, us": lambda usage: usage.wall / rows * 1e6,
        "peak memory, MB": lambda usage: usage.peak_mb,
    }
    lines = [f"| {rows:,} rows | {revisions[0]} | {revisions[1]} | ratio |", "| --- | --- | --- | --- |"]
    for name, value in quantities.items():
        before = [value(pair.before) for pair in pairs]
        after = [value(pair.after) for pair in pairs]
        ratios = [second / first for first, second in zip(before, after, strict=True)]
        cells = [_median_and_range(before, 0), _median_and_range(after, 0), _median_and_range(ratios, 2)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _median_and_range(values: Sequence[float], digits: int) -> str:
    middle, least, most = (f"{value:.{digits}f}" for value in (median(values), min(values), max(values)))
    return f"{middle} ({least}-{most})"


def _pairs(trees: Sequence[Path], jobs: Jobs, server: Server, options: argparse.Namespace) -> list[Pair]:
    pairs = []
    for number in range(1, options.rounds + 1):
        print(f"round {number} of {options.rounds}", file=sys.stderr)
        before, after = (_run(tree, jobs, server, options) for tree in trees)
        pairs.append(Pair(before, after))
    return pairs


def _run(tree: Path, jobs: Jobs, server: Server, options: argparse.Namespace) -> Usage:
    job = jobs.new(server, options.rows, options.in_flight)
    # -P: the working folder's batchrun must not win over that of the checkout.
    command = ["env", f"PYTHONPATH={tree}", sys.executable, "-P", "-m", "batchrun", "run", str(job.file)]
    return measure(command, job.log)


def _checkout(revision: str, folder: Path) -> Path:
    """The package as it was at `revision`, a commit or `.` for the working folder."""
    if revision == ".":
        return Path.cwd()
    tree = Path(tempfile.mkdtemp(dir=folder))
    archive = subprocess.run(["git", "archive", revision, "batchrun"], capture_output=True, check=False)
    if archive.returncode:
        raise BenchmarkError(f"{revision}: {archive.stderr.decode().strip()}")
    subprocess.run(["tar", "-x", "-C", str(tree)], input=archive.stdout, check=True)
    return tree


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("revisions", nargs=2, metavar="REV", help="a commit, or . for the working folder")
    parser.add_argument("--rows", type=int, default=20_000, help="rows of a run (20,000)")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each revision (5)")
    parser.add_argument("--in-flight", type=int, default=256, help="requests in flight (256)")
    parser.add_argument("--folder", help="where inputs, journals and outputs go for the time")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
