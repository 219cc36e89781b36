"""Token counts: exact on the published example, bounded by bytes, consistent with the cuts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.sandbox.replies import EXAMPLE_ANSWER, EXAMPLE_PROMPT
from batchrun.sandbox.tokens import count_tokens, first_tokens
from batchrun.sandbox.wire import Completion, complete, delta_events


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        (EXAMPLE_PROMPT, 8),
        (EXAMPLE_ANSWER, 32),
        ("", 0),
        (" \n\t", 0),
        ("Stonehenge", 2),
        ("3000", 2),
        ("a_b", 3),
        ("...", 3),
        ("日本語", 1),
        ("e\u0301", 2),
        ("👩‍🚀", 3),
    ],
)
def test_counts_words_by_six_letters_digits_by_three_and_the_rest_singly(text: str, tokens: int) -> None:
    assert count_tokens(text) == tokens


@given(st.text())
def test_never_more_tokens_than_utf8_bytes(text: str) -> None:
    assert count_tokens(text) <= len(text.encode("utf-8", "surrogatepass"))


@given(st.text(), st.integers(1, 30))
def test_a_cut_text_has_exactly_as_many_tokens_as_it_was_cut_to(text: str, limit: int) -> None:
    cut = first_tokens(text, limit)
    assert text.startswith(cut)
    assert count_tokens(cut) == min(limit, count_tokens(text))


@given(st.text())
def test_the_deltas_of_a_stream_hold_every_token_once(text: str) -> None:
    assert sum(delta.tokens for delta in delta_events(Completion(text, 0, "end_turn", None))) == count_tokens(
        text
    )


def test_a_stop_sequence_wins_over_max_tokens_only_if_it_comes_first() -> None:
    assert complete("one two STOP three", 10, ["STOP"]).text == "one two "
    assert complete("one two STOP three", 10, ["STOP"]).stop_reason == "stop_sequence"
    assert complete("one two STOP three", 1, ["STOP"]).stop_reason == "max_tokens"
    assert complete("one two", 2, ["STOP"]).stop_reason == "end_turn"
    assert complete("a b c", 9, ["c", "b"]).stop_sequence == "b"
