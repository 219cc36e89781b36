"""A review of the labels: writes rows for a person to a CSV file, and reads the corrections back."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from batchrun.client.request import Request
from batchrun.errors import InputError, JobError, OutputError, UsageError
from batchrun.evaluation.audit import LabelledRow, choose_for_review, precision, precision_of_each
from batchrun.evaluation.corrected_shares import corrected_shares
from batchrun.evaluation.corrections import (
    Correction,
    Drawn,
    Reviewed,
    correction,
    is_of_request,
    key_of,
    reasons,
    refuse_unclear,
    reviewed_row,
    words,
)
from batchrun.job.spec import Job, output_path, public_job
from batchrun.journal import Journal
from batchrun.labels.label import Label
from batchrun.rows.chunks import Chunk
from batchrun.rows.columns import output_batch
from batchrun.rows.dataset import Dataset, open_dataset, output_schema
from batchrun.rows.history import result_of, row_histories
from batchrun.rows.labelling import Labelling, LabelResult
from batchrun.runs.output import RowWriter
from batchrun.runs.paths import check_paths
from batchrun.runs.reading import cell_text
from batchrun.runs.run_folder import open_journal_of
from batchrun.tables.python_rows import python_rows
from batchrun.tables.sheet import read_sheet, refuse_existing, write_sheet
from batchrun.tables.writer import check_writable, replace_table
from batchrun.version import __version__

Report = dict[str, Any]

REVIEWED = pa.schema([("reviewed", pa.string()), ("looked_at", pa.bool_())])


@dataclass(frozen=True, slots=True)
class Answered:
    """A row that has ended with an answer, the `position`th of its chunk."""

    chunk: Chunk
    position: int
    digest: bytes
    text: str
    label_result: LabelResult

    @property
    def index(self) -> int:
        return self.chunk.first + self.position


def review_path(job: Job) -> Path:
    """Returns the default path of a review: `labels-review.csv` beside `labels.parquet`."""
    output = output_path(job)
    return output.with_name(f"{output.stem}-review.csv")


def write_review(job: Job, path: Path, *, rows: int, seed: int, again: bool, sandbox: bool = False) -> Report:
    """Writes the `rows` rows that a person should check first to the CSV file `path`; sends nothing.

    The same seed draws the same audit. Returns the counts as JSON-able values. Raises UsageError, OutputError
    if the file exists and `again` is not set, JournalError, StorageError.
    """
    check_paths(job, {"--to": path})
    if not again:
        refuse_existing(path)
    dataset, labelling = _open(job, sandbox)
    shown, header = shown_columns(dataset), header_of(dataset)
    counts = Counter[bool]()
    with closing(open_journal_of(job)) as journal:

        def labelled() -> Iterator[LabelledRow]:
            for row in _answered(dataset, labelling, journal, []):
                counts[row.label_result.label is not None] += 1
                yield LabelledRow(row.index, row.label_result.label is not None, row.label_result.agreement)

        chosen = choose_for_review(labelled(), rows, seed)
        if not chosen:
            raise UsageError(
                "No row has been answered yet, so there is nothing to review. First: batchrun run."
            )
        why = dict(zip([row.index for row in chosen], reasons(chosen, counts[True]), strict=True))
        found = (row for row in _answered(dataset, labelling, journal, shown) if row.index in why)
        cells = (cells_of(dataset, row, why[row.index]) for row in found)
        write_sheet(path, header, cells, replace=again)
    return {
        "file": str(path),
        "rows": dict(Counter(row.why for row in chosen)) | {"total": len(chosen)},
        "labels": counts[True],
        "invalid": counts[False],
        "words": words(labelling.parser),
    }


def read_review(job: Job, path: Path, *, corrected: Path | None = None, sandbox: bool = False) -> Report:
    """Returns the findings of the filled file `path` about all labels, as JSON-able values.

    Sends nothing and doesn't change the journal. With `corrected`, the output is written there as well, with
    the labels after the review. Raises UsageError for a file of other rows than this job's, or with a
    correction that is not a valid label.
    """
    dataset, labelling = _open(job, sandbox)
    schema = None
    if corrected is not None:
        check_paths(job, {"--corrected": corrected}, {"the review, --read": path})
        schema = output_schema(dataset.schema, REVIEWED, job.output.prefix)
        check_writable(corrected)
    reviewed = _reviewed(path, job.output.prefix)
    with closing(open_journal_of(job)) as journal:
        findings = _look_up(dataset, labelling, journal, reviewed, path)
        report = _report(findings, reviewed, labelling, path)
        if corrected is not None and schema is not None:
            _write_corrected(dataset, labelling, journal, findings, schema, corrected, report)
            report["corrected"] = str(corrected)
    return report


def _open(job: Job, sandbox: bool) -> tuple[Dataset, Labelling]:
    dataset = open_dataset(job, sandbox=sandbox)
    if dataset.job.labels is None:
        raise JobError("The job has no [labels], so there are no labels to review.")
    return dataset, dataset.labelling


def _answered(
    dataset: Dataset, labelling: Labelling, journal: Journal, columns: Sequence[str]
) -> Iterator[Answered]:
    for chunk in dataset.chunks(columns, journal):
        requests = chunk.sendable
        records = row_histories(requests, journal, labelling)
        for position, request in enumerate(chunk.requests):
            if not isinstance(request, Request):
                continue
            result = result_of(records.get(request.digest))
            if result.answered and result.label_result is not None:
                yield Answered(chunk, position, request.digest, result.text or "", result.label_result)


# The file.


def shown_columns(dataset: Dataset) -> list[str]:
    """Returns the input's columns in the file: those of the prompt."""
    return list(dataset.builder.columns) or dataset.table.schema.names


