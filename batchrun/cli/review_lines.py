"""The lines that `batchrun review` prints for people."""

from collections.abc import Iterator
from os.path import relpath
from typing import Any

from batchrun.evaluation.corrections import NONE_FITS, RIGHT
from batchrun.text import columns_of, padded

_KINDS = {"audit": "drawn at random", "invalid": "invalid", "low agreement": "with low agreement"}
_COUNTS = {
    "right": "right",
    "corrected": "corrected",
    "no_label": "where no label fits",
    "not_looked_at": "not looked at",
    "changed": "left out, since they have another label by now",
}


def written_lines(report: dict[str, Any]) -> Iterator[str]:
    rows, file = report["rows"], relpath(report["file"])
    kinds = ", ".join(f"{rows[kind]:,} {text}" for kind, text in _KINDS.items() if kind in rows)
    yield f"wrote {file}: {rows['total']:,} rows ({kinds})"
    meanings = {RIGHT: "ok where the label is right", NONE_FITS: "none where no label fits"}
    said = [text for word, text in meanings.items() if word in report["words"]]
    said.append("else the right label")
    yield f"Fill in its column correct: {', '.join(said)}; nothing where you didn't look."
    missing = [word for word in meanings if word not in report["words"]]
    if missing:
        yield f"{' and '.join(map(repr, missing))} can be a label of this job, and is read as that label."
    yield f"Then: the same command, with --read {file}"


def precision_lines(report: dict[str, Any]) -> Iterator[str]:
    rows, labels, found = report["rows"], report["labels"], report["precision"]
    counts = ", ".join(f"{rows[kind]:,} {text}" for kind, text in _COUNTS.items() if rows[kind])
    yield f"reviewed  {rows['total']:,} rows: {counts or 'none'}"
    if not labels["then"]:
        yield "None of them was drawn at random, so they say nothing about the other labels."
        return
    unchecked = found["unchecked"]
    left = f"; {unchecked:,} of the audit are not looked at" if unchecked else ""
    yield f"precision {_share(found)} of {found['of']:,} labels are right{left}"
    for each in (report.get("by_label", {}), report.get("by_column", {})):
        width = max(map(columns_of, each), default=0)
        yield from (f"  {padded(name, width)}  {_share(part)}" for name, part in each.items())
    if report.get("shares"):
        yield "shares    of all labels, and corrected by the audit:"
        yield from _share_lines(report["shares"])
    if labels["then"] != labels["now"]:
        yield (
            f"There are {labels['now']:,} labels by now; the audit was drawn from the {labels['then']:,} of "
            "then, and speaks for those."
        )


def _share_lines(shares: dict[str, dict[str, float]]) -> Iterator[str]:
    names = {name: name or "no label fits" for name in shares}
    width = max(map(columns_of, names.values()))
    for name, found in shares.items():
        interval = f"{found['low']:.1%} to {found['high']:.1%} at 95 %"
        yield f"  {padded(names[name], width)}  {found['labelled']:6.1%}  {found['share']:6.1%} ({interval})"


def _share(found: dict[str, Any]) -> str:
    if found["share"] is None:
        return "unknown"
    interval = f"{found['low']:.1%} to {found['high']:.1%}"
    return f"{found['share']:.1%} ({interval} at 95 %, by {found['right']:,} of {found['checked']:,})"
