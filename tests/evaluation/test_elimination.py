"""Which candidates a race gives up: what is certain, and how often it is wrong."""

from collections.abc import Sequence

import numpy as np
import pytest

from batchrun.evaluation.elimination import Elimination
from batchrun.evaluation.frame import NO_GROUPS, SamplingFrame
from batchrun.evaluation.statistics.sampling_order import Groups, cluster_order
from batchrun.job.evaluation import Evaluation
from tests.evaluation.population import Floats

PLAIN = Evaluation(expected="gold", metric="exact")
CLUSTERED = Evaluation(expected="gold", metric="exact", cluster="author")


def plain_frame(rows: int) -> SamplingFrame:
    return SamplingFrame(np.arange(rows), np.ones(rows, np.bool_), NO_GROUPS)


def answers(rng: np.random.Generator, shares: Sequence[float], rows: int) -> list[Floats]:
    """The scores of candidates whose shares of right answers in all rows are these: most rows are as easy or
    as hard for all of them."""
    ease = rng.random(rows)
    scores = [(0.7 * ease + 0.3 * rng.random(rows) < 0.6).astype(np.float64) for _ in shares]
    return [_with_sum(rng, score, round(share * rows)) for score, share in zip(scores, shares, strict=True)]


def _with_sum(rng: np.random.Generator, scores: Floats, right: int) -> Floats:
    lacking = right - int(scores.sum())
    places = rng.permutation(np.flatnonzero(scores == (lacking < 0)))[: abs(lacking)]
    scores[places] = float(lacking > 0)
    return scores


def raced(scores: Sequence[Floats], rows_a_round: int, evaluation: Evaluation = PLAIN) -> Elimination:
    """A whole race over the scores of all rows, without a cap."""
    race = Elimination(plain_frame(scores[0].size), evaluation, len(scores))
    sent = [0] * len(scores)
    for target in range(rows_a_round, scores[0].size + rows_a_round, rows_a_round):
        left = [place for place in range(len(scores)) if place not in race.worse()]
        if len(left) < 2:
            break
        for place in left:
            sent[place] = target
        race.feed([each[:n] for each, n in zip(scores, sent, strict=True)])
    return race


def wrongly_given_up(race: Elimination, shares: Sequence[float]) -> bool:
    decided = [each for each in race.differences() if each.better is not None]
    return any(
        shares[each.a if each.better == each.b else each.b] >= shares[each.better or 0] for each in decided
    )


def test_a_worse_candidate_is_given_up_and_the_pairs_that_are_open_stay_open() -> None:
    scores = answers(np.random.default_rng(5), [0.7, 0.7, 0.3], 1000)
    race = raced(scores, 25)
    assert set(race.worse()) == {2}
    assert race.worse()[2].better in (0, 1)
    assert 0 < (race.worse()[2].after or 0) < 300
    open_one = race.differences()[0]
    assert (open_one.a, open_one.b, open_one.better, open_one.rows) == (0, 1, None, 1000)
    assert open_one.low == pytest.approx(0, abs=1e-9) == open_one.high


def test_feeding_all_at_once_finds_what_feeding_in_rounds_does() -> None:
    scores = answers(np.random.default_rng(6), [0.8, 0.6, 0.5], 400)
    once, in_rounds = (Elimination(plain_frame(400), PLAIN, 3) for _ in range(2))
    once.feed(scores)
    for rows in (1, 7, 7, 150, 400):
        in_rounds.feed([each[:rows] for each in scores])
    assert once.differences() == in_rounds.differences()


def test_rows_without_a_score_count_against_a_decision() -> None:
    """Every answer of one is right, and none of the other: unless the missing ones could make up for it."""
    right, wrong = np.ones(100), np.zeros(100)
    missing = right.copy()
    missing[:60] = np.nan
    sure, unsure = Elimination(plain_frame(100), PLAIN, 2), Elimination(plain_frame(100), PLAIN, 2)
    sure.feed([right, wrong])
    unsure.feed([missing, wrong])
    assert set(sure.worse()) == {1}
    assert unsure.worse() == {}
    (difference,) = unsure.differences()
    assert (difference.value, difference.rows) == (1.0, 100)


def test_whole_clusters_decide_where_rows_belong_together() -> None:
    rng = np.random.default_rng(7)
    clusters = Groups(np.repeat(np.arange(40, dtype=np.int32), 10), [f"author {n}" for n in range(40)])
    frame = SamplingFrame(cluster_order(range(400), clusters, 0), np.ones(400, np.bool_), clusters)
    race = Elimination(frame, CLUSTERED, 2)
    better, worse = answers(rng, [0.9, 0.2], 400)
    race.feed([better[:9], worse[:9]])
    assert race.differences()[0].value is None, "no cluster is whole yet"
    race.feed([better, worse])
    assert set(race.worse()) == {1}
    assert (race.worse()[1].after or 0) % 10 == 0


def share_of_wrong_races(shares: Sequence[float], races: int, rows: int) -> float:
    wrong = 0
    for seed in range(races):
        scores = answers(np.random.default_rng(seed), shares, rows)
        wrong += wrongly_given_up(raced(scores, 20), shares)
    return wrong / races


def test_of_three_equal_candidates_one_is_given_up_in_few_races() -> None:
    assert share_of_wrong_races([0.6, 0.6, 0.6], races=60, rows=120) <= 0.1


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "shares", [[0.6, 0.6], [0.6, 0.6, 0.6], [0.6, 0.6, 0.6, 0.6, 0.6], [0.7, 0.7, 0.5]], ids=str
)
def test_at_most_5_percent_of_races_say_anything_wrong(shares: list[float]) -> None:
    """A race is checked after every row. It is wrong if it calls a candidate worse that isn't."""
    races = 1_000
    found = share_of_wrong_races(shares, races, rows=500)
    print(f"{len(shares)} candidates of {shares}: {100 * found:.1f} % of {races:,} races are wrong")
    assert found <= 0.05


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_race_finds_the_best_with_fewer_rows_than_equal_shares_would_take() -> None:
    """Three candidates, the best by 10 and 30 points: it is found in most races, before all rows are sent."""
    shares, rows, races = [0.7, 0.6, 0.4], 1_000, 200
    found, spent = 0, []
    for seed in range(races):
        race = raced(answers(np.random.default_rng(seed), shares, rows), 20)
        found += set(race.worse()) == {1, 2}
        sent = [
            max(each.rows for each in race.differences() if place in (each.a, each.b)) for place in range(3)
        ]
        spent.append(sum(sent) / (3 * max(sent)))
    print(
        f"the best of {shares} found in {found / races:.1%}, with {np.mean(spent):.0%} of equal shares' rows"
    )
    assert found / races >= 0.9
    assert np.mean(spent) < 0.9
