"""The blocks of a page as plain values: tables, bars and charts, which the template shows."""

from collections.abc import Iterable, Sequence
from typing import Any

from batchrun.runs.report.charts import Axes, Level, Series, bar, line_chart, number

Block = dict[str, Any]
Cell = dict[str, Any]
"""`text`, and possibly `bar` (SVG), `heat` (0 to 9), `href`."""
MOST_NUMBERS = 30
"""Rows of the table below a chart."""


def cell(text: object, *, href: str | None = None, heat: int | None = None) -> Cell:
    return {"text": shown(text), "href": href, "heat": heat, "bar": None, "number": is_number(text)}


def bar_cell(share: float) -> Cell:
    return {"text": "", "href": None, "heat": None, "bar": bar(share), "number": False}


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def shown(value: object) -> str:
    """Returns a value as text for people; None is a dash."""
    if value is None:
        return "–"
    return number(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def table(
    title: str, head: Sequence[str], rows: Iterable[Sequence[object]], note: str | None = None
) -> Block:
    """Returns a table; a cell is a text, a number, None, or made by `cell` or `bar_cell`."""
    cells = [[each if isinstance(each, dict) else cell(each) for each in row] for row in rows]
    heads = [
        {"text": text, "number": bool(cells) and cells[0][place]["number"]} for place, text in enumerate(head)
    ]
    return {"kind": "table", "title": title, "head": heads, "rows": cells, "note": note}


def bars(
    title: str,
    head: Sequence[str],
    rows: Sequence[tuple[str, float, Sequence[object]]],
    note: str | None = None,
) -> Block:
    """Returns a table with a bar in each row: (name, length, further cells). The longest fills its place."""
    longest = max((length for _, length, _ in rows), default=0) or 1
    cells = [(name, bar_cell(length / longest), *more) for name, length, more in rows]
    return table(title, [head[0], "", *head[1:]], cells, note)


def chart(
    title: str,
    xs: Sequence[float],
    series: Sequence[Series],
    axes: Axes,
    levels: Sequence[Level] = (),
    note: str | None = None,
) -> Block:
    """Returns a chart with its legend, and its numbers as a table."""
    step = -(-len(xs) // MOST_NUMBERS) or 1
    places = sorted({*range(step - 1, len(xs), step), len(xs) - 1}) if xs else []
    rows = [(xs[place], *(each.values[place] for each in series)) for place in places]
    return {
        "kind": "chart",
        "title": title,
        "svg": line_chart(title, xs, series, axes, levels),
        "legend": [
            *({"name": each.name, "css": each.css, "dashed": each.dashed} for each in series),
            *(
                {"name": f"{level.name} {number(level.value)}", "css": level.css, "dashed": False}
                for level in levels
            ),
        ],
        "numbers": table("", [axes.x_name, *(each.name for each in series)], rows),
        "note": note,
    }


def text(title: str, *lines: str) -> Block:
    return {"kind": "text", "title": title, "lines": list(lines)}


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def significant(value: float, digits: int = 3) -> float:
    return float(f"{value:.{digits}g}")


def usd(amount: float | None) -> str:
    """Returns an amount with four significant digits, as the page writes all of them."""
    return "–" if amount is None else f"{number(amount)} USD"


def seconds_text(milliseconds: float | None) -> str:
    return "–" if milliseconds is None else f"{number(significant(milliseconds / 1000))} s"
