"""The columns that batchrun adds to the input's, and what a row's record makes of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from batchrun.amounts import usd
from batchrun.journal.records import RequestHistory
from batchrun.labelling import Labelling, Verdict
from batchrun.prompts import InvalidRow
from batchrun.row_records import RowRecord
from batchrun.wire.messages import answer_text, decode_message

OK = "ok"
INVALID = "invalid"
FAILED = "failed"
PENDING = "pending"
STATUSES = (OK, INVALID, FAILED, PENDING)

COLUMNS = pa.schema(
    [
        ("status", pa.string()),
        ("output", pa.string()),
        ("stop_reason", pa.string()),
        ("stop_sequence", pa.string()),
        ("response_id", pa.string()),
        ("response_model", pa.string()),
        ("input_tokens", pa.int64()),
        ("output_tokens", pa.int64()),
        ("credits_used", pa.int64()),
        ("cost_usd", pa.float64()),
        ("uncertain_usd", pa.float64()),
        ("remaining_credits", pa.int64()),
        ("attempts", pa.int32()),
        ("shared", pa.bool_()),
        ("error_code", pa.string()),
        ("error", pa.string()),
        ("latency_ms", pa.float64()),
        ("first_token_ms", pa.float64()),
        ("answered_at", pa.timestamp("ms", tz="UTC")),
    ]
)

STATUS = COLUMNS.get_field_index("status")
SHARED = COLUMNS.get_field_index("shared")

_NO_MESSAGE = (None,) * 5
_NOTHING_SPENT = (0, 0, 0, 0.0, 0.0)
_NO_TIMES = (None,) * 3


_SCALARS = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_()}
LABEL_TYPES = {
    **_SCALARS,
    **{f"list<{name}>": pa.list_(scalar) for name, scalar in _SCALARS.items()},
    "json": pa.string(),
}
"""The types of labels, by the names that `batchrun.labels.columns` gives them."""


@dataclass(frozen=True)
class AddedColumns:
    """What is added to the input's columns: `COLUMNS`, and those of a job with labels or an evaluation."""

    labelling: Labelling | None = None
    scored: bool = False

    @property
    def schema(self) -> pa.Schema:
        score = [pa.field("score", pa.float64())] if self.scored else []
        return pa.schema([*COLUMNS, *self.label_fields(), *score])

    def values(
        self, record: RowRecord | InvalidRow | None, duplicate: bool, score: float | None = None
    ) -> tuple[Any, ...]:
        """One row's values.

        `duplicate` says that an earlier row has the same request: that row bears the cost.
        """
        verdict = record.standing.verdict if isinstance(record, RowRecord) and record.standing else None
        values = row_values(record, duplicate) + self._label_values(verdict)
        return (*values, score) if self.scored else values

    def label_fields(self) -> list[pa.Field]:
        """What labels add: the label or its columns, why there is none, and of votes what came out."""
        if self.labelling is None:
            return []
        fields = [pa.field(column.name, LABEL_TYPES[column.type]) for column in self.labelling.reader.columns]
        fields.append(pa.field("label_error", pa.string()))
        if self.labelling.votes > 1:
            fields += [pa.field("agreement", pa.float64()), pa.field("samples", pa.list_(pa.string()))]
        return fields

    def _label_values(self, verdict: Verdict | None) -> tuple[Any, ...]:
        if self.labelling is None:
            return ()
        votes = self.labelling.votes > 1
        columns = self.labelling.reader.columns
        if verdict is None:
            return (None,) * (len(columns) + 1 + 2 * votes)
        label = verdict.label
        value = {} if label is None else label.value
        values = (value,) if isinstance(value, str) else tuple(value.get(column.name) for column in columns)
        return (*values, verdict.problem, *((verdict.agreement, list(verdict.labels)) if votes else ()))


def status_of(record: RowRecord | InvalidRow | None) -> str:
    if isinstance(record, InvalidRow):
        return FAILED
    if record is None or not record.ended:
        return PENDING
    return OK if record.valid else INVALID if record.answered else FAILED


def votes_saved(record: RowRecord | InvalidRow | None) -> int:
    """How many votes of a row needn't be asked."""
    verdict = record.standing.verdict if isinstance(record, RowRecord) and record.standing else None
    return 0 if verdict is None else verdict.saved


def row_values(record: RowRecord | InvalidRow | None, duplicate: bool) -> tuple[Any, ...]:
    """One row's values of `COLUMNS`."""
    status = status_of(record)
    if isinstance(record, InvalidRow):
        error = (record.code, record.message)
        return (status, *_NO_MESSAGE, *_NOTHING_SPENT, None, 0, False, *error, *_NO_TIMES)
    history = None if record is None else record.history
    if history is None:
        return (status, *_NO_MESSAGE, *_NOTHING_SPENT, None, 0, False, None, None, *_NO_TIMES)
    spent = _NOTHING_SPENT if duplicate else _spend_values(history)
    attempts = 0 if duplicate else history.attempts
    if status in (PENDING, FAILED) or history.answer is None:
        error = (history.error_code or "", history.error or "")
        return (status, *_NO_MESSAGE, *spent, None, attempts, False, *error, *_NO_TIMES)
    return (
        status,
        *_message_values(history.answer),
        *spent,
        history.remaining_credits,
        attempts,
        duplicate,
        None,
        None,
        history.latency_ms,
        history.first_token_ms,
        history.answered_at,
    )


def _spend_values(history: RequestHistory) -> tuple[Any, ...]:
    """Sums over the billed attempts; the cost of an answer is null where nobody can say it."""
    if history.answer is None:  # or it stands for nothing yet: others of its row may have been billed
        return (
            history.input_tokens or 0,
            history.output_tokens or 0,
            history.credits or 0,
            usd(history.nano_usd or 0),
            usd(history.uncertain_nano_usd),
        )
    return (
        history.input_tokens,
        history.output_tokens,
        history.credits,
        None if history.nano_usd is None else usd(history.nano_usd),
        usd(history.uncertain_nano_usd),
    )


def _message_values(body: bytes) -> tuple[Any, ...]:
    message = decode_message(body)
    return answer_text(message), message.stop_reason, message.stop_sequence, message.id, message.model


def output_batch(batch: pa.RecordBatch, rows: Sequence[tuple[Any, ...]], schema: pa.Schema) -> pa.RecordBatch:
    """The input's columns of `batch` with the values of the added ones behind them."""
    fields = list(schema)[batch.num_columns :]
    added = [
        pa.array(values, type=field.type)
        for field, values in zip(fields, zip(*rows, strict=True), strict=True)
    ]
    return pa.RecordBatch.from_arrays([*batch.columns, *added], schema=schema)
