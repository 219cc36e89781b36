"""Decides whether refusals depend on the pace: a limit, or noise that is independent of it.

A refusal says "rate limit" also where replicas, shared capacity or a key's other users are behind it. It is
evidence about the rate only if sending less brings fewer of them. Three tests decide, on requests in sending
order:

- **A run** of refusals, too long for noise to be likely: a window is full, or almost nothing fits.
- **An excess**: more refusals than noise explains (Page's CUSUM of log-likelihood ratios).
- **A trial**, after an excess and now and then: for a while less is sent than was *accepted*. If a limit
  causes the refusals they stop; if they continue they are noise (Wald's sequential test). A bucket at its
  edge refuses requests in between accepted ones, as noise does, and only a trial tells them apart.

Times are seconds, given by the caller.
"""

from dataclasses import dataclass
from math import ceil, log, sqrt
from typing import Literal

from batchrun.engine.limits.send_order import Sent

UNLIKELY = 1e-6
"""Chance of a run by noise alone: at 100 requests a second and 1 % of noise, one in three hours."""
SHORTEST_RUN = 3
RUN_MEMORY = 200
"""Requests whose refusals determine how long a run may be; older ones fade."""
CERTAINTY = log(99)
"""Log-likelihood ratio from which an excess counts: 99 to 1."""
CERTAINTY_BESIDE_NOISE = log(999)
"""The same if noise is known, since a false alarm among its many refusals costs a cut."""
VERDICT = log(19)
"""The same for a trial: a wrong verdict costs another trial."""
LEAST_NOISE = 0.0015
"""Share of refusals below which they don't count as noise: the share that a limit leaves in a trial."""
CLEAR_NOISE = 0.015
"""The least share that an excess over no noise is tested for."""
MOST_TESTED = 0.5
"""The largest share that is tested for: a limit mostly refuses a larger share."""
ERRORS = 1.3
"""Standard errors of a Poisson count: nine in ten are less far off to one side."""
MOST_NOISE = 0.95
LEAST_REFUSED, LEAST_SENT, LEAST_SECONDS = 4, 12, 0.3
"""Minimum basis of an excess, since the rate accepted meanwhile is measured over it."""
SURE = 1.0
"""Standard errors by which the share of refusals must be lower than the noise, for the noise to fall."""
MEMORY = 3_000
"""Requests that the noise's share is based on; older ones fade."""

Event = Literal["run", "excess", "limit", "noise"]
"""The effect of a request: a run or an excess was noticed, or a trial reached its verdict."""


@dataclass(slots=True)
class Count:
    """Requests in sending order, sent from `began` to `last`."""

    began: float
    last: float = float("-inf")
    sent: int = 0
    refused: int = 0
    ratio: float = 0.0

    @property
    def seconds(self) -> float:
        return self.last - self.began

    def add(self, refused: bool, at: float, usual: float, unusual: float) -> None:
        """Adds the log-likelihood ratio of a share `unusual` of refusals against `usual`."""
        self.last = at
        self.sent += 1
        self.refused += refused
        self.ratio += log(unusual / usual) if refused else log((1 - unusual) / (1 - usual))


def is_new(share: float, noise: float) -> bool:
    """Returns whether a share of refusals is more than double the noise known so far."""
    return share > 2 * noise + 0.02


