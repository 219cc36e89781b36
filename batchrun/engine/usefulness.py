"""Stops a run without usable responses: a wrong model, or a max_tokens that the model spends on thinking."""

import math
from collections import Counter

from batchrun.errors import EXIT_ENDPOINT
from batchrun.exchange import WORKER_LOST, Failure
from batchrun.rows.result import FAILED, OK, RowResult
from batchrun.stops import Stop

IN_FLIGHT_BEFORE_FIRST_USABLE = 8
USABLE_IS_RARE_BELOW = 10
"""One usable row in this many is enough to continue."""

NEXT_STEPS = {
    "truncated": "raise request.max_tokens",
    "empty": "try another prompt or model",
    "refusal": "change the prompt or the model",
    "tie": "raise labels.votes",
    "invalid_label": "compare [labels] with the column output",
}
"""What to do where rows have no usable answer, by what is wrong with it."""

FATES = {
    "empty": "had no text",
    "refusal": "were refusals",
    "tie": "had votes for several labels, and as many for each",
    "invalid_label": "were not valid labels",
}


class Usefulness:
    """Follows rows as they end in a run.

    `stop` is set once `most_useless` consecutive rows (0: any number) had no usable response, and fewer than
    one in ten of all ended rows had one. The next run sends rows again that failed permanently: they may
    share one cause.
    """

    def __init__(self, most_useless: int) -> None:
        self._most_useless = most_useless
        self._ended = 0
        self._usable = 0
        # The rows since the last usable one: their number, their causes, and an example of each cause.
        self._useless = 0
        self._causes: Counter[str] = Counter()
        self._failures: dict[str, Failure] = {}
        self._results: dict[str, RowResult] = {}
        self._last_failure: Failure | None = None
        self.stop: Stop | None = None

    @property
    def most_in_flight(self) -> float:
        """Returns the bound on requests in flight: few until the first usable response."""
        unproven = self._most_useless and not self._usable
        return IN_FLIGHT_BEFORE_FIRST_USABLE if unproven else math.inf

    def row_failed(self, failure: Failure) -> None:
        """Notes that a row has failed permanently; `row_ended` follows."""
        self._last_failure = failure

    def row_ended(self, result: RowResult) -> None:
        failure = self._last_failure if result.status == FAILED else None
        if failure is not None and failure.code == WORKER_LOST and self._usable:
            # A node that dies takes many rows at once, which say nothing about prompt and model. Before the
            # first usable answer few are in flight, and a request may be what its workers die of.
            return
        self._ended += 1
        if result.status == OK:
            self._usable += 1
            if self._useless:
                self._useless = 0
                self._causes.clear()
            return
        self._useless += 1
        self._note_cause(result, failure)
        rare = self._usable * USABLE_IS_RARE_BELOW < self._ended
        if self._most_useless and self._useless >= self._most_useless and rare and self.stop is None:
            self.stop = self._stop()

    def _note_cause(self, result: RowResult, failure: Failure | None) -> None:
        cause = result.flaw or "failed"
        if failure is not None:
            cause = failure.code
            self._failures[cause] = failure
        self._causes[cause] += 1
        self._results[cause] = result

    def _stop(self) -> Stop:
        ((cause, rows),) = self._causes.most_common(1)
        share = f"all {rows:,}" if rows == self._useless else f"{rows:,} of {self._useless:,}"
        reason, next_step = self._explained(cause)
        return Stop(
            EXIT_ENDPOINT,
            f"Stopped, since {self._useless:,} rows one after the other brought no usable answer: "
            f"{share} {reason}.",
            f"{next_step}, then run the same command; retry.useless_rows = 0 lets it run on",
            reopens_failures=True,
        )

    def _explained(self, cause: str) -> tuple[str, str]:
        """Returns the rows' fate, and what to do."""
        if cause in self._failures:
            return f"failed with {cause} ({self._failures[cause].message})", "fix the cause"
        if cause == "truncated":
            said = self._results[cause].completion
            cap = "" if said is None or said.cap is None else f" = {said.cap}"
            if said is not None and said.text and not said.text.isspace():
                return f"were cut at max_tokens{cap}", NEXT_STEPS[cause]
            return (
                f"were cut at max_tokens{cap} before any text came, as happens with models that think first",
                f"{NEXT_STEPS[cause]}, or switch thinking off with request.extra",
            )
        return FATES.get(cause, "failed"), NEXT_STEPS.get(cause, "fix the cause")
