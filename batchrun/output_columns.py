"""The columns that batchrun adds to the input's, and what a row's history makes of them."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from batchrun.amounts import usd
from batchrun.journal.records import RequestHistory
from batchrun.messages import answer_text, decode_message
from batchrun.prompts import InvalidRow

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

_NOT_ASKED = (PENDING, *(None,) * 9, 0.0, None, 0, False, *(None,) * 5)
_NO_MESSAGE = (None,) * 5


def row_values(history: RequestHistory | InvalidRow | None, shared: bool) -> tuple[Any, ...]:
    """One row's values of `COLUMNS`. A row that shares an answer has cost nothing itself."""
    if history is None:
        return _NOT_ASKED if not shared else (*_NOT_ASKED[:13], True, *_NOT_ASKED[14:])
    if isinstance(history, InvalidRow):
        return (FAILED, *_NOT_ASKED[1:14], history.code, history.message, None, None, None)
    message = _NO_MESSAGE if history.answer is None else _message_values(history.answer)
    spend = _NOTHING_SPENT if shared else _spend_values(history)
    status = OK if history.answer is not None else FAILED if history.failed else PENDING
    error = (None, None) if status == OK else (history.error_code, history.error)
    return (
        status,
        *message,
        *spend[:5],
        history.remaining_credits,
        spend[5],
        shared,
        *error,
        history.latency_ms,
        history.first_token_ms,
        history.answered_at,
    )


_NOTHING_SPENT = (0, 0, 0, 0.0, 0.0, 0)


def _spend_values(history: RequestHistory) -> tuple[Any, ...]:
    return (
        history.input_tokens,
        history.output_tokens,
        history.credits,
        None if history.nano_usd is None else usd(history.nano_usd),
        usd(history.uncertain_nano_usd),
        history.attempts,
    )


def _message_values(body: bytes) -> tuple[Any, ...]:
    message = decode_message(body)
    return answer_text(message), message.stop_reason, message.stop_sequence, message.id, message.model


def output_batch(batch: pa.RecordBatch, rows: Sequence[tuple[Any, ...]], schema: pa.Schema) -> pa.RecordBatch:
    """The input's columns of `batch` with the values of `COLUMNS` behind them."""
    added = [
        pa.array(values, type=field.type)
        for field, values in zip(COLUMNS, zip(*rows, strict=True), strict=True)
    ]
    return pa.RecordBatch.from_arrays([*batch.columns, *added], schema=schema)
