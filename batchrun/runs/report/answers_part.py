"""The parts "Answers" and "Evaluation"."""

from collections.abc import Iterator
from typing import Any

from batchrun.runs.report.blocks import (
    Block,
    Cell,
    bar_cell,
    bars,
    cell,
    chart,
    percent,
    significant,
    table,
    text,
    usd,
)
from batchrun.runs.report.charts import Axes, Series, number
from batchrun.runs.report.distribution import Distribution
from batchrun.runs.report.facts import Facts

MOST_BARS = 20
MOST_CLASSES = 12
MOST_CHARACTERS_OF_A_LABEL = 60
_TITLES = {
    "latency_ms": ("Latency of answers, seconds", 1000),
    "first_token_ms": ("Time to the first token, seconds", 1000),
    "input_tokens": ("Input tokens of a row", 1),
    "output_tokens": ("Output tokens of a row", 1),
}
_FLAWS = ("truncated", "empty", "refusal")


def answers_blocks(facts: Facts) -> list[Block]:
    return [*_values(facts), *_distributions(facts), *_groups(facts), *_saved(facts)]


def _values(facts: Facts) -> Iterator[Block]:
    for name, counts in facts.tally.values.items():
        if facts.job.labels is None and len(counts) > MOST_BARS:
            continue  # free texts
        most = counts.most_common(MOST_BARS)
        total = sum(counts.values())
        left = len(counts) - len(most)
        yield bars(
            "Labels" if name == "label" else "Answers" if name == "output" else f"Labels: {name}",
            [name, "rows", "share"],
            [(value or '""', count, [count, percent(count / total)]) for value, count in most],
            f"{number(left)} more values." if left else None,
        )


def _distributions(facts: Facts) -> Iterator[Block]:
    for name, distribution in facts.tally.distributions.items():
        if distribution.number:
            yield _distribution(*_TITLES[name], distribution)


def _distribution(title: str, unit: float, distribution: Distribution) -> Block:
    quantiles = ", ".join(
        f"{name} {number(significant((distribution.quantile(share) or 0) / unit))}"
        for name, share in (("median", 0.5), ("95 %", 0.95), ("99 %", 0.99))
    )
    return bars(
        title,
        ["from – below", "rows"],
        [
            (f"{number(low / unit)} – {number(high / unit)}", count, [count])
            for low, high, count in distribution.bars()
        ],
        f"{quantiles}; mean {number(significant(distribution.total / distribution.number / unit))}.",
    )


def _groups(facts: Facts) -> Iterator[Block]:
    if facts.by is None:
        return
    groups = sorted(facts.tally.groups.items(), key=lambda item: -item[1].usd)
    rows: list[tuple[str, float, list[object]]] = []
    for name, group in groups[:MOST_BARS]:
        each = significant(group.usd / group.ended) if group.ended else None
        rows.append((name or "(empty)", group.usd, [significant(group.usd), group.rows, each]))
    left = len(groups) - len(rows)
    note = f"{number(left)} more groups." if left > 0 else None
    yield bars(f"Cost by {facts.by}", [facts.by, "USD", "rows", "USD a row"], rows, note)


def _saved(facts: Facts) -> Iterator[Block]:
    rows: list[list[Any]] = []
    shared, ended = facts.rows["shared"], facts.rows["total"] - facts.rows["pending"] - facts.rows["shared"]
    spent = facts.status["usd"]["settled"]
    if shared and ended:
        rows.append(["Rows that share an answer", shared, usd(shared * spent / ended)])
    caching = facts.findings.get("caching")
    if caching is not None:
        rows.append(
            ["Input tokens read from the server's cache", caching["read_tokens"], usd(caching["saved_usd"])]
        )
    votes = facts.findings.get("labels", {}).get("votes_saved", 0)
    if votes:
        requests = facts.status["requests"]["sent"]
        rows.append(["Votes that could not change a label", votes, usd(votes * spent / requests)])
    if rows:
        yield table("Saved", ["by", "number", "about"], rows, "Amounts are estimated from mean costs.")
    flaws = {code: facts.findings["reasons"].get(code, {}).get("rows", 0) for code in _FLAWS}
    if any(flaws.values()):
        yield bars(
            "Cut, empty and refused answers", ["kind", "rows"], [(code, n, [n]) for code, n in flaws.items()]
        )


def evaluation_blocks(facts: Facts) -> list[Block]:
    """Returns the part's blocks; none for a job without an evaluation, but for the agreement of votes."""
    report = facts.findings.get("evaluation")
    if report is None:
        return [*_agreement(facts)]
    return [
        _estimate(facts, report),
        *_narrowing(facts, report),
        *_group_scores(facts, report),
        *_confusion(facts, report),
        *_agreement(facts),
    ]


