"""The benchmark's results as Markdown."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.peers import Loop, Peer


@dataclass(frozen=True)
class Goal:
    """A measured value and its bound: at most `most` or at least `least`."""

    what: str
    detail: str
    value: float
    most: float | None = None
    least: float | None = None

    @property
    def met(self) -> bool:
        return (self.most is None or self.value <= self.most) and (
            self.least is None or self.value >= self.least
        )

    @property
    def verdict(self) -> str:
        """ "met", or by how much the bound is missed."""
        bound = self.most or self.least
        return "met" if self.met or not bound else f"missed by {abs(self.value / bound - 1):.0%}"


def goals_table(goals: list[Goal]) -> str:
    lines = ["| what | measured | | goal | |", "| --- | --- | --- | --- | --- |"]
    for goal in goals:
        bound = f"at most {goal.most:g}" if goal.most is not None else f"at least {goal.least:g}"
        lines.append(f"| {goal.what} | {goal.value:.3g} | {goal.detail} | {bound} | {goal.verdict} |")
    return "\n".join(lines) + "\n"


def peers_table(
    own: Mapping[str, Loop], peers: Mapping[Peer, Loop | str], version_of: Callable[[Peer], str]
) -> str:
    lines = ["| | CPU per row, us | rows a second | peak memory, MB |", "| --- | --- | --- | --- |"]
    lines += [_row(name, loop) for name, loop in own.items()]
    for peer, loop in peers.items():
        name = f"{peer.name} ({version_of(peer)})"
        lines.append(_row(name, loop) if isinstance(loop, Loop) else f"| {name} | not measured: {loop} | | |")
    return "\n".join(lines) + "\n"


def _row(name: str, loop: Loop) -> str:
    rows = f"{loop.rows_per_second:,.0f}"
    return f"| {name} | {loop.cpu_us_per_row:,.0f} | {rows} | {loop.peak_mb:.0f} ({loop.rows:,} rows) |"
