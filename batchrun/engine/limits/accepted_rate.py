"""The rate that a server accepted before it refused a request."""

from math import sqrt

from batchrun.engine.limits.rate_search import BETA
from batchrun.engine.limits.sliding_window import MINUTE, SendLog


def accepted_rate(
    sent: SendLog,
    now: float,
    *,
    began: float,
    cut_at: float,
    waited: float,
    wait: float,
    taken: float,
    ceiling: float | None,
) -> tuple[float, float]:
    """Returns requests per second, and over how many seconds they were counted.

    `sent` counts requests, of which the share `taken` was accepted. The run `began` sending; the rate was
    last cut at `cut_at`, before `waited` seconds of pause. The refusal demands to `wait`. `ceiling` is that
    of the search, None where a limit is known.

    What the server accepted in the last minute is its limit, in whatever unit. In a younger run a long `wait`
    means that a window was full, a short one that a bucket is empty. Since the last cut, a bucket gave
    its rate, or its rate plus the refill during the pause. These can't be told apart: the geometric mean
    lies between. While the rate grew, the mean is too low, and the last second tells more. Counts over
    less than a second tell little: the ceiling falls by one cut at most.
    """
    age = now + wait - began
    since_cut = now - cut_at
    if age >= MINUTE or since_cut > age:
        seconds = max(0.001, min(MINUTE, age))
        return sent.sent_since(now - MINUTE) / seconds / taken, seconds
    sending = max(0.001, since_cut - waited)
    mean = sqrt(max(0.001, since_cut) * sending)  # a clock may show the same time twice
    accepted = sent.sent_since(cut_at) / mean / taken
    if ceiling is None:
        return accepted, since_cut
    if sending < 1.0:
        return max(accepted, BETA * ceiling), since_cut
    return max(accepted, sent.sent_since(now - 1.0) / taken), since_cut


def accepted_in_a_minute(sent: SendLog, now: float, began: float | None, taken: float) -> float:
    """Returns the requests per second accepted over the last minute; 0 in a younger run."""
    if began is None or now - began < MINUTE:
        return 0.0
    return sent.sent_since(now - MINUTE) / MINUTE / taken
