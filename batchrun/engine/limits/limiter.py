"""The pace of sending: limits from the job or from headers, and a search if there are none.

Times are seconds of one monotonic clock, given by the caller: nothing here sleeps or reads a clock.
"""

import math
from dataclasses import replace

from batchrun.engine.limits.accepted_rate import accepted_in_a_minute, accepted_rate
from batchrun.engine.limits.concurrency import ConcurrencySearch
from batchrun.engine.limits.doubt import BeforeTrial, DoubtfulPause, Rechecks, Start, shows_room
from batchrun.engine.limits.known_limits import KnownLimits, Pace
from batchrun.engine.limits.rate_search import FIRST_RATE, LEAST_MEASURED_BY, STEADY, RateSearch
from batchrun.engine.limits.refusals import Event, RefusalJudge, is_new
from batchrun.engine.limits.send_order import LEAST_PATIENCE, Admission, SendOrder, Sent
from batchrun.exchange import BillingStatus, Failure, FailureAction, RateLimits

MEASURED_REQUESTS = 10
"""Requests, or a second of a known limit if fewer, that suffice to measure what the server accepts."""
TRIAL = 0.9
"""Share of the accepted rate that a trial sends."""
FIRST_OWN_WAIT, LONGEST_OWN_WAIT = 1.0, 4.0
"""Seconds between two tries at a server that refuses everything and names no wait."""


