"""Where a labelled row stands: repairs, votes, and what is asked again, whatever comes in whatever order."""

import dataclasses
import random
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.client.messages.follow_up import with_max_tokens
from batchrun.client.request import Request, derived_digest
from batchrun.exchange import Completion
from batchrun.job.labels import Labels
from batchrun.labels.label import InvalidLabel, Label
from batchrun.labels.parser import LabelParser, make_parser
from batchrun.rows.active import ActiveRows, Row
from batchrun.rows.labelling import Labelling, RowState
from batchrun.rows.result import RowResult

ANSWERS = ["yes", "no", "perhaps", "yes or no", "", None]
PARSER = make_parser(Labels(choices=("yes", "no")))
BODY = msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": "Is it?"}]})
ROW = Request(BODY, b"r" * 16, 100, 10)


def labelling(repair: int = 0, votes: int = 1, asks_again_before: int = 0) -> Labelling:
    return Labelling(PARSER, repair, votes, asks_again_before)


def played(rules: Labelling, answers: Iterator[str | None], draw: random.Random) -> tuple[RowState, int]:
    """Answers open requests in random order until the row is decided; the end, and the requests made."""
    known: dict[bytes, Completion] = {}
    made: set[bytes] = set()
    while (state := rules.state(ROW, known.get)).label_result is None:
        made.update(request.digest for request in state.open)
        known[draw.choice(state.open).digest] = Completion(next(answers))
    return state, len(made)


def test_a_label_ends_a_row() -> None:
    state, made = played(labelling(repair=2), iter(["Yes."]), random.Random(0))
    assert state.label_result is not None
    assert state.label_result.label is not None
    assert (state.label_result.label.text, state.label_result.problem, made) == ("yes", None, 1)


def test_an_invalid_answer_is_sent_back_with_the_reason_until_repairs_are_used_up() -> None:
    known = {ROW.digest: Completion("perhaps")}
    (repair,) = labelling(repair=1).state(ROW, known.get).open
    turns = msgspec.json.decode(repair.body)["messages"]
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]
    assert turns[1]["content"] == "perhaps"
    known[repair.digest] = Completion("maybe")
    label_result = labelling(repair=1).state(ROW, known.get).label_result
    assert label_result is not None
    assert (label_result.label, label_result.answered, label_result.last) == (None, True, repair.digest)
    assert label_result.problem


def test_the_bound_of_a_repair_covers_the_turns_that_were_added() -> None:
    (repair,) = labelling(repair=1).state(ROW, {ROW.digest: Completion('per\n"haps" ü')}.get).open
    assert repair.input_bound >= ROW.input_bound + len(repair.body) - len(ROW.body) + 32
    assert repair.row == ROW.digest
    assert repair.digest != ROW.digest


def test_a_row_whose_request_failed_has_failed_and_one_whose_repair_failed_is_invalid() -> None:
    rules = labelling(repair=1)
    failed = rules.state(ROW, {ROW.digest: Completion(None)}.get).label_result
    assert failed is not None
    assert not failed.answered
    known = {ROW.digest: Completion("perhaps")}
    known[rules.state(ROW, known.get).open[0].digest] = Completion(None)
    invalid = rules.state(ROW, known.get).label_result
    assert invalid is not None
    assert (invalid.answered, invalid.last) == (True, ROW.digest)


def test_votes_are_requests_of_their_own_with_the_same_body() -> None:
    first, second = labelling(votes=3).state(ROW, dict[bytes, Completion]().get).open
    assert (first, second.body, second.row) == (ROW, ROW.body, ROW.digest)
    assert second.digest != first.digest


def test_a_third_vote_is_asked_only_where_two_disagree() -> None:
    rules = labelling(votes=3)
    agreed, made = played(rules, iter(["yes", "yes"]), random.Random(0))
    assert agreed.label_result is not None
    assert (made, agreed.label_result.agreement, agreed.label_result.saved) == (2, 1.0, 1)
    parted, made = played(rules, iter(["yes", "no", "no"]), random.Random(0))
    assert parted.label_result is not None
    assert parted.label_result.label is not None
    assert (made, parted.label_result.label.text, parted.label_result.agreement) == (3, "no", 2 / 3)


