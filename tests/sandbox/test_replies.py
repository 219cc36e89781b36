"""Answers follow from the request alone, and from the reply file where there is one."""

from collections import Counter
from pathlib import Path

import httpx
import pytest

from batchrun.sandbox import Settings, SettingsError
from batchrun.sandbox.provider import Provider
from batchrun.sandbox.replies import Repetitions, load_replies
from tests.sandbox.conftest import Connected, Start, body

REPLIES = """
[[reply]]
pattern = "(?i)sentiment"
system = "German"
text = "positiv"

[[reply]]
pattern = "(?i)sentiment"
choices = [{text = "positive", probability = 0.9}, {text = "negative"}]

[[reply]]
pattern = 'Repeat: (\\w+) (?P<second>\\w+)'
text = '{"first": "{1}", "second": "{second}", "x": {n}}'

[[reply]]
pattern = "Stonehenge"
text = "An old ring of stones."
"""


@pytest.fixture
def scripted(start: Start, tmp_path: Path) -> Connected:
    path = tmp_path / "replies.toml"
    path.write_text(REPLIES)
    return start(replies=path)


def answer(sandbox: Connected, text: str, **parameters: object) -> str:
    answered: str = sandbox.ask(body(text, **parameters)).json()["content"][0]["text"]
    return answered


def test_the_same_request_gets_the_same_answer_whoever_asks_and_however_it_is_written(
    plain: Connected,
) -> None:
    """Key order and white space of the JSON don't matter; a parameter does."""
    spaced = b'{ "max_tokens":64, "messages":[{"content":"Hi.","role":"user"}],\n"model":"abliterated-model"}'
    first = answer(plain, "Hi.")
    assert plain.ask(spaced, key="another").json()["content"][0]["text"] == first
    assert answer(plain, "Hi.", temperature=0.5) != first


def test_answers_differ_in_length_and_words(plain: Connected) -> None:
    answers = {answer(plain, f"Question {n}") for n in range(30)}
    assert len(answers) == 30
    assert len({len(each.split()) for each in answers}) > 10


def test_the_first_entry_that_matches_answers(scripted: Connected) -> None:
    assert answer(scripted, "The sentiment?", system="Answer in German.") == "positiv"
    assert answer(scripted, "The sentiment?", system="Answer in English.") in ("positive", "negative")
    assert answer(scripted, "Write one sentence about Stonehenge.") == "An old ring of stones."
    assert answer(scripted, "Anything else") not in ("positive", "negative", "positiv")


def test_groups_of_the_pattern_can_be_quoted_and_other_braces_stay(scripted: Connected) -> None:
    assert answer(scripted, "Repeat: a b") == '{"first": "a", "second": "b", "x": {n}}'


def test_only_the_last_user_text_is_matched(scripted: Connected) -> None:
    history = [("user", "Sentiment?"), ("assistant", "positive"), ("user", "Repeat: a b")]
    messages = [{"role": role, "content": content} for role, content in history]
    assert answer(scripted, "", messages=messages).startswith('{"first"')


def test_choices_come_about_as_often_as_their_probability_says(scripted: Connected) -> None:
    """1,000 requests at 0.9: outside 860 to 940 is more than four standard deviations off."""
    counts = Counter(answer(scripted, f"Sentiment of {n}") for n in range(1000))
    assert set(counts) == {"positive", "negative"}
    assert 860 <= counts["positive"] <= 940


