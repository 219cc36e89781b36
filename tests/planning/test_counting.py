"""The worst case of a labelled row covers whatever its votes and repairs come to."""

import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.amounts import NOTHING
from batchrun.engine.pricing import PriceList
from batchrun.exchange import Completion
from batchrun.job.labels import Labels
from batchrun.labels.parser import make_parser
from batchrun.rows.history import RowHistory
from batchrun.rows.labelling import Labelling
from batchrun.runs.plan.counts import Counts, _add_labelled
from tests.labels.test_labelling import ROW

if TYPE_CHECKING:
    from batchrun.client.request import Request

TARIFF = PriceList(5 * 10**9, 15 * 10**9)
SCHEMA = {"type": "object", "properties": {"x": {"enum": ["a", "b"]}}, "required": ["x"]}
READERS = [
    make_parser(Labels(choices=("yes", "no"))),
    make_parser(Labels(json_schema=SCHEMA)),
    make_parser(Labels(pattern="[a-z]+\\d")),
]
ANSWERS = st.one_of(
    st.sampled_from(["yes", "no", "x1", '{"x": "a"}', "\x01" * 3_000, '"\\' * 3_000, "\U0001f600" * 2_500]),
    st.text(max_size=200),
    st.builds(
        lambda key: '{"x": "c", "' + "k" * key + '": ["' + "\u0007" * 50 + '"]}', st.integers(0, 3_000)
    ),
)


@given(
    st.sampled_from(READERS),
    st.integers(0, 3),
    st.integers(1, 4),
    st.lists(ANSWERS, min_size=16, max_size=16),
    st.randoms(use_true_random=False),
)
def test_no_answers_cost_more_than_the_worst_case_of_the_row_at_any_time(
    parser: object, repair: int, votes: int, answers: list[str], draw: random.Random
) -> None:
    labelling = Labelling(parser, repair, votes)  # type: ignore[arg-type]
    known: dict[bytes, Completion] = {}
    made: dict[bytes, Request] = {}
    spent = NOTHING
    left = iter(answers)
    bounds = []
    while True:
        state = labelling.state(ROW, known.get)
        counts = Counts()
        record = RowHistory(None, state=state, known=tuple(known.items()))
        _add_labelled(counts, ROW, TARIFF, labelling, record)
        bounds.append((counts, spent, len(known)))
        if state.label_result is not None:
            break
        made.update((request.digest, request) for request in state.open)
        request = draw.choice(state.open)
        spent = spent.plus(TARIFF.worst_case(request.input_bound, request.output_bound or 0))
        known[request.digest] = Completion(next(left))
    dearest = max(TARIFF.worst_case(one.input_bound, one.output_bound or 0).nano_usd for one in made.values())
    for counts, before, ended in bounds[:-1]:
        assert spent.nano_usd - before.nano_usd <= counts.worst.nano_usd
        assert spent.tokens - before.tokens <= counts.worst.tokens
        assert len(known) - ended <= counts.requests_at_most
        assert counts.requests <= counts.requests_at_most
        assert dearest <= counts.worst_request


@pytest.mark.parametrize(("votes", "repair", "sure", "at_most"), [(1, 0, 1, 1), (5, 2, 3, 15), (2, 1, 2, 4)])
def test_a_row_takes_its_first_wave_of_votes_for_sure(
    votes: int, repair: int, sure: int, at_most: int
) -> None:
    counts = Counts()
    _add_labelled(counts, ROW, TARIFF, Labelling(READERS[0], repair, votes), None)
    assert (counts.requests, counts.requests_at_most, counts.in_progress) == (sure, at_most, 0)
    assert counts.output_bound == sure * (ROW.output_bound or 0)
