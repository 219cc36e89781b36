"""The columns that batchrun adds to the input's, and their values for a row's record."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from batchrun.amounts import NANO
from batchrun.client.builder import InvalidRow
from batchrun.exchange import Completion
from batchrun.journal.records import RequestHistory
from batchrun.rows.history import RowHistory, result_of
from batchrun.rows.labelling import PLAIN, Labelling, LabelResult
from batchrun.rows.result import FAILED, OK, PENDING

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
        ("cache_read_tokens", pa.int64()),
        ("cache_write_tokens", pa.int64()),
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

ERROR_CODE = COLUMNS.get_field_index("error_code")
LATENCY = COLUMNS.get_field_index("latency_ms")

_NO_MESSAGE = (None,) * 5
_NOTHING_SPENT = (0, 0, 0, 0, 0, 0.0, 0.0)
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
    """The columns added to the input's: `COLUMNS`, and the columns of a job with labels or an evaluation."""

    labelling: Labelling = PLAIN
    scored: bool = False

    @property
    def schema(self) -> pa.Schema:
        score = [pa.field("score", pa.float64())] if self.scored else []
        return pa.schema([*COLUMNS, *self.label_fields(), *score])

    def values(
        self, record: RowHistory | InvalidRow | None, duplicate: bool, score: float | None = None
    ) -> tuple[Any, ...]:
        """Returns one row's values.

        `duplicate`: an earlier row has the same request and the cost.
        """
        values = row_values(record, duplicate) + self._label_values(result_of(record).label_result)
        return (*values, score) if self.scored else values

    @property
    def is_plain(self) -> bool:
        """Returns whether these are `COLUMNS` alone."""
        return not self.labelling.labelled and not self.scored

    def label_fields(self) -> list[pa.Field]:
        """Returns the labels' columns: the label or its columns, the reason without one, the votes."""
        if not self.labelling.labelled:
            return []
        fields = [pa.field(column.name, LABEL_TYPES[column.type]) for column in self.labelling.parser.columns]
        fields.append(pa.field("label_error", pa.string()))
        if self.labelling.votes > 1:
            fields += [pa.field("agreement", pa.float64()), pa.field("samples", pa.list_(pa.string()))]
            fields += [pa.field(f"agreement_{name}", pa.float64()) for name in self.labelling.vote_on]
        return fields

    def _label_values(self, label_result: LabelResult | None) -> tuple[Any, ...]:
        if not self.labelling.labelled:
            return ()
        votes = self.labelling.votes > 1
        columns = self.labelling.parser.columns
        if label_result is None:
            return (None,) * len(self.label_fields())
        label = label_result.label
        value = {} if label is None else label.value
        values = (value,) if isinstance(value, str) else tuple(value.get(column.name) for column in columns)
        return (
            *values,
            label_result.problem,
            *((label_result.agreement, list(label_result.labels), *label_result.agreements) if votes else ()),
        )


def row_values(record: RowHistory | InvalidRow | None, duplicate: bool) -> tuple[Any, ...]:
    """Returns one row's values of `COLUMNS`."""
    if isinstance(record, InvalidRow):
        error = (record.code, record.message)
        return (FAILED, *_NO_MESSAGE, *_NOTHING_SPENT, None, 0, False, *error, *_NO_TIMES)
    if record is None or record.history is None:
        return (PENDING, *_NO_MESSAGE, *_NOTHING_SPENT, None, 0, False, None, None, *_NO_TIMES)
    history, result = record.history, record.result
    spent = _NOTHING_SPENT if duplicate else _spend_values(history)
    attempts = 0 if duplicate else history.attempts
    if result.completion is None or not result.answered:
        error = (history.error_code or "", history.error or "")
        return (result.status, *_NO_MESSAGE, *spent, None, attempts, False, *error, *_NO_TIMES)
    return (
        result.status,
        *_message_values(result.completion),
        *spent,
        history.remaining_credits,
        attempts,
        duplicate,
        result.flaw,
        None if result.flaw is None or result.label_result is None else result.label_result.problem,
        history.latency_ms,
        history.first_token_ms,
        history.answered_at,
    )


def answered_columns(records: Sequence[RowHistory]) -> list[pa.Array] | None:
    """Returns `COLUMNS` for rows whose first request alone made them `ok`, and that share no response.

    None where other rows are among them. The values are those of `row_values`, made column by column.
    """
    histories = [record.history for record in records if record.history is not None and record.state is None]
    said = [record.result.completion for record in records if record.result.status == OK]
    answers = [completion for completion in said if completion is not None]
    if not len(histories) == len(answers) == len(records):
        return None
    rows = len(records)
    caches = [history.cache if history.input_tokens is not None else (None, None) for history in histories]
    costs = [history.nano_usd for history in histories]
    values = (
        [OK] * rows,
        [answer.text for answer in answers],
        [answer.stop_reason for answer in answers],
        [answer.stop_sequence for answer in answers],
        [answer.response_id for answer in answers],
        [answer.response_model for answer in answers],
        [history.input_tokens for history in histories],
        [history.output_tokens for history in histories],
        [cache[0] for cache in caches],
        [cache[1] for cache in caches],
        [history.credits for history in histories],
        [None if cost is None else cost / NANO for cost in costs],
        [history.uncertain_nano_usd / NANO for history in histories],
        [history.remaining_credits for history in histories],
        [history.attempts for history in histories],
        [False] * rows,
        [None] * rows,
        [None] * rows,
        [history.latency_ms for history in histories],
        [history.first_token_ms for history in histories],
        [history.answered_at for history in histories],
    )
    return [pa.array(column, field.type) for column, field in zip(values, COLUMNS, strict=True)]


def _spend_values(history: RequestHistory) -> tuple[Any, ...]:
    """Returns sums over the billed attempts; the cost of a response is null if unknown."""
    cached = history.cache.read, history.cache.write
    if history.answer is None:  # or it stands for nothing yet: others of its row may have been billed
        return (
            history.input_tokens or 0,
            history.output_tokens or 0,
            *cached,
            history.credits or 0,
            (history.nano_usd or 0) / NANO,
            history.uncertain_nano_usd / NANO,
        )
    return (
        history.input_tokens,
        history.output_tokens,
        *(cached if history.input_tokens is not None else (None, None)),
        history.credits,
        None if history.nano_usd is None else history.nano_usd / NANO,
        history.uncertain_nano_usd / NANO,
    )


def _message_values(said: Completion) -> tuple[Any, ...]:
    return said.text, said.stop_reason, said.stop_sequence, said.response_id, said.response_model


def output_batch(batch: pa.RecordBatch, rows: Sequence[tuple[Any, ...]], schema: pa.Schema) -> pa.RecordBatch:
    """Returns the input's columns of `batch`, followed by the added columns."""
    fields = list(schema)[batch.num_columns :]
    added = [
        pa.array(values, type=field.type)
        for field, values in zip(fields, zip(*rows, strict=True), strict=True)
    ]
    return pa.RecordBatch.from_arrays([*batch.columns, *added], schema=schema)
