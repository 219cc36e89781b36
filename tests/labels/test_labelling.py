"""Where a labelled row stands: repairs, votes, and what is asked again, whatever comes in whatever order."""

import random
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.job.labels import Labels
from batchrun.labelling import Labelling, Reply, Standing
from batchrun.labels.reading import make_reader
from batchrun.prompts import Request

ANSWERS = ["yes", "no", "perhaps", "yes or no", "", None]
READER = make_reader(Labels(choices=("yes", "no")))
BODY = msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": "Is it?"}]})
ROW = Request(BODY, b"r" * 16, 100, 10)


def labelling(**more: int) -> Labelling:
    return Labelling(READER, **more)


def played(rules: Labelling, answers: Iterator[str | None], draw: random.Random) -> tuple[Standing, int]:
    """Answers open requests in random order until the row is decided; the end, and the requests made."""
    known: dict[bytes, Reply] = {}
    made: set[bytes] = set()
    while (standing := rules.standing(ROW, known.get)).verdict is None:
        made.update(request.digest for request in standing.open)
        known[draw.choice(standing.open).digest] = Reply(next(answers))
    return standing, len(made)


def test_a_label_ends_a_row() -> None:
    standing, made = played(labelling(repair=2), iter(["Yes."]), random.Random(0))
    assert standing.verdict is not None
    assert standing.verdict.label is not None
    assert (standing.verdict.label.text, standing.verdict.problem, made) == ("yes", None, 1)


def test_an_invalid_answer_is_sent_back_with_the_reason_until_repairs_are_used_up() -> None:
    known = {ROW.digest: Reply("perhaps")}
    (repair,) = labelling(repair=1).standing(ROW, known.get).open
    turns = msgspec.json.decode(repair.body)["messages"]
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]
    assert turns[1]["content"] == "perhaps"
    known[repair.digest] = Reply("maybe")
    verdict = labelling(repair=1).standing(ROW, known.get).verdict
    assert verdict is not None
    assert (verdict.label, verdict.answered, verdict.last) == (None, True, repair.digest)
    assert verdict.problem


def test_the_bound_of_a_repair_covers_the_turns_that_were_added() -> None:
    (repair,) = labelling(repair=1).standing(ROW, {ROW.digest: Reply('per\n"haps" ü')}.get).open
    assert repair.input_bound >= ROW.input_bound + len(repair.body) - len(ROW.body) + 32
    assert repair.row == ROW.digest
    assert repair.digest != ROW.digest


def test_a_row_whose_request_failed_has_failed_and_one_whose_repair_failed_is_invalid() -> None:
    rules = labelling(repair=1)
    failed = rules.standing(ROW, {ROW.digest: Reply(None)}.get).verdict
    assert failed is not None
    assert not failed.answered
    known = {ROW.digest: Reply("perhaps")}
    known[rules.standing(ROW, known.get).open[0].digest] = Reply(None)
    invalid = rules.standing(ROW, known.get).verdict
    assert invalid is not None
    assert (invalid.answered, invalid.last) == (True, ROW.digest)


def test_votes_are_requests_of_their_own_with_the_same_body() -> None:
    first, second = labelling(votes=3).standing(ROW, dict[bytes, Reply]().get).open
    assert (first, second.body, second.row) == (ROW, ROW.body, ROW.digest)
    assert second.digest != first.digest


def test_a_third_vote_is_asked_only_where_two_disagree() -> None:
    rules = labelling(votes=3)
    agreed, made = played(rules, iter(["yes", "yes"]), random.Random(0))
    assert agreed.verdict is not None
    assert (made, agreed.verdict.agreement, agreed.verdict.saved) == (2, 1.0, 1)
    parted, made = played(rules, iter(["yes", "no", "no"]), random.Random(0))
    assert parted.verdict is not None
    assert parted.verdict.label is not None
    assert (made, parted.verdict.label.text, parted.verdict.agreement) == (3, "no", 2 / 3)


def test_a_tie_is_no_label() -> None:
    standing, _ = played(labelling(votes=2), iter(["yes", "no"]), random.Random(0))
    assert standing.verdict is not None
    assert standing.verdict.label is None
    assert "tie" in (standing.verdict.problem or "")


