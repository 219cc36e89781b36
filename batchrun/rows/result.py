"""A row's result, decided here for all: engine, output, plans, reviews, evaluations."""

import msgspec

from batchrun.exchange import Completion
from batchrun.rows.flaws import flaw_of
from batchrun.rows.labelling import LabelResult, RowState

OK = "ok"
INVALID = "invalid"
FAILED = "failed"
PENDING = "pending"
STATUSES = (OK, INVALID, FAILED, PENDING)


class RowResult(msgspec.Struct, frozen=True, gc=False):
    """A row's result so far.

    `status` is the output's. `completion` is the completion that represents the row, None if the row has not
    ended. `label_result` is None for a pending row, and for a row without labels that its first request
    decided.
    """

    status: str
    completion: Completion | None = None
    label_result: LabelResult | None = None

    @property
    def ended(self) -> bool:
        return self.status != PENDING

    @property
    def answered(self) -> bool:
        """Returns whether the row has ended with a response, even one that is not a valid label."""
        return self.status in (OK, INVALID)

    @property
    def flaw(self) -> str | None:
        """Returns `truncated`, `refusal`, `empty`, `tie` or `invalid_label` for an invalid row.

        In a `tie` every vote has a valid label, so that to send the row again would change nothing.
        """
        if self.status != INVALID or self.completion is None:
            return None
        if self.label_result is not None and None not in self.label_result.labels:
            return "tie"
        return flaw_of(self.completion) or "invalid_label"

    @property
    def text(self) -> str | None:
        """Returns the text of the response that represents the row; None without one."""
        return None if self.completion is None else self.completion.text

    @property
    def label_text(self) -> str | None:
        """Returns the label, for a row without labels the response's text; None without either."""
        if self.label_result is None:
            return self.text
        return None if self.label_result.label is None else self.label_result.label.text

    @property
    def votes_saved(self) -> int:
        """Returns how many of the row's votes were not needed."""
        return 0 if self.label_result is None else self.label_result.saved


PENDING_ROW = RowResult(PENDING)
UNSENDABLE_ROW = RowResult(FAILED)


def row_result(completion: Completion | None, state: RowState | None = None) -> RowResult:
    """Returns a row's result.

    `completion` represents the row, None if the row has not ended; `state` is the state of the row's
    requests, None for a row without labels.
    """
    if completion is None:
        return PENDING_ROW
    if state is None:
        return RowResult(FAILED if completion.text is None else OK, completion)
    result = state.label_result
    if result is None:
        return PENDING_ROW
    status = OK if result.label is not None else INVALID if result.answered else FAILED
    return RowResult(status, completion, result)
