"""The population of the simulations, and capped runs over it with the real ledger and requests in flight."""

import heapq
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from batchrun.amounts import Amount
from batchrun.engine.ledger import Cap, Ledger, Reservation, Shortfall

Floats = npt.NDArray[np.float64]

ROWS = 5_000
GROUPS = 50
MAX_TOKENS = 200


@dataclass(frozen=True)
class Population:
    """Rows in the order of the file, group after group. Amounts are tokens, one nano-USD each."""

    group: npt.NDArray[np.int32]
    cost: npt.NDArray[np.int64]
    worst_case: npt.NDArray[np.int64]
    right: Floats
    share: Floats


def population(seed: int = 2026) -> Population:
    """5,000 rows in 50 groups of different sizes. Longer rows cost more and are answered worse."""
    rng = np.random.default_rng(seed)
    sizes = rng.multinomial(ROWS, rng.dirichlet(np.full(GROUPS, 8.0)))
    group = np.repeat(np.arange(GROUPS, dtype=np.int32), sizes)
    difficulty = rng.normal(0, 0.5, GROUPS)[group]
    length = np.exp(5.5 + 0.5 * difficulty + 0.5 * rng.normal(0, 1, ROWS))
    answer = rng.integers(1, MAX_TOKENS + 1, ROWS)
    ease = 1.2 - 0.85 * (np.log(length) - 5.5) - 0.75 * difficulty
    chance = 1 / (1 + np.exp(-ease))
    right = (rng.random(ROWS) < chance).astype(np.float64)
    share = np.clip(chance + rng.normal(0, 0.15, ROWS), 0, 1)
    prompt = length.astype(np.int64)
    return Population(group, prompt + answer, 4 * prompt + MAX_TOKENS, right, share)


_NO_WORKER = Shortfall("in flight", may_pass=True)


@dataclass(frozen=True)
class CappedRun:
    """`started` rows were asked and cost `spent` after draining.

    `finished` are the responses that had arrived when the cap first refused a row.
    """

    started: list[int]
    finished: list[int]
    spent: int


def capped_run(
    order: npt.NDArray[np.int64], rows: Population, cap: int, rng: np.random.Generator, in_flight: int = 50
) -> CappedRun:
    """Rows are started in `order` while the ledger has room for their worst case under the cap.

    A request takes a time in proportion to its length, so that rows finish out of order.
    """
    ledger = Ledger((Cap("budget.usd", "nano_usd", cap),))
    duration = (rows.cost * rng.uniform(0.5, 1.5, rows.cost.size)).tolist()
    costs, worst_cases = rows.cost.tolist(), rows.worst_case.tolist()
    running: list[tuple[float, int, Reservation]] = []
    now = 0.0
    finished: list[int] = []
    at_first_refusal: list[int] | None = None
    for row in order.tolist():
        worst_case = Amount(worst_cases[row])
        reserved = ledger.reserve(worst_case) if len(running) < in_flight else _NO_WORKER
        while isinstance(reserved, Shortfall) and reserved.may_pass:
            if at_first_refusal is None and reserved is not _NO_WORKER:
                at_first_refusal = list(finished)
            now, done, reservation = heapq.heappop(running)
            ledger.settle(reservation, Amount(costs[done]))
            finished.append(done)
            reserved = ledger.reserve(worst_case)
        if isinstance(reserved, Shortfall):
            break
        heapq.heappush(running, (now + duration[row], row, reserved))
    for _, done, reservation in running:
        ledger.settle(reservation, Amount(costs[done]))
        finished.append(done)
    assert ledger.settled.nano_usd <= cap
    return CappedRun(finished, at_first_refusal or finished, ledger.settled.nano_usd)
