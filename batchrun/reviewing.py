"""A review of the labels: rows for a person's eye go to a CSV file, what that person says is read back."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from batchrun.errors import InputError, JobError, OutputError, UsageError
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
from batchrun.evaluation.review import LabelledRow, choose_for_review, precision, precision_of_each
from batchrun.job import Job, input_path, output_path, public_job
from batchrun.journal import Journal
from batchrun.labelling import Labelling, Verdict
from batchrun.labels import Label
from batchrun.output import RowWriter
from batchrun.output_columns import output_batch
from batchrun.prompts import Request
from batchrun.row_records import RowRecord, row_records
from batchrun.run_folder import open_journal_of
from batchrun.tables.python_rows import python_rows
from batchrun.tables.sheet import read_sheet, refuse_existing, write_sheet
from batchrun.tables.writer import check_writable, replace_table
from batchrun.version import __version__
from batchrun.workload import Chunk, Workload, open_workload, output_schema

Report = dict[str, Any]

REVIEWED = pa.schema([("reviewed", pa.string()), ("looked_at", pa.bool_())])


@dataclass(frozen=True, slots=True)
class _Answered:
    """A row that has ended with an answer, the `position`th of its chunk."""

    chunk: Chunk
    position: int
    digest: bytes
    record: RowRecord
    verdict: Verdict

    @property
    def index(self) -> int:
        return self.chunk.first + self.position


def review_path(job: Job) -> Path:
    """Where a review goes that names no file: `labels-review.csv` beside `labels.parquet`."""
    output = output_path(job)
    return output.with_name(f"{output.stem}-review.csv")


def write_review(job: Job, path: Path, *, rows: int, seed: int, again: bool, sandbox: bool = False) -> Report:
    """Writes the `rows` rows most worth a person's eye to the CSV file `path`; sends nothing.

    The same seed draws the same audit. Returns the counts as JSON-able values. Raises UsageError, OutputError
    where the file is there and it isn't to be written `again`, JournalError, StorageError.
    """
    _refuse_taken(job, path)
    if not again:
        refuse_existing(path)
    workload, labelling = _open(job, sandbox)
    shown = list(workload.builder.columns) or workload.table.schema.names
    header = _header(workload, labelling, shown)
    counts = Counter[bool]()
    with closing(open_journal_of(job)) as journal:

        def labelled() -> Iterator[LabelledRow]:
            for row in _answered(workload, labelling, journal, []):
                counts[row.verdict.label is not None] += 1
                yield LabelledRow(row.index, row.verdict.label is not None, row.verdict.agreement)

        chosen = choose_for_review(labelled(), rows, seed)
        if not chosen:
            raise UsageError(
                "No row has been answered yet, so there is nothing to review. First: batchrun run."
            )
        why = dict(zip([row.index for row in chosen], reasons(chosen, counts[True]), strict=True))
        found = (row for row in _answered(workload, labelling, journal, shown) if row.index in why)
        cells = (_cells(row, why[row.index], shown, labelling) for row in found)
        write_sheet(path, header, cells, replace=again)
    return {
        "file": str(path),
        "rows": dict(Counter(row.why for row in chosen)) | {"total": len(chosen)},
        "labels": counts[True],
        "invalid": counts[False],
        "words": words(labelling.reader),
    }


def read_review(job: Job, path: Path, *, corrected: Path | None = None, sandbox: bool = False) -> Report:
    """What the filled file `path` says of all labels, as JSON-able values; sends nothing, changes no journal.

    With `corrected`, the output is written there as well, with the labels after the review. Raises UsageError
    for a file that isn't of this job's rows, or has a correction that is no valid label.
    """
    workload, labelling = _open(job, sandbox)
    schema = None
    if corrected is not None:
        _refuse_taken(job, corrected, path)
        schema = output_schema(workload.schema, REVIEWED, job.output.prefix)
        check_writable(corrected, schema)
    reviewed = _reviewed(path, job.output.prefix)
    with closing(open_journal_of(job)) as journal:
        findings = _look_up(workload, labelling, journal, reviewed, path)
        report = _report(findings, reviewed, labelling, path)
        if corrected is not None and schema is not None:
            _write_corrected(workload, labelling, journal, findings, schema, corrected, report)
            report["corrected"] = str(corrected)
    return report


def _open(job: Job, sandbox: bool) -> tuple[Workload, Labelling]:
    workload = open_workload(job, sandbox=sandbox)
    if workload.labelling is None:
        raise JobError("The job has no [labels], and a review is of labels.")
    return workload, workload.labelling


def _refuse_taken(job: Job, path: Path, *others: Path) -> None:
    taken = {output_path(job): "output", Path(input_path(job)): "input"}
    taken |= dict.fromkeys(others, "review")
    for other, name in taken.items():
        if path.resolve() == other.resolve():
            raise OutputError(f"{path} is the job's {name}. Name another file.")


def _answered(
    workload: Workload, labelling: Labelling, journal: Journal, columns: Sequence[str]
) -> Iterator[_Answered]:
    for chunk in workload.chunks(columns):
        requests = [request for request in chunk.requests if isinstance(request, Request)]
        records = row_records(requests, journal, labelling)
        for position, request in enumerate(chunk.requests):
            record = records.get(request.digest) if isinstance(request, Request) else None
            verdict = record.standing.verdict if record is not None and record.standing else None
            if isinstance(request, Request) and record is not None and verdict and verdict.answered:
                yield _Answered(chunk, position, request.digest, record, verdict)


# The file.


def _header(workload: Workload, labelling: Labelling, shown: Sequence[str]) -> list[str]:
    prefix = workload.job.output.prefix
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


def _cells(row: _Answered, why: str, shown: Sequence[str], labelling: Labelling) -> list[str]:
    verdict = row.verdict
    (values,) = python_rows(row.chunk.batch.slice(row.position, 1).select(shown))
    agreement = "" if verdict.agreement is None else f"{verdict.agreement:.2f}"
    return [
        str(row.index + 1),
        why,
        *map(_text, values),
        row.record.text or "",
        "" if verdict.label is None else verdict.label.text,
        verdict.problem or "",
        *((agreement,) if labelling.votes > 1 else ()),
        "",
        key_of(row.digest, verdict.label),
    ]


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    if isinstance(value, list | dict):
        return msgspec.json.encode(value, enc_hook=str).decode()
    return str(value)


def _reviewed(path: Path, prefix: str) -> dict[int, Reviewed]:
    """The rows of the file, by their index. Raises InputError."""
    columns = [prefix + name for name in ("row", "why", "key", "correct")]
    found: dict[int, Reviewed] = {}
    for cells in read_sheet(path, columns):
        number, why, key, cell = (cells[name] for name in columns)
        row = reviewed_row(number, why, key, cell, where=str(path))
        if row.index in found:
            raise InputError(f"{path}: row {row.index + 1} is there twice.")
        found[row.index] = row
    if len({row.audit for row in found.values() if row.audit is not None}) > 1:
        raise InputError(f"{path}: its rows come from two reviews. Read each review by itself.")
    return found


# What it says.


@dataclass(slots=True)
class _Findings:
    """`labels` has what the reviewed rows were labelled, by index, but for those `changed` since.

    `corrections` are of the rows that somebody has looked at; `of` counts the labels of the whole output.
    """

    labels: dict[int, Label | None] = field(default_factory=dict)
    changed: set[int] = field(default_factory=set)
    corrections: dict[int, Correction] = field(default_factory=dict)
    by_request: dict[bytes, tuple[int, Correction]] = field(default_factory=dict)
    faults: dict[int, str] = field(default_factory=dict)
    number_of_labels: int = 0
    of: Counter[str] = field(default_factory=Counter)


def _look_up(
    workload: Workload,
    labelling: Labelling,
    journal: Journal,
    reviewed: Mapping[int, Reviewed],
    path: Path,
) -> _Findings:
    findings = _Findings()
    has_choices = workload.job.labels is not None and workload.job.labels.choices is not None
    unseen = set(reviewed)
    for row in _answered(workload, labelling, journal, []):
        if row.verdict.label is not None:
            findings.number_of_labels += 1
            if has_choices:  # of other labels there may be as many as rows
                findings.of[row.verdict.label.text] += 1
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


def _take(findings: _Findings, of_file: Reviewed, row: _Answered, labelling: Labelling) -> None:
    label = row.verdict.label
    if of_file.key != key_of(row.digest, label):
        findings.changed.add(row.index)
        return
    findings.labels[row.index] = label
    if not of_file.cell:
        return
    said = correction(of_file.cell, label, labelling.reader)
    if isinstance(said, str):
        findings.faults[row.index] = said
        return
    findings.corrections[row.index] = said
    other, before = findings.by_request.setdefault(row.digest, (row.index, said))
    if _text_of(before.label) != _text_of(said.label):
        findings.faults[row.index] = f"the same request as row {other + 1}, and not the same label"


def _text_of(label: Label | None) -> str:
    """No label is the empty text: there is no label without text."""
    return "" if label is None else label.text


def _report(
    findings: _Findings, reviewed: Mapping[int, Reviewed], labelling: Labelling, path: Path
) -> Report:
    audited = {index: row.audit for index, row in reviewed.items() if row.audit is not None}
    drawn = next(iter(audited.values()), Drawn(0, 0))
    # Rows that were taken out of the file, or have another label by now, are rows nobody looked at.
    unknown = [("", None)] * (drawn.number - len(audited.keys() - findings.changed))
    pairs = [
        (label, findings.corrections.get(index))
        for index, label in findings.labels.items()
        if index in audited and label is not None
    ]
    texts = [(label.text, None if said is None else _text_of(said.label)) for label, said in pairs]
    report: Report = {
        "file": str(path),
        "rows": _counts(findings, reviewed),
        "labels": {"then": drawn.labels, "now": findings.number_of_labels},
        "precision": asdict(precision([*texts, *unknown], drawn.labels)),
    }
    if findings.of:
        each = precision_of_each(texts, dict(sorted(findings.of.items())))
        report["by_label"] = {name: asdict(found) for name, found in each.items()}
    columns = [column.name for column in labelling.reader.columns]
    if columns != ["label"]:
        report["by_column"] = {
            name: asdict(precision([*_of_column(pairs, name), *unknown], drawn.labels)) for name in columns
        }
    return report


def _of_column(pairs: Sequence[tuple[Label, Correction | None]], name: str) -> list[tuple[str, str | None]]:
    return [
        (_property(label, name), None if said is None else _property(said.label, name))
        for label, said in pairs
    ]


def _property(label: Label | None, name: str) -> str:
    """A property as JSON; empty, which no JSON is, where there is no label."""
    if label is None or isinstance(label.value, str):
        return _text_of(label)
    return msgspec.json.encode(label.value.get(name)).decode()


def _counts(findings: _Findings, reviewed: Mapping[int, Reviewed]) -> dict[str, int]:
    kinds = Counter[str]()
    for index, said in findings.corrections.items():
        same = _text_of(said.label) == _text_of(findings.labels[index])
        kinds["no_label" if said.label is None else "right" if same else "corrected"] += 1
    return {
        "total": len(reviewed),
        **{name: kinds[name] for name in ("right", "corrected", "no_label")},
        "changed": len(findings.changed),
        "not_looked_at": len(reviewed) - len(findings.corrections) - len(findings.changed),
    }


def _write_corrected(
    workload: Workload,
    labelling: Labelling,
    journal: Journal,
    findings: _Findings,
    schema: pa.Schema,
    path: Path,
    report: Report,
) -> None:
    """The output with the columns `reviewed` and `looked_at`. Rows with the same request are one."""
    rows = RowWriter(workload, journal)
    metadata = {
        "batchrun.version": __version__,
        "batchrun.job": msgspec.json.encode(public_job(workload.job)).decode(),
        "batchrun.review": msgspec.json.encode(report).decode(),
    }
    with replace_table(path, schema, lambda: metadata) as table:
        for chunk in workload.chunks():
            after = _after_review(chunk, labelling, journal, findings)
            values = [(*row, *more) for row, more in zip(rows.values(chunk), after, strict=True)]
            table.write(output_batch(chunk.batch, values, schema))


def _after_review(
    chunk: Chunk, labelling: Labelling, journal: Journal, findings: _Findings
) -> Iterator[tuple[str | None, bool]]:
    requests = [request for request in chunk.requests if isinstance(request, Request)]
    records = row_records(requests, journal, labelling)
    for request in chunk.requests:
        if not isinstance(request, Request):
            yield None, False
        elif request.digest in findings.by_request:
            _, said = findings.by_request[request.digest]
            yield (None if said.label is None else said.label.text), True
        else:
            yield records[request.digest].said, False