def test_a_tie_is_no_label() -> None:
    state, _ = played(labelling(votes=2), iter(["yes", "no"]), random.Random(0))
    assert state.label_result is not None
    assert state.label_result.label is None
    assert "tie" in (state.label_result.problem or "")


def test_an_invalid_row_is_asked_anew_only_by_a_run_that_wants_it() -> None:
    """And the new series counts from then on, also for runs that don't ask again."""
    known = {ROW.digest: Completion("perhaps", run=1)}
    assert labelling().state(ROW, known.get).label_result is not None
    (again,) = labelling(asks_again_before=2).state(ROW, known.get).open
    assert again.body == ROW.body
    known[again.digest] = Completion("yes", run=2)
    label_result = labelling().state(ROW, known.get).label_result
    assert label_result is not None
    assert label_result.label is not None
    known[again.digest] = Completion("perhaps", run=2)
    assert labelling(asks_again_before=2).state(ROW, known.get).label_result is not None
    assert labelling(asks_again_before=3).state(ROW, known.get).open


def test_votes_that_were_bought_are_the_rows_also_where_they_are_needed_no_more() -> None:
    """A tie of yes, no and a failure; the failed vote, sent again, says yes, and two votes decide."""
    rules = labelling(votes=3)
    known: dict[bytes, Completion] = {}
    for answer in (None, "yes", "no"):
        known[rules.state(ROW, known.get).open[0].digest] = Completion(answer, run=1)
    known[ROW.digest] = Completion("yes", run=2)
    state = rules.state(ROW, known.get)
    assert state.label_result is not None
    assert state.label_result.labels == ("yes", "yes")
    assert set(known) <= set(state.asked)


@pytest.mark.parametrize("lacking", ["perhaps", None])
def test_a_row_that_has_its_label_is_not_asked_anew_for_a_vote_that_has_none(lacking: str | None) -> None:
    """It is paid for and answered. One without a label is asked for the vote that it lacks."""
    rules, known = labelling(votes=3), {ROW.digest: Completion(lacking, run=1)}
    for answer in ("yes", "yes"):
        known[rules.state(ROW, known.get).open[0].digest] = Completion(answer, run=1)
    decided = rules.state(ROW, known.get)
    assert decided.label_result is not None
    assert labelling(votes=3, asks_again_before=2).state(ROW, known.get) == decided
    known[decided.asked[-1]] = Completion("no", run=1)
    assert len(labelling(votes=3, asks_again_before=2).state(ROW, known.get).open) == 1


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
    state, made = played(rules, iter(answers), random.Random(seed))
    label_result = state.label_result
    assert label_result is not None
    assert made <= votes * (1 + repair)
    assert len(label_result.labels) + label_result.saved == votes
    if label_result.label is not None:
        assert label_result.label.text in label_result.labels
        assert label_result.agreement == label_result.labels.count(label_result.label.text) / len(
            label_result.labels
        )
    else:
        assert label_result.problem or not label_result.answered


@given(votes=st.integers(1, 5), repair=st.integers(0, 2), seed=st.integers(0, 50))
def test_the_end_does_not_depend_on_the_order_in_which_answers_come(
    votes: int, repair: int, seed: int
) -> None:
    """Each request has its answer by its digest, so a resumed run comes to the same end."""

    def answer(digest: bytes) -> Completion:
        return Completion(("yes", "no", "perhaps", None)[(digest[0] + seed) % 4])

    def end(draw: random.Random) -> RowState:
        known: dict[bytes, Completion] = {}
        rules = labelling(votes=votes, repair=repair)
        while (state := rules.state(ROW, known.get)).label_result is None:
            digest = draw.choice(state.open).digest
            known[digest] = answer(digest)
        return state

    assert end(random.Random(1)) == end(random.Random(2))


