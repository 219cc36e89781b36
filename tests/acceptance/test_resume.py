"""Running again asks only for what has no answer: a request's identity is its content."""

import polars as pl
import pyarrow.parquet as pq
import pytest

from tests.acceptance.command import Place

TEXTS = [f"text {n}" for n in range(20)]


@pytest.fixture
def asked(place: Place) -> Place:
    """A place where all twenty rows have been asked and answered."""
    place.texts(*TEXTS)
    assert place.run().code == 0
    assert place.requests == len(TEXTS)
    return place


def test_a_second_run_sends_nothing_and_writes_the_same_rows(asked: Place) -> None:
    before = asked.rows()
    done = asked.run()
    assert done.code == 0
    assert asked.requests == len(TEXTS)
    assert asked.rows() == before


def test_an_output_that_was_deleted_comes_back_without_asking(asked: Place) -> None:
    before = asked.rows()
    asked.output.unlink()
    assert asked.run().code == 0
    assert asked.requests == len(TEXTS)
    assert asked.rows() == before


def test_ten_appended_rows_send_ten(asked: Place) -> None:
    asked.texts(*TEXTS, *(f"new {n}" for n in range(10)))
    assert asked.run().code == 0
    assert asked.requests == len(TEXTS) + 10
    assert asked.column("status") == ["ok"] * 30


def test_reordered_rows_send_nothing_and_keep_their_answers(asked: Place) -> None:
    answers = dict(zip(asked.column("text"), asked.column("output"), strict=True))
    asked.texts(*reversed(TEXTS))
    assert asked.run().code == 0
    assert asked.requests == len(TEXTS)
    assert asked.column("text") == TEXTS[::-1]
    assert asked.column("output") == [answers[text] for text in reversed(TEXTS)]


def test_another_format_or_name_of_the_input_sends_nothing(asked: Place) -> None:
    pl.read_csv(asked.folder / "in.csv").write_parquet(asked.folder / "other.parquet")
    assert asked.run("input.path=other.parquet").code == 0
    assert asked.requests == len(TEXTS)


EDITS: dict[str, str] = {
    "template": 'prompt.template="In one word: {{ text }}"',
    "system": 'prompt.system="You are strict."',
    "model": "request.model=abliterated-model-large",
    "extra": "request.extra.top_p=0.9",
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_of_what_is_asked_sends_all_and_keeps_the_old_answers(asked: Place, edit: str) -> None:
    before = asked.rows()
    assert asked.run(EDITS[edit]).code == 0
    assert asked.requests == 2 * len(TEXTS)
    assert {row["response_id"] for row in before}.isdisjoint(asked.column("response_id"))
    assert asked.journal("SELECT count(*) FROM responses") == [(2 * len(TEXTS),)]
    assert asked.run().code == 0, "the edit is undone"
    assert asked.requests == 2 * len(TEXTS)
    assert asked.rows() == before


def test_what_does_not_change_the_request_sends_nothing(asked: Place) -> None:
    settings = ("limits.concurrency=3", "budget.usd=5", "output.order=random", "retry.max_attempts=2")
    assert asked.run(*settings).code == 0
    assert asked.requests == len(TEXTS)


def test_answers_of_a_sandbox_are_never_taken_for_the_endpoint_s(place: Place) -> None:
    place.texts("one", "two")
    assert place.run(options=["--sandbox"]).code == 0
    assert place.requests == 0
    assert place.run().code == 0
    assert place.requests == 2
    assert place.summary()["requests"]["sent"] == 2, "the sandbox's requests are counted apart"


def test_the_order_of_asking_is_the_same_after_an_interruption(place: Place) -> None:
    """In random order, a run in two halves asks for the rows that one run would have asked for."""
    place.texts(*TEXTS)
    settings = ("output.order=random", "output.seed=7", "budget.rows=5", "limits.concurrency=1")
    asked_for = []
    for _ in range(2):
        assert place.run(*settings).code == 4
        asked_for.append({row["text"] for row in place.rows() if row["status"] == "ok"})
    other = Place(place.folder, place.sandbox, place.key)
    settings = ("output.order=random", "output.seed=7", "budget.rows=10", 'output.path="b.parquet"')
    assert other.run(*settings, "limits.concurrency=1").code == 4
    rows = pq.read_table(place.folder / "b.parquet").to_pylist()
    assert {row["text"] for row in rows if row["status"] == "ok"} == asked_for[1]
    assert len(asked_for[0]) == 5
    assert asked_for[0] < asked_for[1]
    assert asked_for[0] != set(TEXTS[:5])
