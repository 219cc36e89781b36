"""Charts as SVG, which show without scripts. Colors come from the page's style sheet, by classes."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape

WIDTH, HEIGHT = 480, 230
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 10, 36


@dataclass(frozen=True, slots=True)
class Series:
    """`values` has one for each x; None is a gap. `css` is the class of its color.

    With `base`, the area from there to the values is filled. `dashed`: an estimate.
    """

    name: str
    css: str
    values: Sequence[float | None]
    base: Sequence[float] | None = None
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Level:
    """A horizontal line, such as a cap."""

    name: str
    css: str
    value: float


@dataclass(frozen=True, slots=True)
class Axes:
    """Bounds in the units of the values. `x_name` stands below the axis. `log_x`: powers of ten."""

    x: tuple[float, float]
    y: tuple[float, float]
    x_name: str
    log_x: bool = False

    def across(self, x: float) -> float:
        low, high = self.x
        if self.log_x:
            low, high, x = math.log(low), math.log(high), math.log(x)
        return LEFT + (x - low) / ((high - low) or 1) * (WIDTH - LEFT - RIGHT)

    def up(self, y: float) -> float:
        low, high = self.y
        inside = min(max(y, low), high)
        return HEIGHT - BOTTOM - (inside - low) / ((high - low) or 1) * (HEIGHT - TOP - BOTTOM)


def line_chart(
    title: str,
    xs: Sequence[float],
    series: Sequence[Series],
    axes: Axes,
    levels: Sequence[Level] = (),
) -> str:
    """Returns an SVG of the series over `xs`; each x shows its values where the pointer is."""
    parts = [
        *_grid(axes),
        *(part for each in series for part in _drawn(xs, each, axes)),
        *(_level(level, axes) for level in levels),
        *_readings(xs, series, axes),
    ]
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg>"
    )


def bar(share: float) -> str:
    """Returns a horizontal bar as long as `share` (0 to 1) of its place."""
    width = round(100 * min(max(share, 0), 1), 1)
    return (
        '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect width="{width:g}" height="10"/></svg>'
    )


def _grid(axes: Axes) -> Iterator[str]:
    for value in ticks(*axes.y):
        y = f"{axes.up(value):.1f}"
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'
        yield f'<text class="tick end" x="{LEFT - 6}" y="{axes.up(value) + 4:.1f}">{number(value)}</text>'
    for value in powers(*axes.x) if axes.log_x else ticks(*axes.x):
        x = f"{axes.across(value):.1f}"
        yield f'<line class="grid" x1="{x}" x2="{x}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        yield f'<text class="tick mid" x="{x}" y="{HEIGHT - BOTTOM + 15}">{number(value)}</text>'
    yield f'<text class="tick end" x="{WIDTH - RIGHT}" y="{HEIGHT - 4}">{escape(axes.x_name)}</text>'


def _drawn(xs: Sequence[float], series: Series, axes: Axes) -> Iterator[str]:
    for part in _without_gaps(xs, series.values):
        line = " ".join(f"{axes.across(x):.1f},{axes.up(y):.1f}" for x, y in part)
        if series.base is not None:
            below = dict(zip(xs, series.base, strict=True))
            back = " ".join(f"{axes.across(x):.1f},{axes.up(below[x]):.1f}" for x, _ in reversed(part))
            yield f'<polygon class="area {series.css}" points="{line} {back}"/>'
        dashed = " dashed" if series.dashed else ""
        yield f'<polyline class="line {series.css}{dashed}" points="{line}"/>'


def _without_gaps(xs: Sequence[float], values: Sequence[float | None]) -> Iterator[list[tuple[float, float]]]:
    part: list[tuple[float, float]] = []
    for x, value in zip(xs, values, strict=True):
        if value is not None:
            part.append((x, value))
        elif part:
            yield part
            part = []
    if part:
        yield part


def _level(level: Level, axes: Axes) -> str:
    y = f"{axes.up(level.value):.1f}"
    return f'<line class="line {level.css}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'


def _readings(xs: Sequence[float], series: Sequence[Series], axes: Axes) -> Iterator[str]:
    """Yields an invisible column for each x, which shows the values there as a tooltip."""
    middles = [axes.across(x) for x in xs]
    for place, x in enumerate(xs):
        left = (middles[place - 1] + middles[place]) / 2 if place else middles[place]
        right = (middles[place] + middles[place + 1]) / 2 if place + 1 < len(xs) else middles[place]
        values = [(each.name, each.values[place]) for each in series]
        text = "\n".join(f"{name}: {number(value)}" for name, value in values if value is not None)
        title = escape(f"{number(x)} {axes.x_name}\n{text}")
        yield (
            f'<rect class="hit" x="{left:.1f}" width="{max(right - left, 1):.1f}" y="{TOP}"'
            f' height="{HEIGHT - TOP - BOTTOM}"><title>{title}</title></rect>'
        )


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Returns at most `most` + 1 round values from `low` to `high`, such as multiples of 0.2 or of 50."""
    if not high > low:
        return [low]
    least = (high - low) / most
    power = 10 ** math.floor(math.log10(least))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(place * step, 12) for place in range(first, last + 1)]


def powers(low: float, high: float) -> list[float]:
    """Returns 1, 2 and 5 times the powers of ten from `low` to `high`, fewer over a long range."""
    steps = (1, 2, 5) if high / low < 300 else (1,)
    found = [step * 10.0**power for power in range(math.floor(math.log10(low)), 13) for step in steps]
    return [value for value in found if low <= value <= high]


def number(value: float) -> str:
    """Returns a number for people: four significant digits, with commas between thousands."""
    if abs(value) >= 1000 or value == int(value):
        return f"{value:,.0f}"
    shown = f"{value:.4g}"
    return f"{float(shown):.10f}".rstrip("0").rstrip(".") if "e" in shown else shown


def up_to(values: Sequence[float], least: float = 0.0) -> float:
    """Returns a bound for an axis: a little above the highest value."""
    return max([least, *values]) * 1.05 or 1.0


Scale = tuple[str, Callable[[float], float]]


def time_scale(seconds: float) -> Scale:
    """Returns the unit in which so many seconds read well, and the conversion to it."""
    for unit, size, least in (("hours", 3600, 10_800), ("minutes", 60, 180)):
        if seconds >= least:
            return unit, partial(_times, 1 / size)
    return "seconds", partial(_times, 1)


def _times(factor: float, value: float) -> float:
    return value * factor
