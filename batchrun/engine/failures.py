"""Decides on failed attempts: the row is sent again, fails permanently, or the run ends."""

import dataclasses
import math

import msgspec

from batchrun.client.retry import RetryPolicy
from batchrun.engine.accounting import ActiveRequest
from batchrun.engine.limited_rows import LONGEST_WAIT, refusals_end_the_row
from batchrun.engine.limits.admission import AdmissionControl
from batchrun.engine.limits.circuit_breaker import most_bad_rows_at_the_end
from batchrun.engine.limits.send_order import Admission
from batchrun.engine.limits.sliding_window import MINUTE
from batchrun.exchange import BillingStatus, Failure, FailureAction


class Judgement(msgspec.Struct, frozen=True, gc=False):
    """`failure` is the attempt's, with the action that was decided on.

    `delay`: seconds until the row is sent again, None if it is not. `outage`: seconds for which every request
    to the endpoint has failed.
    """

    failure: Failure
    delay: float | None
    outage: float


class FailureJudge:
    """Decides on failed attempts. `leave_in_doubt`: a request that may have been billed is not sent again."""

    def __init__(self, retry: RetryPolicy, control: AdmissionControl, *, leave_in_doubt: bool) -> None:
        self._retry = retry
        self._control = control
        self._leave_in_doubt = leave_in_doubt
        # When the current stretch of nothing but 429s began; None after any response.
        self._refused_since: float | None = None
        # The 429s in a row that noise may bring. Measured at responses: after them, one bad row may be all
        # that is left to measure.
        self._by_chance = control.limiter.refusals_by_chance
        self._any_refused = False
        # The requests whose last attempt got a 429.
        self._limited: set[bytes] = set()

    def answered(self, active: ActiveRequest) -> None:
        """Notes that a response was received."""
        self._limited.discard(active.request.digest)
        self._refused_since = None
        if self._any_refused:
            self._by_chance = self._control.limiter.refusals_by_chance

    def judge(
        self,
        active: ActiveRequest,
        admission: Admission,
        failure: Failure,
        now: float,
        *,
        at_the_end: bool,
        rows_left: float,
    ) -> Judgement:
        """Decides on a failed attempt, and counts it for its row and for the endpoint.

        `at_the_end`: no new row is left. `rows_left`: the rows that have not ended, infinite before.
        """
        self._control.limiter.failed(admission, now, failure, self._own_refusal(active, failure))
        if failure.action is FailureAction.REFUSE:
            action = self._control.refused.refused(
                active.request.digest, admission.sent_at, at_the_end=at_the_end
            )
            failure = dataclasses.replace(failure, action=action)
        if failure.action is FailureAction.SLOW_DOWN:
            self._any_refused = True
            self._count_limited(active, admission, rows_left)
        self._count_attempt(active, admission, failure, now, at_the_end=at_the_end)
        delay = self._delay(active, failure)
        if delay is None:
            self._limited.discard(active.request.digest)
        return Judgement(failure, delay, self._outage(failure, now))

    def _own_refusal(self, active: ActiveRequest, failure: Failure) -> float | None:
        """Returns when the row's previous 429 was sent, if this one is the row's own; else None.

        It is if others got through in between, and if few rows are refused at present: a limit refuses many.
        """
        if failure.action is not FailureAction.SLOW_DOWN:
            return None
        self._limited.add(active.request.digest)
        breaker, before = self._control.breaker, active.refused_at
        are_few = len(self._limited) <= most_bad_rows_at_the_end(breaker.answered)
        return before if before is not None and are_few and breaker.latest_answered > before else None

    def _count_limited(self, active: ActiveRequest, admission: Admission, rows_left: float) -> None:
        breaker = self._control.breaker
        are_few = rows_left <= most_bad_rows_at_the_end(breaker.answered)
        if refusals_end_the_row(
            active,
            admission.sent_at,
            attempts=self._retry.max_attempts,
            others_answered=breaker.latest_answered,
            left=rows_left if are_few else math.inf,
            by_chance=self._by_chance,
        ):
            active.used_attempts = self._retry.max_attempts

    def _count_attempt(
        self,
        active: ActiveRequest,
        admission: Admission,
        failure: Failure,
        now: float,
        *,
        at_the_end: bool,
    ) -> None:
        """Returns whether the failure uses up one of the row's attempts, as the breaker decides.

        A server that says not to retry is believed once others get through: the second attempt is then the
        last.
        """
        most = self._retry.max_attempts
        gives_up = (
            failure.told_not_to_retry
            and failure.billing is BillingStatus.NO
            and active.first_failed is not None
        )
        used = self._control.breaker.failed(
            now,
            admission.sent_at,
            failure,
            first_failed=active.first_failed,
            is_last=gives_up or active.used_attempts + 1 >= most,
            at_the_end=at_the_end,
        )
        if used:
            active.used_attempts = most if gives_up else active.used_attempts + 1
        if active.first_failed is None and failure.action is FailureAction.RETRY:
            active.first_failed = admission.sent_at

    def _delay(self, active: ActiveRequest, failure: Failure) -> float | None:
        if failure.billing is BillingStatus.UNKNOWN and self._leave_in_doubt:
            return None
        if failure.action is FailureAction.SLOW_DOWN:
            used_up = active.used_attempts >= self._retry.max_attempts
            # As few refusals as noise brings are no reason to wait longer each time.
            by_noise = self._control.limiter.noise and active.refusals <= self._by_chance
            repeated = 1 if by_noise else active.refusals
            return None if used_up else self._retry.delay(failure, repeated, longest=LONGEST_WAIT)
        unused = failure.action is FailureAction.REFUSE  # until the verdict, which ends the row in any case
        return self._retry.delay(failure, active.number if unused else active.used_attempts)

    def outage(self, now: float) -> float:
        """Returns the seconds for which the endpoint has failed or refused everything; 0 if it has not.

        Refusals count from the second minute on: a full window can refuse everything for one.
        """
        refused = 0.0 if self._refused_since is None else now - self._refused_since
        return max(self._control.breaker.outage(now), refused if refused >= MINUTE else 0.0)

    def _outage(self, failure: Failure, now: float) -> float:
        if failure.action is not FailureAction.SLOW_DOWN:
            return self._control.breaker.outage(now)
        # These use up no attempts, so only the limit on the outage can end them.
        self._refused_since = self._refused_since or now
        return now - self._refused_since