def header_of(dataset: Dataset) -> list[str]:
    """Returns the columns of the file. Raises OutputError where the input has one of them."""
    labelling, shown = dataset.labelling, shown_columns(dataset)
    prefix = dataset.job.output.prefix
    votes = ("agreement",) if labelling.votes > 1 else ()
    behind = ("output", "label", "label_error", *votes, "correct", "key")
    header = [f"{prefix}row", f"{prefix}why", *shown, *(prefix + name for name in behind)]
    twice = [name for name in shown if header.count(name) > 1]
    if twice:
        raise OutputError(
            f"The input has a column of the same name as one of the review's: {twice[0]!r}.\n"
            'Set output.prefix for the review, for example --set output.prefix="batchrun_".'
        )
    return header


def cells_of(dataset: Dataset, row: Answered, why: str) -> list[str]:
    """Returns a row of the file. `why` is the reason for which it is there."""
    labelling, shown = dataset.labelling, shown_columns(dataset)
    label_result = row.label_result
    (values,) = python_rows(row.chunk.batch.slice(row.position, 1).select(shown))
    agreement = "" if label_result.agreement is None else f"{label_result.agreement:.2f}"
    return [
        str(row.index + 1),
        why,
        *map(cell_text, values),
        row.text,
        "" if label_result.label is None else label_result.label.text,
        label_result.problem or "",
        *((agreement,) if labelling.votes > 1 else ()),
        "",
        key_of(row.digest, label_result.label),
    ]


def _reviewed(path: Path, prefix: str) -> dict[int, Reviewed]:
    """Returns the rows of the file, by their index. Raises InputError."""
    columns = [prefix + name for name in ("row", "why", "key", "correct")]
    found: dict[int, Reviewed] = {}
    for cells in read_sheet(path, columns):
        number, why, key, cell = (cells[name] for name in columns)
        row = reviewed_row(number, why, key, cell, where=str(path))
        if row.index in found:
            raise InputError(f"{path}: row {row.index + 1} appears twice.")
        found[row.index] = row
    if len({row.audit for row in found.values() if row.audit is not None}) > 1:
        raise InputError(f"{path}: its rows come from two reviews. Read each review by itself.")
    return found


# What it says.


@dataclass(slots=True)
class _Findings:
    """`labels` has what the reviewed rows were labelled, by index, but for those `changed` since.

    `corrections` belong to the rows that a person has checked; `of` counts the labels of the whole output.
    """

    labels: dict[int, Label | None] = field(default_factory=dict)
    changed: set[int] = field(default_factory=set)
    corrections: dict[int, Correction] = field(default_factory=dict)
    by_request: dict[bytes, tuple[int, Correction]] = field(default_factory=dict)
    faults: dict[int, str] = field(default_factory=dict)
    number_of_labels: int = 0
    of: Counter[str] = field(default_factory=Counter)


def _look_up(
    dataset: Dataset,
    labelling: Labelling,
    journal: Journal,
    reviewed: Mapping[int, Reviewed],
    path: Path,
) -> _Findings:
    findings = _Findings()
    has_choices = dataset.job.labels is not None and dataset.job.labels.choices is not None
    unseen = set(reviewed)
    for row in _answered(dataset, labelling, journal, []):
        if row.label_result.label is not None:
            findings.number_of_labels += 1
            if has_choices:  # there may be as many free labels as rows
                findings.of[row.label_result.label.text] += 1
        if (of_file := reviewed.get(row.index)) is not None and is_of_request(of_file.key, row.digest):
            unseen.discard(row.index)
            _take(findings, of_file, row, labelling)
    if unseen:
        raise InputError(
            f"{path}, row {min(unseen) + 1}: it is of another version of the input or the prompt,\n"
            "or of other runs (--sandbox). A new review: --again, or --to another file."
        )
    refuse_unclear(findings.faults, str(path))
    return findings


