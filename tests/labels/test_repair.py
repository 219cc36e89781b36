"""The next turn after an invalid answer."""

import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from batchrun.client.messages.follow_up import MOST_ANSWER_CHARACTERS, repair_body
from batchrun.job.labels import Labels
from batchrun.labels.label import InvalidLabel
from batchrun.labels.parser import make_parser

WRONG = InvalidLabel("two_choices", "the answer names two of the choices: good, bad")
ALLOWED = make_parser(Labels(choices=("good", "bad"))).allowed
TOLD = (
    "That is not a valid answer: the answer names two of the choices: good, bad.\n"
    "Answer with nothing but one of these:\ngood\nbad"
)


def body(*turns: tuple[str, Any], **fields: Any) -> bytes:
    messages = [{"role": role, "content": content} for role, content in turns]
    return msgspec.json.encode({"model": "m", "messages": messages, "max_tokens": 5, **fields})


def turns(repaired: bytes) -> list[tuple[str, Any]]:
    return [(turn["role"], turn["content"]) for turn in json.loads(repaired)["messages"]]


def test_next_turn() -> None:
    repaired = repair_body(body(("user", "How is it?")), "good or bad", WRONG, ALLOWED)
    assert turns(repaired) == [("user", "How is it?"), ("assistant", "good or bad"), ("user", TOLD)]


def test_second_repair_goes_on_from_the_first() -> None:
    first = repair_body(body(("user", "How is it?")), "good or bad", WRONG, ALLOWED)
    roles = [role for role, _ in turns(repair_body(first, "both", WRONG, ALLOWED))]
    assert roles == ["user", "assistant", "user", "assistant", "user"]


def test_the_rest_of_the_body_stays_byte_for_byte() -> None:
    sent = b'{"model":"m","temperature":0.10,"messages":[{"role":"user","content":"x"}],"extra":1e2}'
    repaired = repair_body(sent, "?", WRONG, ALLOWED)
    before, after = sent.split(b'[{"role":"user","content":"x"}]')
    assert repaired.startswith(before)
    assert repaired.endswith(after)


def test_empty_answer_is_no_turn() -> None:
    for answer in ("", " \n\t"):
        assert turns(repair_body(body(("user", "How?")), answer, WRONG, ALLOWED)) == [
            ("user", f"How?\n\n{TOLD}")
        ]


def test_empty_answer_to_blocks() -> None:
    image = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
    repaired = repair_body(body(("user", [image])), "", WRONG, ALLOWED)
    assert turns(repaired) == [("user", [image, {"type": "text", "text": TOLD}])]


def test_answer_goes_on_from_the_assistants_own_beginning() -> None:
    repaired = repair_body(body(("user", "How?"), ("assistant", '{"a":')), "1", WRONG, ALLOWED)
    assert turns(repaired) == [("user", "How?"), ("assistant", '{"a":1'), ("user", TOLD)]


def test_empty_answer_to_the_assistants_own_beginning() -> None:
    repaired = repair_body(body(("user", "How?"), ("assistant", "It is")), "", WRONG, ALLOWED)
    assert turns(repaired) == [("user", "How?"), ("assistant", "It is"), ("user", TOLD)]


def test_long_answer_is_sent_back_shortened() -> None:
    repaired = repair_body(body(("user", "How?")), "x" * 5_000, WRONG, ALLOWED)
    answer = turns(repaired)[1][1]
    assert answer == "x" * MOST_ANSWER_CHARACTERS + "\n[3000 more characters]"


@given(st.lists(st.text(max_size=5_000), max_size=20), st.sampled_from(["text", "blocks"]))
def test_turns_alternate_are_never_empty_and_growth_is_bounded(answers: list[str], kind: str) -> None:
    content: Any = "How is it?" if kind == "text" else [{"type": "text", "text": "How is it?"}]
    sent = body(("user", content))
    for answer in answers:
        sent = repair_body(sent, answer, WRONG, ALLOWED)
    roles = [role for role, _ in turns(sent)]
    assert roles == (["user", "assistant"] * len(roles))[: len(roles)]
    assert roles[-1] == "user"
    for _, content in turns(sent):
        assert content.strip() if isinstance(content, str) else all(part["text"].strip() for part in content)
    characters = len(json.dumps(turns(sent), ensure_ascii=False))
    assert characters < 200 + len(answers) * (2 * MOST_ANSWER_CHARACTERS + 500)


def test_long_lists_are_not_sent_with_every_repair() -> None:
    choices = tuple(f"choice number {number}" for number in range(1_000))
    assert make_parser(Labels(choices=choices)).allowed == (
        "Answer with nothing but one of the choices that were named."
    )