class Limiter:
    """Decides when the first in line may go. Every admission is ended by `answered` or `failed`.

    A refusal is one of these:

    - of an earlier epoch: its request was sent before the pace was lowered, and gives no more information;
    - doubtful: at a pace not known yet. It counts as caused by a limit: all wait, and the pace is lowered. If
      a request gets through that was sent later, the pause ends and the cut is corrected;
    - possibly noise: others get through at this pace. Its row waits alone, and `RefusalJudge` counts it.

    `_doubtful_pause` is the pause that a doubtful refusal began, `_before_trial` the state before the judge's
    trial, for which the search's rate is fixed. `_cut_at`, `_waited` (seconds of pause) and
    `_refused_since_cut` belong to the last cut; `_taken_since_cut` is whether anything has got through since.
    """

    def __init__(self, requests_per_minute: int | None = None, tokens_per_minute: int | None = None) -> None:
        self.paused_until = float("-inf")
        self._known = KnownLimits(requests_per_minute, tokens_per_minute)
        self._search = RateSearch(None if requests_per_minute or tokens_per_minute else FIRST_RATE)
        self._began: float | None = None
        self._cut_at = float("-inf")
        self._waited, self._refused_since_cut, self._taken = 0.0, 0, 0
        self._concurrency = ConcurrencySearch()
        self._order = SendOrder()
        self._judge = RefusalJudge()
        self._doubtful_pause: DoubtfulPause | None = None
        self._cut_in_doubt: DoubtfulPause | None = None
        self._start = Start()
        self._before_trial: BeforeTrial | None = None
        self._trouble_since: float | None = None
        self._taken_since_cut = False
        self._rechecks = Rechecks()
        self._looked_at: float | None = None  # at the ends of requests; None if there is another since

    @property
    def pace(self) -> Pace:
        return self._known.pace(self._search.rate, self._concurrency.most, self.paused_until)

    @property
    def noise(self) -> float:
        """Returns the share of requests that is refused whatever the pace; 0 if none are."""
        return self._judge.noise

    @property
    def refusals_by_chance(self) -> int:
        """Returns how many refusals of one row noise may cause while others get through."""
        return self._judge.longest_by_noise

    def delay(self, now: float, worst_tokens: int) -> float:
        """Returns the seconds until a request of at most `worst_tokens` tokens may go; 0 or less: now."""
        if now != self._looked_at:
            self._look_at_ends(now)
        searched = max(self._search.delay(now), self._concurrency.delay)
        return max(self._next_try - now, searched, self._known.delay(now, worst_tokens))

    @property
    def _next_try(self) -> float:
        pause = self._doubtful_pause
        if pause is None:
            return self.paused_until
        # As long as so few got through, the wait would tell less than a probe.
        pause.probes |= self._start.lasts and 0 < self._taken < MEASURED_REQUESTS
        return min(self.paused_until, pause.probe_at) if pause.probes else self.paused_until

    def admit(self, now: float, worst_tokens: int) -> Admission:
        """Counts a request that is sent now."""
        if self._began is None:
            self._began = now
        self._search.admit(now)
        paced_tokens, bucket = self._known.admit(now, worst_tokens)
        if self._doubtful_pause is not None and self._doubtful_pause.probes:
            self._doubtful_pause.probe_at = math.inf
        sent = Sent(now, self._search.epoch, self._search.is_below_ceiling)
        self._concurrency.admit(sent)
        self._order.add(sent)
        return Admission(now, self._search.epoch, worst_tokens, paced_tokens, bucket, sent)

    def answered(self, admission: Admission, now: float, used_tokens: int, limits: RateLimits | None) -> None:
        """Counts the use of a request with a response, and takes the limits of its headers."""
        admission.sent.refused = False
        self._looked_at = None
        self._concurrency.ended()
        self._end_trouble(now)
        self._known.settle(admission.bucket, admission.worst_tokens, admission.paced_tokens, used_tokens)
        self._known.learn(admission.worst_tokens, used_tokens)
        if limits is not None:
            self._take_limits(limits, now)

    def failed(
        self, admission: Admission, now: float, failure: Failure, row_refused_at: float | None = None
    ) -> None:
        """Slows down for a 429, stops growth for other failures, and frees a refused request's tokens.

        `row_refused_at`: the 429 is the row's own, since others got through after its previous one, which was
        sent then. It says nothing about the pace, nor did the previous one.
        """
        self._looked_at = None
        self._concurrency.ended()
        newly_known = failure.limits is not None and self._take_limits(failure.limits, now)
        if failure.action is FailureAction.SLOW_DOWN:
            self._known.refused(now, admission.bucket, admission.worst_tokens, admission.paced_tokens)
            wait = failure.retry_after or 0.0
            if row_refused_at is not None and not newly_known:
                admission.sent.refused, admission.sent.counts = False, False
                self._undo_cut(row_refused_at, now)
                self._look_at_ends(now)
                return
            self._order.refused(admission.sent, now, wait)
            admission.sent.shows_room = shows_room(failure.limits)
            in_vain = self._start.pauses_are_in_vain and not self._known.requests.per_minute
            admission.sent.below |= admission.sent.shows_room or self._concurrency.most is not None or in_vain
            if newly_known:
                # The server's window holds more than the new limit: later ends don't measure the rate.
                self.paused_until = max(self.paused_until, now + wait)
                self._begin_again(now, wait)
            elif admission.epoch == self._search.epoch and not self._may_be_noise(admission.sent):
                self._doubt(admission.sent, now, wait)
            elif self.paused_until > now:
                self.paused_until = max(self.paused_until, now + wait)
            self._look_at_ends(now)
            return
        admission.sent.refused, admission.sent.counts = False, False
        if failure.billing is BillingStatus.NO:
            self._known.settle(admission.bucket, admission.worst_tokens, admission.paced_tokens, 0)
        if failure.action is FailureAction.RETRY:
            self._search.hold()
            self._trouble_since = self._trouble_since or now

    def _end_trouble(self, now: float) -> None:
        """Discards counts from before and during an outage: they don't measure a limit."""
        if self._trouble_since is not None and now - self._trouble_since > STEADY:
            self._began = self._cut_at = now
            self._waited, self._refused_since_cut = 0.0, 0
            self._known.sent.begin_period()
        self._trouble_since = None

    def change_given(self, requests: int | None, tokens: int | None, now: float) -> None:
        """Takes other limits than the job's. A higher one ends the search for a lower rate."""
        if self._known.give(requests, tokens, now):
            self._search.release()

    def _take_limits(self, limits: RateLimits, now: float) -> bool:
        """Returns whether the headers change a limit: the change then replaces the cut after a 429."""
        changed = self._known.state(limits, now)
        if changed:
            self._search.release()
        return changed

    # A 429.

    def _may_be_noise(self, sent: Sent) -> bool:
        """Returns whether a refusal may be noise: others get through at this pace, or did."""
        if self._judge.noise or self._judge.on_trial or sent.shows_room or self._concurrency.most:
            return True
        return sent.below and self._taken_since_cut

    def _doubt(self, sent: Sent, now: float, wait: float) -> None:
        """Treats a refusal as caused by a limit, until a request gets through that was sent later."""
        pause = self._doubtful_pause
        if pause is not None and pause.probes and pause.began <= now < self.paused_until:
            if pause.refused(sent, now, repeats=self._taken < MEASURED_REQUESTS):
                self.paused_until = max(self.paused_until, now + wait)
            return
        self._start.lasts &= pause is None
        rate, (accepted, seconds), since_cut = self._search.rate, self._accepted(now, 0.0), now - self._cut_at
        suspicion, probes = self._judge.suspicion, self._start.lasts and self._taken > 0
        self.paused_until = max(self.paused_until, now + wait)
        rate = rate if self._slow_down(now, wait) else None
        self._doubtful_pause = DoubtfulPause(
            sent, rate, accepted, seconds, since_cut, suspicion, now, now + LEAST_PATIENCE, probes
        )

    def _look_at_ends(self, now: float) -> None:
        self._looked_at = now
        for sent in self._order.settled(now):
            expected = bool(sent.refused) and self._concurrency.expects_refusal(sent)
            bound = self._concurrency.settled(sent)
            if bound == "found":
                self._take_concurrency(now)
            elif bound == "dropped":
                self._resume_search(now, sent.wait)
            current = sent.epoch == self._search.epoch and not expected
            if not sent.refused:
                self._taken += 1
                self._taken_since_cut |= current
                if self._doubtful_pause is not None and self._doubtful_pause.is_refuted_by(sent):
                    self._end_pause(self._doubtful_pause, now)
            event = self._judge.settled(sent) if current else None
            if event is not None:
                self._heed(event, now)
        self._recheck(now)

    def _take_concurrency(self, now: float) -> None:
        """Searches the rate again, since the number in flight and not the rate caused the refusals."""
        pause, self._doubtful_pause = self._doubtful_pause, None
        if pause is not None:
            self.paused_until = min(self.paused_until, now)
        self._before_trial = None
        self._search.set_aside(pause.rate if pause else None, now)
        self._begin_again(now, 0.0)

    def _resume_search(self, now: float, wait: float) -> bool:
        """Continues the search of the rate, after `wait`; False if none was set aside."""
        if not self._search.resume(now + wait):
            return False
        self.paused_until = max(self.paused_until, now + wait)
        self._begin_again(now, wait)
        return True

    def _end_pause(self, pause: DoubtfulPause, now: float) -> None:
        """Ends a pause, since others get through: the refused row waits alone; no rate includes the pause."""
        self._doubtful_pause = None
        held = now - pause.sent.at if self.paused_until > now else 0.0
        adds = self._began is None or pause.sent.at - self._began < STEADY
        self._judge.take_back(pause.suspicion, pause.sent.at, held, adds=adds)
        self._cut_in_doubt = pause
        in_vain = pause.is_in_vain(now, self.paused_until)
        if pause.rate is not None and self._start.goes_on(in_vain=in_vain, cut=self._search.ceiling > 0):
            self.paused_until = min(self.paused_until, now)
            self._waited, self._taken_since_cut = 0.0, True
            self._search.restore(min(pause.rate, FIRST_RATE), None, now)
            return
        if pause.probes and not in_vain:
            self.paused_until = min(self.paused_until, now)
        if self.paused_until <= now:
            return
        self.paused_until = now
        self._waited = 0.0
        self._taken_since_cut = True
        if pause.rate is not None:
            self._search.cut_less(pause.rate, pause.accepted, pause.seconds, pause.since_cut, now)

    def _undo_cut(self, refused_at: float, now: float) -> None:
        """Takes back the cut for a request sent at `refused_at`, whose row turned out to be the cause."""
        pause, self._cut_in_doubt = self._cut_in_doubt, None
        if pause is None or pause.rate is None or pause.sent.at != refused_at:
            return
        self._search.restore(pause.rate, pause.rate if self._start.limit_found else None, now)
        self._begin_again(now, 0.0)

    def _heed(self, event: Event, now: float) -> None:
        if event == "run":
            self._close_window(now)
        elif event == "excess":
            if self._concurrency.lower(now):
                self._judge.forget()
            elif not (self._concurrency.drop() and self._resume_search(now, 0.0)):
                self._try_less(now)
        else:
            self._take_verdict(event, now)

    def _close_window(self, now: float) -> None:
        """Pauses all requests, since none gets through, for as long as the refusals say."""
        if self.paused_until > now:
            return
        self._start.find_limit()
        wait = max(0.0, self._judge.run_wait_until - now)
        if self._concurrency.drop() and self._resume_search(now, wait):
            return
        if self._judge.on_trial and wait < STEADY:
            self.paused_until = now + (wait or FIRST_OWN_WAIT)
            self._judge.begin_trial_again(self.paused_until)
            return
        if self._before_trial is not None:
            self._search.restore(self._before_trial.rate, None, now)
            self._before_trial = None
        self.paused_until = now + wait
        self._slow_down(now, wait)
        # Counts from before the pause must not be measured over it.
        self._judge.forget()

    def _try_less(self, now: float) -> None:
        """Sends less than was accepted while more was refused than usual."""
        excess = self._judge.suspicion
        if excess is None:
            return
        # A full window's refusals are all at its end, so that later on the time is counted up to now.
        seconds = max(0.001, excess.seconds) if self._start.lasts else now - excess.began
        accepted = (excess.sent - excess.refused) / seconds / (1 - self._judge.noise)
        self._begin_trial(now, accepted, seconds, accepted)

    def _begin_trial(self, now: float, accepted: float, seconds: float, tried: float) -> None:
        before = self._before_trial
        if before is None or not self._judge.confirms:
            in_a_minute = accepted_in_a_minute(self._known.sent, now, self._began, 1 - self._judge.noise)
            before = BeforeTrial(self._search.rate, 0.0, 0.0, in_a_minute, self._judge.noise)
        self._before_trial = replace(before, accepted=accepted, seconds=seconds)
        self._rechecks.tried_at = now
        self._search.fix(max(1 / LONGEST_OWN_WAIT, TRIAL * tried))
        self._judge.begin_trial(now, self._search.epoch, at_start=self._start.lasts)

    def _take_verdict(self, verdict: Event, now: float) -> None:
        before, self._before_trial = self._before_trial, None
        if before is None:
            return
        if verdict == "noise":
            if not before.in_a_minute and is_new(self._judge.noise, before.noise):
                # What seemed to be a limit was this noise. After a minute, the limit is well measured.
                self._start.limit_found = False
            self._search.restore(before.rate, before.rate if self._start.limit_found else None, now)
        else:
            self._start.find_limit()
            self._search.restore(before.rate, None, now)
            self._search.cut(before.ceiling, before.measured_over, STEADY, now)
        self._begin_again(now, 0.0)

    def _recheck(self, now: float) -> None:
        """Tries less now and then, more and more rarely: noise may have become a limit unseen.

        Not in an outage: the rate that gets through then is not the server's limit.
        """
        steady = now - self._cut_at - self._waited >= STEADY and self.paused_until <= now
        if not steady or self._judge.on_trial or self._trouble_since is not None:
            return
        if self._rechecks.is_due(now, self._judge.noise):
            self._judge.forget()  # few refusals more than usual are no reason to test for a larger share
            accepted = self._known.sent.sent_since(now - STEADY) / STEADY
            self._begin_trial(now, accepted / (1 - self._judge.noise), STEADY, accepted)

    def _slow_down(self, now: float, wait: float) -> bool:
        """Lowers the rate; returns False if that can't help."""
        # Token estimates that were too low are an equally likely cause.
        self._known.forget_use()
        if self._refused_since_cut and self._known.sent.sent_since(self._cut_at) < self._least_measured:
            self._wait_longer(now, wait)
            return False
        few_sent = self._known.sent.requests < LEAST_MEASURED_BY
        if not self._taken and few_sent and self._search.start_slowly(now):
            self._begin_again(now, wait)
            return True
        accepted, seconds = self._accepted(now, wait)
        known = self._known.requests_per_second
        if now - self._cut_at - self._waited >= STEADY and known <= (self._search.rate or known):
            # A known limit that was kept for so long is about right: the server counts it differently.
            accepted = max(accepted, known)
        self._search.cut(accepted, seconds, now - self._cut_at, now + wait)
        self._begin_again(now, wait)
        return True

    def _begin_again(self, now: float, wait: float) -> None:
        self._cut_at, self._waited, self._refused_since_cut = now, wait, 1
        self._taken_since_cut = False
        self._judge.forget()
        self._known.sent.begin_period()

    @property
    def _least_measured(self) -> float:
        """Returns how many requests must have got through since the cut for the rate to be the likely cause.

        More than one where a limit is known: then a full window is the likely cause.
        """
        return max(1.0, min(MEASURED_REQUESTS, self._known.requests_per_second))

    def _wait_longer(self, now: float, wait: float) -> None:
        """Waits longer, since next to nothing got through after the cut: the rate is not the cause."""
        own_wait = min(LONGEST_OWN_WAIT, 2.0 ** (self._refused_since_cut - 1))
        self.paused_until = max(self.paused_until, now + (wait or own_wait))
        self._waited = self.paused_until - self._cut_at
        self._refused_since_cut += 1
        self._search.new_epoch()

    def _accepted(self, now: float, wait: float) -> tuple[float, float]:
        """Returns the rate in requests per second accepted before the refusal, and over how many seconds."""
        return accepted_rate(
            self._known.sent,
            now,
            began=now if self._began is None else self._began,
            cut_at=self._cut_at,
            waited=self._waited,
            wait=wait,
            taken=1 - self._judge.noise,
            ceiling=None if self._known.requests.per_minute else self._search.ceiling,
        )