class RefusalJudge:
    """`noise` is the share of refusals that don't depend on the pace, 0 if there are none.

    The state is one of: nothing suspicious (`_excess` is None); an excess that adds up; a trial, made of the
    requests of `_trial_epoch`, which tests the `_suspected` share against the `_usual` one. Refusals that are
    new or more than double need two trials to be called noise (`confirms`): the first may have sent too much.
    `_recent` is the share of refusals among the last `_seen` requests; `_refused_lately` of `_sent_lately`
    say how long a run may be. `run_wait_until` is when all that were refused in the present run may be sent.
    """

    def __init__(self) -> None:
        self.noise = 0.0
        self._recent = 0.0
        self._run = 0
        self._refused_lately = self._sent_lately = 0.0
        self.run_wait_until = float("-inf")
        self._excess: Count | None = None
        self._trial: Count | None = None
        self._trial_epoch = -1
        self._suspected = self._usual = 0.0
        self.confirms = False
        self._seen = 0

    @property
    def on_trial(self) -> bool:
        return self._trial is not None

    @property
    def suspicion(self) -> Count | None:
        """Returns the excess so far."""
        return self._excess

    def settled(self, sent: Sent) -> Event | None:
        """Takes the next request of the current epoch in sending order."""
        refused = bool(sent.refused)
        if self._lengthen_run(sent, refused):
            return "run"
        if self.noise:
            self._fade(refused, may_rise=self._trial is not None)
        if self._trial is not None:
            return self._try(self._trial, sent.at, refused) if sent.epoch == self._trial_epoch else None
        if not self.noise and not sent.below and self._excess is None:
            return None
        return self._exceed(sent, refused)

    def begin_trial(self, now: float, epoch: int, *, at_start: bool = False) -> None:
        """Begins a trial: requests of `epoch` are sent at less than the accepted rate.

        `at_start`: nothing points to a limit yet, so that the latest requests tell the noise's share, too.
        """
        if self._excess is None:
            self._suspected, self._usual = self.noise, 0.5 * self.noise
        else:
            # An excess overstates the true share, since it was noticed for being large; a short one most.
            least = max(0.2, 1 - ERRORS / sqrt(max(1, self._excess.refused))) if at_start else 0.6
            seen = self._excess.refused / (self._excess.sent + 1)
            if at_start:
                seen = min(seen, (self._refused_lately + 1) / (self._sent_lately + 2))
            self._suspected = max(
                CLEAR_NOISE / 2, min(0.97, 1.5 * self.noise), least * min(MOST_TESTED, seen)
            )
            self._usual = self.noise or max(LEAST_NOISE, 0.1 * self._suspected)
        self._trial, self._trial_epoch = Count(now), epoch

    def begin_trial_again(self, at: float) -> None:
        """Restarts the trial at `at`: nothing gets through until then, whatever is sent."""
        self._trial = Count(at)

    def forget(self) -> None:
        """Discards the counts, since the pace has changed for another reason."""
        self._excess = self._trial = None
        self._run = 0
        self.confirms = False

    def take_back(self, suspicion: Count | None, refused_at: float, held: float, *, adds: bool) -> None:
        """Goes on with an excess that `forget` dropped, since a refusal of a request that was sent at
        `refused_at` turned out not to be a limit's. The `held` seconds of its pause are not part of the time.

        `adds` is False at a ceiling that is well known: a bucket refuses one request now and then there.
        """
        if self._excess is None:
            self._excess = suspicion
            if suspicion is not None:
                suspicion.began += held
        if not adds or self._trial is not None:
            return
        if self._excess is None:
            self._excess = Count(refused_at + held)
        self._excess.add(True, refused_at + held, LEAST_NOISE, CLEAR_NOISE)

    def _lengthen_run(self, sent: Sent, refused: bool) -> bool:
        if not refused:
            self._count_for_runs(min(self._run, SHORTEST_RUN) if self._run else 0, 1)
            self._run = 0
            self.run_wait_until = float("-inf")
            return False
        self._run += 1
        self.run_wait_until = max(self.run_wait_until, sent.at + sent.wait)
        if self._run < self.longest_by_noise:
            return False
        self._run = 0
        return True

    @property
    def longest_by_noise(self) -> int:
        """Returns the number of consecutive refusals that is too large for noise."""
        share = min(0.9, max(self.noise, (self._refused_lately + 1) / (self._sent_lately + 2)))
        return max(SHORTEST_RUN, ceil(log(UNLIKELY) / log(share)))

    def _count_for_runs(self, refused: int, taken: int) -> None:
        self._refused_lately += refused
        self._sent_lately += refused + taken
        if self._sent_lately > RUN_MEMORY:
            self._refused_lately *= RUN_MEMORY / self._sent_lately
            self._sent_lately = RUN_MEMORY

    def _fade(self, refused: bool, may_rise: bool) -> None:
        """Updates the noise's share. It may fall at any time but rises only at a low enough pace: else it
        would absorb the excess of a limit."""
        self._seen = min(MEMORY, self._seen + 1)
        self._recent += (refused - self._recent) / self._seen
        # A share that is lower by chance does not count: the noise would stay too low, and the rest look like
        # an excess.
        error = sqrt(self.noise * (1 - self.noise) / self._seen)
        self.noise = min(
            MOST_NOISE, self._recent if may_rise else min(self.noise, self._recent + SURE * error)
        )
        if self.noise < LEAST_NOISE:
            self.noise = 0.0

    def _exceed(self, sent: Sent, refused: bool) -> Event | None:
        if self._excess is None:
            if not refused:
                return None
            self._excess = Count(sent.at)
        excess = self._excess
        if self.noise:
            excess.add(refused, sent.at, self.noise, min(0.97, self.noise + max(0.05, 0.5 * self.noise)))
        else:
            excess.add(refused, sent.at, LEAST_NOISE, CLEAR_NOISE)
        if excess.ratio <= 0:
            self._excess = None
            return None
        measured = excess.seconds >= 1.0 or (excess.seconds >= LEAST_SECONDS and excess.sent >= LEAST_SENT)
        enough = excess.refused >= LEAST_REFUSED and measured
        certain = excess.ratio >= (CERTAINTY_BESIDE_NOISE if self.noise else CERTAINTY)
        return "excess" if enough and certain else None

    def _try(self, trial: Count, at: float, refused: bool) -> Event | None:
        trial.add(refused, at, self._usual, self._suspected)
        if abs(trial.ratio) < VERDICT or (trial.ratio > 0 and trial.sent < LEAST_SENT):
            return None
        self._trial = None
        share = trial.refused / trial.sent
        if trial.ratio > 0 and self._excess is None:
            return "noise"  # as before: its share is known from more than this trial
        if trial.ratio > 0 and not self.confirms and is_new(share, self.noise):
            self.confirms, self._excess = True, trial
            return "excess"
        # Only a former trial counts as well: the excess was sent at a pace that a limit may refuse.
        former = self._excess if self.confirms and trial.ratio > 0 else None
        self.confirms, self._excess = False, None
        if trial.ratio > 0 or self.noise:
            self._measure(trial, former)
        return "noise" if trial.ratio > 0 else "limit"

    def _measure(self, trial: Count, former: Count | None) -> None:
        """Takes the noise's share from trials; what was known before counts as much as ten requests."""
        refused, sent = (10 * self.noise, 10) if former is None else (former.refused, former.sent)
        self._seen = trial.sent + sent
        self.noise = self._recent = min(MOST_NOISE, max(LEAST_NOISE, (trial.refused + refused) / self._seen))