@pytest.mark.parametrize("follows", [None, b"f" * 16])
def test_what_follows_belongs_to_the_row_that_it_follows(follows: bytes | None) -> None:
    row = msgspec.structs.replace(ROW, follows=follows)
    requests = labelling(votes=3).state(row, dict[bytes, Completion]().get).open
    assert {request.row for request in requests} == {row.row}


def test_the_label_of_a_response_is_read_once_however_often_its_row_is_looked_at() -> None:
    seen: list[str] = []

    def read(text: str, truncated: bool) -> Label | InvalidLabel:
        seen.append(text)
        return PARSER.read(text, truncated)

    rows = ActiveRows(Labelling(LabelParser(read, PARSER.allowed), repair=1, votes=3))
    following, queue = rows.begin(Row(0, ROW)), list[Request]()
    answers = ["perhaps", "maybe", "yes", "no", "yes"]
    for answer in answers:
        assert isinstance(following, list)
        queue.extend(following)
        following = rows.take(queue.pop(0), Completion(answer))
    assert isinstance(following, RowResult)
    assert seen == answers


@pytest.mark.parametrize("seen", [(), (10,), (7, 10, 99)])
def test_a_repair_that_was_bought_when_its_identity_had_max_tokens_is_found(seen: tuple[int, ...]) -> None:
    row = msgspec.structs.replace(ROW, body=with_max_tokens(ROW.body, 10))
    rules = dataclasses.replace(labelling(repair=1), seen=seen)
    known = {ROW.digest: Completion("perhaps")}
    (repair,) = rules.state(row, known.get).open
    former = derived_digest(ROW.digest, b"repair", repair.body)
    assert former != repair.digest
    assert former in rules.state(row, known.get).asked
    state = rules.state(row, (known | {former: Completion("yes")}).get)
    assert state.label_result is not None
    assert state.label_result.last == former


def test_a_cut_answer_without_a_label_is_raised_before_it_is_repaired() -> None:
    """And the repair has the max_tokens that the answer took."""
    row = msgspec.structs.replace(ROW, body=with_max_tokens(ROW.body, 10))
    rules = dataclasses.replace(labelling(repair=1), raises=(64,))
    known = {ROW.digest: Completion("perhaps it", "max_tokens", cap=10)}
    (raised,) = rules.state(row, known.get).open
    assert (raised.output_bound, msgspec.json.decode(raised.body)["max_tokens"]) == (64, 64)
    known[raised.digest] = Completion("perhaps it is", "end_turn", cap=64)
    (repair,) = rules.state(row, known.get).open
    assert (repair.output_bound, msgspec.json.decode(repair.body)["max_tokens"]) == (64, 64)
    known[repair.digest] = Completion("perhaps it", "max_tokens", cap=10)
    result = rules.state(row, known.get).label_result
    assert result is not None
    assert result.problem is not None
    assert "cut" in result.problem
    assert (
        rules.state(row, {ROW.digest: Completion("yes", "max_tokens", cap=10)}.get).label_result is not None
    )


@given(
    st.sampled_from([*ANSWERS, "Yes.", "no, cut"]),
    st.sampled_from([None, "end_turn", "max_tokens", "refusal"]),
    st.integers(0, 2),
    st.integers(1, 3),
    st.integers(0, 2),
)
def test_a_first_response_that_is_the_label_needs_no_request(
    answer: str | None, stop_reason: str | None, repair: int, votes: int, asks_again_before: int
) -> None:
    rules, completion = labelling(repair, votes, asks_again_before), Completion(answer, stop_reason, run=1)
    state = rules.state(ROW, {ROW.digest: completion}.get)
    labelled = state.label_result is not None and state.label_result.label is not None
    assert rules.state_of_label(ROW.digest, completion) == (state if labelled else None)
