"""Evaluations in words, for the end of a run and for the commands that look at them."""

from collections.abc import Iterator
from typing import Any

MOST_CLASSES = 12
"""More classes than these are in the JSON only."""


def score_lines(report: dict[str, Any]) -> Iterator[str]:
    """The estimate, what is missing, and the cost: each line under its name."""
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
        yield f"left out  {report['not_scorable']:,} rows of which nothing is expected"
    usd = report["usd"]
    if usd["per_row"] is not None:
        yield (
            f"cost      {usd['so_far']:.4g} USD for the sample, {usd['per_row']:.4g} a row; "
            f"all {report['of']:,} rows would cost about {usd['whole']:.4g} USD"
        )
    for warning in report["warnings"]:
        yield f"caution   {warning}"


def class_lines(report: dict[str, Any]) -> Iterator[str]:
    """Precision, recall and F1 of each class, and the confusion matrix."""
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
    """Both sides, their difference, and how sure it is."""
    for side, name in zip(("a", "b"), names, strict=True):
        yield f"{side.upper()}         {_side(comparison['score'], comparison[side])}: {name}"
    if comparison["difference"] is None:
        yield "A - B     not known: no row has a score from both"
        return
    low, high = comparison["interval"]
    yield (
        f"A - B     {comparison['difference']:+.3f} (95 %: {low:+.3f} to {high:+.3f}) on {comparison['n']:,} "
        f"rows that both have scored, of {comparison['of']:,}; {comparison['method']}"
    )
    yield (
        f"p-value   {_p_value(comparison['p_value'])}, {comparison['test']}: A scores higher in "
        f"{comparison['a_higher']:,} rows, B in {comparison['b_higher']:,}"
    )
    for warning in comparison["warnings"]:
        yield f"caution   {warning}"


def _side(score: str, side: dict[str, Any]) -> str:
    texts = [f"{score} not known" if side["estimate"] is None else f"{score} {side['estimate']:.3f}"]
    texts.append(f"{side['usd']:.4g} USD")
    if side["usd_per_row"] is not None:
        texts.append(f"{side['usd_per_row']:.4g} a row")
    if side["usd_per_correct"] is not None:
        texts.append(f"{side['usd_per_correct']:.4g} for each correct answer")
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