def test_an_invalid_row_is_asked_anew_only_by_a_run_that_wants_it() -> None:
    """And the new series counts from then on, also for runs that don't ask again."""
    known = {ROW.digest: Reply("perhaps", run=1)}
    assert labelling().standing(ROW, known.get).verdict is not None
    (again,) = labelling(asks_again_before=2).standing(ROW, known.get).open
    assert again.body == ROW.body
    known[again.digest] = Reply("yes", run=2)
    verdict = labelling().standing(ROW, known.get).verdict
    assert verdict is not None
    assert verdict.label is not None
    known[again.digest] = Reply("perhaps", run=2)
    assert labelling(asks_again_before=2).standing(ROW, known.get).verdict is not None
    assert labelling(asks_again_before=3).standing(ROW, known.get).open


def test_votes_that_were_bought_are_the_rows_also_where_they_are_needed_no_more() -> None:
    """A tie of yes, no and a failure; the failed vote, asked anew, says yes, and two votes decide."""
    rules = labelling(votes=3)
    known: dict[bytes, Reply] = {}
    for answer in (None, "yes", "no"):
        known[rules.standing(ROW, known.get).open[0].digest] = Reply(answer, run=1)
    known[ROW.digest] = Reply("yes", run=2)
    standing = rules.standing(ROW, known.get)
    assert standing.verdict is not None
    assert standing.verdict.labels == ("yes", "yes")
    assert set(known) <= set(standing.asked)


@pytest.mark.parametrize("lacking", ["perhaps", None])
def test_a_row_that_has_its_label_is_not_asked_anew_for_a_vote_that_has_none(lacking: str | None) -> None:
    """It is paid for and answered. One without a label is asked for the vote that it lacks."""
    rules, known = labelling(votes=3), {ROW.digest: Reply(lacking, run=1)}
    for answer in ("yes", "yes"):
        known[rules.standing(ROW, known.get).open[0].digest] = Reply(answer, run=1)
    decided = rules.standing(ROW, known.get)
    assert decided.verdict is not None
    assert labelling(votes=3, asks_again_before=2).standing(ROW, known.get) == decided
    known[decided.asked[-1]] = Reply("no", run=1)
    assert len(labelling(votes=3, asks_again_before=2).standing(ROW, known.get).open) == 1


@given(
    votes=st.integers(1, 7),
    repair=st.integers(0, 2),
    answers=st.lists(
        st.sampled_from(["yes", "no", "perhaps", "yes or no", "", None]), min_size=21, max_size=21
    ),
    seed=st.integers(0, 100),
)
def test_a_row_ends_within_its_requests_and_never_with_a_label_that_no_sample_has(
    votes: int, repair: int, answers: list[str | None], seed: int
) -> None:
    rules = labelling(votes=votes, repair=repair)
    standing, made = played(rules, iter(answers), random.Random(seed))
    verdict = standing.verdict
    assert verdict is not None
    assert made <= votes * (1 + repair)
    assert len(verdict.labels) + verdict.saved == votes
    if verdict.label is not None:
        assert verdict.label.text in verdict.labels
        assert verdict.agreement == verdict.labels.count(verdict.label.text) / len(verdict.labels)
    else:
        assert verdict.problem or not verdict.answered


@given(votes=st.integers(1, 5), repair=st.integers(0, 2), seed=st.integers(0, 50))
def test_the_end_does_not_depend_on_the_order_in_which_answers_come(
    votes: int, repair: int, seed: int
) -> None:
    """Each request has its answer by its digest, so a resumed run comes to the same end."""

    def answer(digest: bytes) -> Reply:
        return Reply(("yes", "no", "perhaps", None)[(digest[0] + seed) % 4])

    def end(draw: random.Random) -> Standing:
        known: dict[bytes, Reply] = {}
        rules = labelling(votes=votes, repair=repair)
        while (standing := rules.standing(ROW, known.get)).verdict is None:
            digest = draw.choice(standing.open).digest
            known[digest] = answer(digest)
        return standing

    assert end(random.Random(1)) == end(random.Random(2))


@pytest.mark.parametrize("follows", [None, b"f" * 16])
def test_what_follows_belongs_to_the_row_that_it_follows(follows: bytes | None) -> None:
    row = msgspec.structs.replace(ROW, follows=follows)
    requests = labelling(votes=3).standing(row, dict[bytes, Reply]().get).open
    assert {request.row for request in requests} == {row.row}
