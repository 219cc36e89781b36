"""Evaluations in words, for the end of a run and for the commands that look at them."""

from collections.abc import Iterator
from typing import Any

from batchrun.amounts import usd_figure

MOST_CLASSES = 12
MOST_SHOWN = 40
"""More classes or groups than these are in the JSON only."""
MOST_NAME = 40


def score_lines(report: dict[str, Any]) -> Iterator[str]:
    """Yields the estimate, the missing rows and the cost: each line under its name."""
    name = report["score"]
    if report["estimate"] is None:
        yield f"{name:<9} not known: no row has a score yet"
    else:
        low, high = report["interval"]
        yield (
            f"{name:<9} {report['estimate']:.3f} (95 %: {low:.3f} to {high:.3f}) from {report['n']:,} of "
            f"{report['of']:,} rows; {report['method']}"
        )
    if report["missing"]:
        low, high = report["bounds"] or (0, 1)
        reasons = ", ".join(f"{reason} x{n:,}" for reason, n in report["unscored"].items())
        yield (
            f"missing   {report['missing']:,} rows without a score ({reasons}): "
            f"{low:.3f} if all of them were wrong, {high:.3f} if all were right"
        )
    if report["not_scorable"]:
        yield f"left out  {report['not_scorable']:,} rows without an expected answer"
    usd = report["usd"]
    if usd["per_row"] is not None:
        yield (
            f"cost      {usd_figure(usd['so_far'], 4)} USD for the sample, "
            f"{usd_figure(usd['per_row'], 4)} a row; "
            f"all {report['of']:,} rows would cost about {usd_figure(usd['whole'], 4)} USD"
        )
    for warning in report["warnings"]:
        yield f"caution   {warning}"


def class_lines(report: dict[str, Any]) -> Iterator[str]:
    """Yields precision, recall and F1 of each class, and the confusion matrix."""
    classes = report.get("classes", [])
    if not 0 < len(classes) <= MOST_CLASSES:
        return
    width = max(9, *(len(row["label"]) for row in classes))
    yield f"{'class':<{width}}  expected  answered  precision             recall                F1"
    for row in classes:
        rates = "  ".join(f"{_rate(row[key]):<20}" for key in ("precision", "recall", "f1"))
        yield f"{row['label']:<{width}}  {row['expected']:>8,}  {row['said']:>8,}  {rates}".rstrip()
    yield ""
    yield from _matrix(report["confusion"], width)


def comparison_lines(comparison: dict[str, Any], names: tuple[str, str]) -> Iterator[str]:
    """Yields both sides, their difference, and its certainty."""
    for side, name in zip(("a", "b"), names, strict=True):
        yield f"{side.upper()}         {_side(comparison['score'], comparison[side])}: {name}"
    if comparison["difference"] is None:
        yield "A - B     not known: no row has a score from both"
        return
    low, high = comparison["interval"]
    yield (
        f"A - B     {comparison['difference']:+z.3f} (95 %: {low:+z.3f} to {high:+z.3f}) "
        f"on {comparison['n']:,} "
        f"rows that both have scored, of {comparison['of']:,}; {comparison['method']}"
    )
    yield (
        f"p-value   {_p_value(comparison['p_value'])}, {comparison['test']}: A scores higher in "
        f"{comparison['a_higher']:,} rows, B in {comparison['b_higher']:,}"
    )
    for warning in comparison["warnings"]:
        yield f"caution   {warning}"
    yield comparison["verdict"]


def group_lines(report: dict[str, Any]) -> Iterator[str]:
    """Yields the estimate of each group, the largest first."""
    if "by" not in report:
        return
    column, groups = report["by"]["column"], report["by"]["groups"]
    shown = groups[:MOST_SHOWN]
    names = [_group_name(group["group"]) for group in shown]
    width = max(9, *(len(name) for name in (column, *names)))
    yield f"{column:<{width}}  rows             {report['score']:<20}  cost"
    for name, group in zip(names, shown, strict=True):
        rows = f"{group['n']:,} of {group['of']:,}"
        cost = f"{usd_figure(group['usd'], 4)} USD"
        yield f"{name:<{width}}  {rows:<15}  {_estimate(group):<20}  {cost}"
    if more := len(groups) - len(shown):
        yield f"{more:,} more groups: --json has them"
    for warning in report["by"]["warnings"]:
        yield f"caution   {warning}"


def _group_name(name: str | None) -> str:
    if name is None:
        return "(null)"
    return f"{name[:MOST_NAME]}…" if len(name) > MOST_NAME else name or '""'


def _estimate(group: dict[str, Any]) -> str:
    if group["estimate"] is None:
        return "-"
    low, high = group["interval"]
    return f"{group['estimate']:.3f} ({low:.3f}-{high:.3f})"


def _side(score: str, side: dict[str, Any]) -> str:
    texts = [f"{score} not known" if side["estimate"] is None else f"{score} {side['estimate']:.3f}"]
    texts.append(f"{usd_figure(side['usd'], 4)} USD")
    if side["usd_per_row"] is not None:
        texts.append(f"{usd_figure(side['usd_per_row'], 4)} a row")
    if side["usd_per_correct"] is not None:
        texts.append(f"{usd_figure(side['usd_per_correct'], 4)} for each correct answer")
    return ", ".join(texts)


def _rate(rate: dict[str, Any] | None) -> str:
    return "-" if rate is None else f"{rate['value']:.3f} ({rate['low']:.3f}-{rate['high']:.3f})"


def _p_value(value: float) -> str:
    return "below 0.0001" if value < 0.0001 else f"{value:.4f}"


def _matrix(confusion: dict[str, Any], width: int) -> Iterator[str]:
    labels = confusion["labels"]
    heads = [*labels, "(invalid)"]
    cells = [max(len(head), 6) for head in heads]
    columns = "  ".join(f"{head:>{cell}}" for head, cell in zip(heads, cells, strict=True))
    yield f"{'expected':<{width}}  {columns}"
    for label, counts, invalid in zip(labels, confusion["counts"], confusion["invalid"], strict=True):
        row = "  ".join(f"{n:>{cell},}" for n, cell in zip([*counts, invalid], cells, strict=True))
        yield f"{label:<{width}}  {row}"