def _take(findings: _Findings, of_file: Reviewed, row: Answered, labelling: Labelling) -> None:
    label = row.label_result.label
    if of_file.key != key_of(row.digest, label):
        findings.changed.add(row.index)
        return
    findings.labels[row.index] = label
    if not of_file.cell:
        return
    label_text = correction(of_file.cell, label, labelling.parser)
    if isinstance(label_text, str):
        findings.faults[row.index] = label_text
        return
    findings.corrections[row.index] = label_text
    other, before = findings.by_request.setdefault(row.digest, (row.index, label_text))
    if _text_of(before.label) != _text_of(label_text.label):
        findings.faults[row.index] = f"the same request as row {other + 1}, and not the same label"


def _text_of(label: Label | None) -> str:
    """The empty text is not a label."""
    return "" if label is None else label.text


def _report(
    findings: _Findings, reviewed: Mapping[int, Reviewed], labelling: Labelling, path: Path
) -> Report:
    audited = {index: row.audit for index, row in reviewed.items() if row.audit is not None}
    drawn = next(iter(audited.values()), Drawn(0, 0))
    # Rows that were removed from the file, or have another label now, count as unchecked.
    unknown = [("", None)] * (drawn.number - len(audited.keys() - findings.changed))
    pairs = [
        (label, findings.corrections.get(index))
        for index, label in findings.labels.items()
        if index in audited and label is not None
    ]
    texts = [
        (label.text, None if label_text is None else _text_of(label_text.label))
        for label, label_text in pairs
    ]
    report: Report = {
        "file": str(path),
        "rows": _counts(findings, reviewed),
        "labels": {"then": drawn.labels, "now": findings.number_of_labels},
        "precision": asdict(precision([*texts, *unknown], drawn.labels)),
    }
    if findings.of:
        each = precision_of_each(texts, dict(sorted(findings.of.items())))
        report["by_label"] = {name: asdict(found) for name, found in each.items()}
        # The counts are those of now: they don't belong to an audit of other labels.
        if drawn.labels == findings.number_of_labels and not findings.changed:
            shares = corrected_shares(texts, dict(sorted(findings.of.items())))
            report["shares"] = {name: asdict(found) for name, found in shares.items()}
    columns = [column.name for column in labelling.parser.columns]
    if columns != ["label"]:
        report["by_column"] = {
            name: asdict(precision([*_of_column(pairs, name), *unknown], drawn.labels)) for name in columns
        }
    return report


def _of_column(pairs: Sequence[tuple[Label, Correction | None]], name: str) -> list[tuple[str, str | None]]:
    return [
        (_property(label, name), None if label_text is None else _property(label_text.label, name))
        for label, label_text in pairs
    ]


def _property(label: Label | None, name: str) -> str:
    """Returns a property as JSON; the empty text, which is not JSON, without a label."""
    if label is None or isinstance(label.value, str):
        return _text_of(label)
    return msgspec.json.encode(label.value.get(name)).decode()


def _counts(findings: _Findings, reviewed: Mapping[int, Reviewed]) -> dict[str, int]:
    kinds = Counter[str]()
    for index, label_text in findings.corrections.items():
        same = _text_of(label_text.label) == _text_of(findings.labels[index])
        kinds["no_label" if label_text.label is None else "right" if same else "corrected"] += 1
    return {
        "total": len(reviewed),
        **{name: kinds[name] for name in ("right", "corrected", "no_label")},
        "changed": len(findings.changed),
        "not_looked_at": len(reviewed) - len(findings.corrections) - len(findings.changed),
    }


def _write_corrected(
    dataset: Dataset,
    labelling: Labelling,
    journal: Journal,
    findings: _Findings,
    schema: pa.Schema,
    path: Path,
    report: Report,
) -> None:
    """Writes the output with the columns `reviewed` and `looked_at`. Rows of the same request are one."""
    rows = RowWriter(dataset, journal)
    metadata = {
        "batchrun.version": __version__,
        "batchrun.job": msgspec.json.encode(public_job(dataset.job)).decode(),
        "batchrun.review": msgspec.json.encode(report).decode(),
    }
    with replace_table(path, schema, lambda: metadata) as table:
        for chunk in dataset.chunks(journal=journal):
            after = _after_review(chunk, labelling, journal, findings)
            values = [(*row, *more) for row, more in zip(rows.values(chunk), after, strict=True)]
            table.write(output_batch(chunk.batch, values, schema))


def _after_review(
    chunk: Chunk, labelling: Labelling, journal: Journal, findings: _Findings
) -> Iterator[tuple[str | None, bool]]:
    requests = chunk.sendable
    records = row_histories(requests, journal, labelling)
    for request in chunk.requests:
        if not isinstance(request, Request):
            yield None, False
        elif request.digest in findings.by_request:
            _, label_text = findings.by_request[request.digest]
            yield (None if label_text.label is None else label_text.label.text), True
        else:
            yield records[request.digest].result.label_text, False
