"""Votes: which label several answers give, and how few of them have to be asked for."""

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.labels.votes import Ask, Decided, decide

samples_of_a_row = st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=25)


def ask_in_waves(answers: Sequence[str | None]) -> tuple[Decided, list[int]]:
    """The decision when asking goes on as `decide` says, and the sizes of the waves."""
    asked = 0
    waves = []
    while isinstance(verdict := decide(len(answers), answers[:asked]), Ask):
        assert verdict.more >= 1
        waves.append(verdict.more)
        asked += verdict.more
        assert asked <= len(answers), "more were asked than the job allows"
    return verdict, waves


def winner_of_all(answers: Sequence[str | None]) -> str | None:
    counts = Counter(answer for answer in answers if answer is not None)
    winners = [label for label, count in counts.items() if count == max(counts.values())]
    return winners[0] if len(winners) == 1 else None


@given(samples_of_a_row)
def test_stopping_early_changes_no_label(answers: list[str | None]) -> None:
    verdict, _ = ask_in_waves(answers)
    assert verdict.label == winner_of_all(answers)


@given(samples_of_a_row)
def test_asked_and_saved_are_all(answers: list[str | None]) -> None:
    verdict, waves = ask_in_waves(answers)
    assert verdict.asked == sum(waves)
    assert verdict.asked + verdict.saved == len(answers)


@given(samples_of_a_row)
def test_agreement_is_the_share_of_the_samples_asked(answers: list[str | None]) -> None:
    verdict, _ = ask_in_waves(answers)
    if verdict.label is None:
        assert verdict.agreement is None
        assert verdict.reason
    else:
        assert verdict.agreement == answers[: verdict.asked].count(verdict.label) / verdict.asked


@given(samples_of_a_row, st.integers(min_value=0, max_value=25))
def test_fewer_than_asked_for_could_not_decide(answers: list[str | None], cut: int) -> None:
    """Each wave is as small as it can be: with one sample less, nothing would be decided."""
    so_far = answers[:cut]
    verdict = decide(len(answers), so_far)
    if isinstance(verdict, Ask):
        for label in {*so_far, "d"} - {None}:
            assert isinstance(decide(len(answers), [*so_far, *[label] * (verdict.more - 1)]), Ask)


@pytest.mark.parametrize(("votes", "first"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (9, 5), (99, 50)])
def test_first_wave_is_a_bare_majority(votes: int, first: int) -> None:
    assert decide(votes, []) == Ask(first)


def test_agreement_of_the_first_wave_saves_the_rest() -> None:
    assert decide(5, ["a", "a", "a"]) == Decided("a", 1.0, 3, 2)


def test_plurality_is_enough() -> None:
    assert decide(5, ["a", None, "b", "a", "c"]) == Decided("a", 0.4, 5, 0)


def test_tie_is_no_label() -> None:
    verdict = decide(4, ["a", "b", "b", "a"])
    assert verdict == Decided(None, None, 4, 0, "a tie: a, b have 2 of 4 samples each")


def test_no_valid_sample_is_no_label() -> None:
    assert decide(3, [None, None, None]) == Decided(
        None, None, 3, 0, "none of the 3 samples has a valid label"
    )


def test_one_vote() -> None:
    assert decide(1, ["a"]) == Decided("a", 1.0, 1, 0)
    assert decide(1, [None]) == Decided(None, None, 1, 0, "no valid label")


def test_more_samples_than_votes_are_refused() -> None:
    with pytest.raises(ValueError, match="3 samples for 2 votes"):
        decide(2, ["a", "b", "c"])