def _estimate(facts: Facts, report: dict[str, Any]) -> Block:
    if report["estimate"] is None:
        return text("Score", "No row has a score yet.")
    low, high = report["interval"]
    interval = f"{report['estimate']:.3f} (95 %: {low:.3f} to {high:.3f})"
    rows = f"{report['n']:,} of {report['of']:,} rows"
    lines = [f"{report['score']} {interval} from {rows}; {report['method']}."]
    if report["missing"]:
        least, most = report["bounds"] or (0, 1)
        if_all = f"{least:.3f} if all of them were wrong, {most:.3f} if all were right"
        lines.append(f"Rows without a score: {report['missing']:,}; {if_all}.")
    if report["decided"] is not None:
        lines.append(f"Decided: the {report['score']} is {report['decided']}.")
    if facts.forecast is not None:
        lines.append(f"{facts.forecast}.")
    return text("Score", *lines, *(f"Caution: {warning}." for warning in report["warnings"]))


def _narrowing(facts: Facts, report: dict[str, Any]) -> Iterator[Block]:
    points = facts.narrowing
    if not points:
        return
    xs = [point["rows"] for point in points]
    low, high = [point["low"] for point in points], [point["high"] for point in points]
    lines = [
        Series("high", "c-band", high, low),
        Series("low", "c-band", low),
        Series(report["score"], "c-1", [point["estimate"] for point in points]),
    ]
    axes = Axes(
        (xs[0], max(xs[-1], xs[0] + 1)),
        (max(0, min(low) - 0.02), min(1, max(high) + 0.02)),
        "rows sent",
        True,
    )
    yield chart("Score and its 95 % interval", xs, lines, axes)


def _group_scores(facts: Facts, report: dict[str, Any]) -> Iterator[Block]:
    if facts.groups is None:
        return
    rows: list[tuple[str, float, list[object]]] = []
    for group in facts.groups["groups"][:MOST_BARS]:
        interval = None if group["interval"] is None else "{:.3f}–{:.3f}".format(*group["interval"])
        score = None if group["estimate"] is None else f"{group['estimate']:.3f}"
        name = "(null)" if group["group"] is None else group["group"][:MOST_CHARACTERS_OF_A_LABEL] or '""'
        rows.append((name, group["estimate"] or 0, [score, interval, f"{group['n']:,} of {group['of']:,}"]))
    left = len(facts.groups["groups"]) - len(rows)
    notes = [f"{number(left)} more groups."] if left > 0 else []
    notes += [f"Caution: {warning}." for warning in facts.groups["warnings"]]
    head = [facts.by or "", report["score"], "95 % interval", "rows"]
    yield bars(f"Score by {facts.by}", head, rows, " ".join(notes) or None)


def _confusion(facts: Facts, report: dict[str, Any]) -> Iterator[Block]:
    matrix = report.get("confusion")
    if matrix is None or not 0 < len(matrix["labels"]) <= MOST_CLASSES:
        return
    labels, most = matrix["labels"], max(map(max, matrix["counts"])) or 1
    rows = []
    for expected, counts, invalid in zip(labels, matrix["counts"], matrix["invalid"], strict=True):
        cells = [
            _matrix_cell(facts, expected, given, count, most)
            for given, count in zip(labels, counts, strict=True)
        ]
        rows.append([expected, *cells, _matrix_cell(facts, expected, "", invalid, most)])
    note = "Expected by row, label by column. A number leads to a row of its cell."
    yield table("Confusion", ["", *labels, "(invalid)"], rows, note)
    yield table(
        "Classes",
        ["class", "precision", "recall", "F1"],
        [
            [row["label"], *(_rate(row[key]) for key in ("precision", "recall", "f1"))]
            for row in report["classes"]
        ],
        "With 95 % intervals.",
    )


def _matrix_cell(facts: Facts, expected: str, given: str, count: int, most: int) -> Cell:
    first = facts.tally.pairs.get((expected, given))
    href = f"#disagree-{first[0][0]['row']}" if first and count else None
    return cell(count, href=href, heat=-(-9 * count // most))


def _rate(rate: dict[str, Any] | None) -> str | None:
    return None if rate is None else f"{rate['value']:.3f} ({rate['low']:.3f}–{rate['high']:.3f})"


def _agreement(facts: Facts) -> Iterator[Block]:
    groups = sorted(facts.tally.agreement.items(), reverse=True)
    if not groups:
        return
    most = max(group.rows for _, group in groups)
    scored = any(group.scored for _, group in groups)
    rows = [
        [
            f"{agreement:.2f}",
            bar_cell(group.rows / most),
            group.rows,
            *([f"{group.score / group.scored:.3f}" if group.scored else None] if scored else []),
        ]
        for agreement, group in groups
    ]
    note = (
        "How often the label is right at each agreement: calibrated votes are right as often as they agree."
    )
    head = ["agreement", "", "rows", *(["mean score"] if scored else [])]
    yield table("Agreement of votes", head, rows, note if scored else None)
