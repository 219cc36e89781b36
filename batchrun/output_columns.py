"""The columns that batchrun adds to the input's, and what a row's history makes of them."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from batchrun.amounts import usd
from batchrun.journal.records import RequestHistory
from batchrun.prompts import InvalidRow
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


def row_values(history: RequestHistory | InvalidRow | None, duplicate: bool) -> tuple[Any, ...]:
    """One row's values of `COLUMNS`.

    `duplicate` says that an earlier row has the same request: that row bears the cost.
    """
    if history is None:
        return (PENDING, *_NO_MESSAGE, *_NOTHING_SPENT, None, 0, False, None, None, *_NO_TIMES)
    if isinstance(history, InvalidRow):
        error = (history.code, history.message)
        return (FAILED, *_NO_MESSAGE, *_NOTHING_SPENT, None, 0, False, *error, *_NO_TIMES)
    spent = _NOTHING_SPENT if duplicate else _spend_values(history)
    attempts = 0 if duplicate else history.attempts
    if history.answer is None:
        status = FAILED if history.failed else PENDING
        error = (history.error_code or "", history.error or "")
        return (status, *_NO_MESSAGE, *spent, None, attempts, False, *error, *_NO_TIMES)
    return (
        OK,
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
    if history.answer is None:
        return (0, 0, 0, 0.0, usd(history.uncertain_nano_usd))
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
    """The input's columns of `batch` with the values of `COLUMNS` behind them."""
    added = [
        pa.array(values, type=field.type)
        for field, values in zip(COLUMNS, zip(*rows, strict=True), strict=True)
    ]
    return pa.RecordBatch.from_arrays([*batch.columns, *added], schema=schema)