def test_a_choice_of_probability_zero_never_comes(tmp_path: Path) -> None:
    path = tmp_path / "replies.toml"
    path.write_text(
        '[[reply]]\npattern = ""\nchoices = [{text="a", probability=1.0}, {text="b", probability=0.0}]'
    )
    (reply,) = load_replies(path)
    assert (reply.texts, reply.weights) == (["a", "b"], [1.0, 0.0])


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("[[reply", "is not valid TOML"),
        ("reply = 1", "Expected `array`"),
        ("", "missing required field `reply`"),
        ('[[reply]]\ntext = "a"', "number 1: Object missing required field `pattern`"),
        ('[[reply]]\npattern = "a"', "number 1: give one of text, choices and fault"),
        (
            '[[reply]]\npattern = "a"\ntext = "a"\nchoices = []',
            "number 1: give one of text, choices and fault",
        ),
        ('[[reply]]\npattern = "a"\nchoices = []', "number 1: there must be a text"),
        ('[[reply]]\npattern = "a"\ntext = ""', "number 1: there must be a text"),
        (
            '[[reply]]\npattern = "a"\ntext = "a"\n[[reply]]\npattern = "("\ntext = "a"',
            "number 2: pattern '('",
        ),
        ('[[reply]]\npattern = "a"\nsystem = "["\ntext = "a"', "number 1: system '['"),
        ('[[reply]]\npattern = "a"\ntext = "{1}"', "number 1: {1} has no group"),
        ('[[reply]]\npattern = "a"\ntxet = "a"', "number 1: Object contains unknown field `txet`"),
        ('[[reply]]\npattern = "a"\nchoices = [{text="a", probability=0.5}]', "must sum to 1, not 0.5"),
        (
            '[[reply]]\npattern = "a"\nchoices = [{text="a", probability=2.0}]',
            "number 1.choices[0].probability",
        ),
        (
            '[[reply]]\npattern = "a"\nchoices = [{text="a", probability=0.7}, {text="b", probability=0.7}]',
            "must sum to 1, not 1.4",
        ),
    ],
)
def test_an_error_in_the_file_is_named_with_its_entry(tmp_path: Path, toml: str, message: str) -> None:
    path = tmp_path / "replies.toml"
    path.write_text(toml)
    with pytest.raises(SettingsError) as raised:
        Provider(Settings(replies=path))
    assert message in str(raised.value)
    assert str(path) in str(raised.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"gone\.toml: No such file"):
        load_replies(tmp_path / "gone.toml")


def test_with_a_temperature_a_request_that_is_repeated_is_drawn_anew(
    scripted: Connected, start: Start, tmp_path: Path
) -> None:
    """The sequence is the same in every sandbox, and whatever else is asked in between."""
    sequence = [answer(scripted, "The sentiment?", temperature=0.7) for _ in range(40)]
    assert set(sequence) == {"positive", "negative"}
    another = start(replies=tmp_path / "replies.toml")
    again = []
    for number in range(40):
        answer(another, f"Sentiment of {number}", temperature=0.7)
        again.append(answer(another, "The sentiment?", temperature=0.7))
    assert again == sequence


@pytest.mark.parametrize("parameters", [{}, {"temperature": 0}, {"temperature": 0.0}])
def test_without_one_it_is_not(plain: Connected, parameters: dict[str, float]) -> None:
    assert len({answer(plain, "Hi.", **parameters) for _ in range(20)}) == 1


def test_the_memory_of_repetitions_is_bounded() -> None:
    repetitions = Repetitions(most=2)
    first = [repetitions.draw(b"a") for _ in range(2)]
    repetitions.draw(b"b")
    repetitions.draw(b"c")
    assert [repetitions.draw(b"a") for _ in range(2)] == first, "a had been forgotten"


def test_requests_that_match_an_entry_with_a_fault_always_meet_it(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "replies.toml"
    path.write_text('[[reply]]\npattern = "7$"\nfault = "429"\n\n[[reply]]\npattern = ""\ntext = "yes"\n')
    sandbox = start(replies=path)
    statuses = [sandbox.ask(body(f"row {n}")).status_code for n in (6, 7, 7, 7, 8)]
    assert statuses == [200, 429, 429, 429, 200]
    assert [each["fault"] for each in sandbox.sandbox.bill()["requests"]] == [None, "429", "429", "429", None]


def test_a_billed_fault_of_an_entry_is_billed(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "replies.toml"
    path.write_text('[[reply]]\npattern = "7$"\nfault = "truncated"\n')
    sandbox = start(replies=path)
    with pytest.raises(httpx.RemoteProtocolError):
        sandbox.ask(body("row 7"))
    assert sandbox.sandbox.bill()["requests"][0]["output_tokens"] > 0


@pytest.mark.parametrize(
    ("entry", "named"),
    [('fault = "burnt"', "unknown fault 'burnt'"), ('text = "yes"\nfault = "429"', "give one of")],
)
def test_an_entry_with_a_wrong_fault_is_refused(tmp_path: Path, entry: str, named: str) -> None:
    path = tmp_path / "replies.toml"
    path.write_text(f'[[reply]]\npattern = "x"\n{entry}\n')
    with pytest.raises(SettingsError, match=named):
        load_replies(path)
