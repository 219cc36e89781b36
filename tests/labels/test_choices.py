"""Which choice an answer names: what is understood, and what never becomes a label."""

import pytest

from batchrun.job.labels import Labels
from batchrun.labels.label import InvalidLabel, Label
from batchrun.labels.parser import make_parser

SENTIMENT = ("positive", "negative", "neutral")
YES_NO = ("yes", "no")
STARS = ("1", "2", "3", "4", "5")
LETTERS = ("A", "B", "C")
GRADES = ("A", "A+", "B")
QUALITY = ("good", "not good", "very good")
SNAKE = ("very_positive", "positive", "off_topic")
LANGUAGES = ("C", "C++", "C#")
CHINESE = ("正面", "负面")
GERMAN = ("Lob", "Beschwerde", "Rückfrage")
HINDI = ("अच्छा", "बुरा")
AGES = ("18-24", "25-34")
SIGNS = ("+", "-")
TAGS = ("<none>", "spam", "ham")


def read(choices: tuple[str, ...], text: str, truncated: bool = False) -> Label | InvalidLabel:
    return make_parser(Labels(choices=choices)).read(text, truncated)


@pytest.mark.parametrize(
    ("choices", "text", "label"),
    [
        # As it should be, and with other case, blanks, width.
        (SENTIMENT, "positive", "positive"),
        (SENTIMENT, " Positive\n", "positive"),
        (SENTIMENT, "POSITIVE", "positive"),
        (SENTIMENT, "Ｐｏｓｉｔｉｖｅ", "positive"),
        (SENTIMENT, "\ufeffpositive\u200b", "positive"),
        # Punctuation, quotes, brackets, emphasis.
        (SENTIMENT, "Positive.", "positive"),
        (SENTIMENT, "Positive!!!", "positive"),
        (SENTIMENT, "Positive…", "positive"),
        (SENTIMENT, '"positive"', "positive"),
        (SENTIMENT, "'positive'.", "positive"),
        (SENTIMENT, "“Positive.”", "positive"),
        (SENTIMENT, "„Positive“", "positive"),
        (SENTIMENT, "« positive »", "positive"),
        (SENTIMENT, "(positive)", "positive"),
        (SENTIMENT, "[positive]", "positive"),
        (SENTIMENT, '["positive"]', "positive"),
        (SENTIMENT, "**Positive**", "positive"),
        (SENTIMENT, "*positive*", "positive"),
        (SENTIMENT, "__positive__", "positive"),
        (SENTIMENT, "***positive***.", "positive"),
        (SENTIMENT, "`positive`", "positive"),
        # Fences, lists, headings, tags, TeX, JSON.
        (SENTIMENT, "```\npositive\n```", "positive"),
        (SENTIMENT, "```text\nPositive\n```\n", "positive"),
        (SENTIMENT, "- positive", "positive"),
        (SENTIMENT, "* Positive", "positive"),
        (SENTIMENT, "• Positive", "positive"),
        (SENTIMENT, "1. Positive", "positive"),
        (SENTIMENT, "# Positive", "positive"),
        (SENTIMENT, "> positive", "positive"),
        (SENTIMENT, "<label>positive</label>", "positive"),
        (SENTIMENT, "<answer>\nPositive\n</answer>", "positive"),
        (SENTIMENT, "<positive>", "positive"),
        (SENTIMENT, "\\boxed{positive}", "positive"),
        (SENTIMENT, "\\boxed{\\text{positive}}", "positive"),
        (SENTIMENT, '{"label": "positive"}', "positive"),
        (SENTIMENT, '{"label":"positive","confidence":0.93}', "positive"),
        (SENTIMENT, '```json\n{"sentiment": "Positive"}\n```', "positive"),
        # Lead-ins.
        (SENTIMENT, "Label: positive", "positive"),
        (SENTIMENT, "label:positive", "positive"),
        (SENTIMENT, "Sentiment: positive.", "positive"),
        (SENTIMENT, "**Sentiment:** Positive", "positive"),
        (SENTIMENT, "Sentiment = positive", "positive"),
        (SENTIMENT, "Label -> positive", "positive"),
        (SENTIMENT, "Stance of author: positive", "positive"),
        (SENTIMENT, "The answer is positive.", "positive"),
        (SENTIMENT, "The correct label is: **positive**.", "positive"),
        (SENTIMENT, "The sentiment of this review is positive.", "positive"),
        (SENTIMENT, "This is a positive review.", "positive"),
        (SENTIMENT, "It's positive.", "positive"),
        (SENTIMENT, "I would classify this review as positive.", "positive"),
        (SENTIMENT, "I’d say positive", "positive"),
        (SENTIMENT, "Sure! Here's the label:\n\npositive", "positive"),
        (SENTIMENT, "Based on the text provided, the sentiment is most likely positive.", "positive"),
        (SENTIMENT, "positive, positive", "positive"),
        # Explanations behind it.
        (SENTIMENT, "Positive. The reviewer praises the battery.", "positive"),
        (SENTIMENT, "Positive - the reviewer likes it", "positive"),
        (SENTIMENT, "Positive—the reviewer likes it", "positive"),
        (SENTIMENT, "**Positive**: the reviewer likes it", "positive"),
        (SENTIMENT, "**Positive:** the reviewer likes it", "positive"),
        (SENTIMENT, "Positive (a very happy customer)", "positive"),
        (SENTIMENT, "Positive\n\nExplanation: the word “great” is positive.", "positive"),
        (SENTIMENT, "Positive because the customer is delighted", "positive"),
        (YES_NO, "No. It does not contain hate speech.", "no"),
        (YES_NO, "No, it isn't spam.", "no"),
        (YES_NO, "Yes, it contains hate speech.", "yes"),
        # Reasoning before it.
        (SENTIMENT, "<think>Is it positive or negative? Hmm.</think>\n\nPositive", "positive"),
        (SENTIMENT, "so it could be negative</think>positive", "positive"),
        (SENTIMENT, "The screen isn't bad; who would complain?\n\nFinal answer: positive", "positive"),
        (SENTIMENT, "Das ist nicht leicht.\nThe label is **positive**.", "positive"),
        # Choices inside each other, of several words, with signs, in other scripts.
        (QUALITY, "not good", "not good"),
        (QUALITY, "Not-Good.", "not good"),
        (QUALITY, "It is very good.", "very good"),
        (QUALITY, "very\ngood", "very good"),
        (SNAKE, "Very positive", "very_positive"),
        (SNAKE, "off-topic", "off_topic"),
        (SNAKE, "`very_positive`", "very_positive"),
        (GRADES, "A+", "A+"),
        (GRADES, "Grade: a+.", "A+"),
        (GRADES, "A", "A"),
        (LETTERS, "(B)", "B"),
        (LETTERS, "Option B", "B"),
        (LETTERS, "B. It works", "B"),
        (LETTERS, "The answer is A.", "A"),
        (LANGUAGES, "c++.", "C++"),
        (LANGUAGES, "Language: C#", "C#"),
        (LANGUAGES, "C", "C"),
        (STARS, "4", "4"),
        (STARS, "4.", "4"),
        (STARS, "Rating: 4", "4"),
        (STARS, "**4** stars", "4"),
        (AGES, "18–24", "18-24"),
        (AGES, "Age: 25-34", "25-34"),
        (SIGNS, "+", "+"),
        (SIGNS, '"-"', "-"),
        (SIGNS, "−", "-"),
        (CHINESE, "正面。", "正面"),
        (CHINESE, "答案：正面", "正面"),
        (CHINESE, "「负面」", "负面"),
        (GERMAN, "Kategorie: rückfrage", "Rückfrage"),
        (GERMAN, "Ru\u0308ckfrage", "Rückfrage"),
        (HINDI, "**अच्छा**", "अच्छा"),
        (TAGS, "<none>", "<none>"),
    ],
)
def test_understood(choices: tuple[str, ...], text: str, label: str) -> None:
    assert read(choices, text) == Label(label, label)


@pytest.mark.parametrize(
    ("choices", "text", "code"),
    [
        (SENTIMENT, "", "empty"),
        (SENTIMENT, " \n", "empty"),
        (SENTIMENT, "<think>positive, I", "empty"),
        (SENTIMENT, "...", "no_choice"),
        (SENTIMENT, "I can't help with that.", "no_choice"),
        (SENTIMENT, "pos", "no_choice"),
        (SENTIMENT, "positively", "no_choice"),
        (SENTIMENT, "unpositive", "no_choice"),
        (SENTIMENT, "pozitive", "no_choice"),
        (SENTIMENT, "p o s i t i v e", "no_choice"),
        # Two.
        (SENTIMENT, "positive or negative", "two_choices"),
        (SENTIMENT, "positive/negative", "two_choices"),
        (SENTIMENT, "Positive\nNegative", "two_choices"),
        (SENTIMENT, "positive (not negative)", "two_choices"),
        (SENTIMENT, "**Positive**: the word “negative” isn't in it", "two_choices"),
        (SENTIMENT, '{"positive": 0.9, "negative": 0.1}', "two_choices"),
        (SENTIMENT, "First it sounds negative.\n\nFinal answer: positive", "two_choices"),
        (QUALITY, "good, not good", "two_choices"),
        (STARS, "4 out of 5", "two_choices"),
        (STARS, "4/5", "two_choices"),
        (STARS, "1) 3", "two_choices"),
        (STARS, "1.5", "two_choices"),
        (LETTERS, "A or B", "two_choices"),
        (YES_NO, "Yes and no", "two_choices"),
        (YES_NO, "No problem! Yes", "two_choices"),
        # Denied, doubted, taken back, asked.
        (SENTIMENT, "not positive", "unclear"),
        (SENTIMENT, "Not: positive", "unclear"),
        (SENTIMENT, "not “positive”", "unclear"),
        (SENTIMENT, "non-positive", "unclear"),
        (SENTIMENT, "isn’t positive", "unclear"),
        (SENTIMENT, "It is anything but positive.", "unclear"),
        (SENTIMENT, "The opposite of positive", "unclear"),
        (SENTIMENT, "Opposite: positive", "unclear"),
        (SENTIMENT, "hardly positive", "unclear"),
        (SENTIMENT, "less positive", "unclear"),
        (SENTIMENT, "nicht positive", "unclear"),
        (SENTIMENT, "Positive?", "unclear"),
        (SENTIMENT, "Is it positive? Yes", "unclear"),
        (SENTIMENT, "Positive. Not!", "unclear"),
        (SENTIMENT, "Positive. Wait, let me look again.", "unclear"),
        (SENTIMENT, "Positive, however it has flaws", "unclear"),
        (SENTIMENT, "maybe positive", "unclear"),
        (SENTIMENT, "positive: false", "unclear"),
        (SENTIMENT, '{"positive": false}', "unclear"),
        (SENTIMENT, '{"positive": null}', "unclear"),
        (SENTIMENT, "positive: 0.1", "unclear"),
        (SENTIMENT, "positive: low", "unclear"),
        (SENTIMENT, "positive: very unlikely here", "unclear"),
        (SENTIMENT, '{"positive": true}', "unclear"),
        (SENTIMENT, "Positive - ❌", "unclear"),
        (SENTIMENT, "Positive, ❌", "unclear"),
        (SENTIMENT, "positive - x", "unclear"),
        (SENTIMENT, "[x] positive", "unclear"),
        (SENTIMENT, "Positive:\n- the battery lasts", "unclear"),
        (SENTIMENT, "Options: positive", "unclear"),
        (SENTIMENT, "Is this review positive", "unclear"),
        (SENTIMENT, "Positive, which is a mistake", "unclear"),
        (SENTIMENT, "~~positive~~", "unclear"),
        (SENTIMENT, "<s>positive</s>", "unclear"),
        (SENTIMENT, "<not>positive</not>", "unclear"),
        (SENTIMENT, "It is definitely not\n\npositive", "unclear"),
        (SENTIMENT, "positive。不对", "unclear"),
        (QUALITY, "not really good", "unclear"),
        (YES_NO, "no doubt", "unclear"),
        (YES_NO, "Yes. It does not", "unclear"),
        # Named among words that may mean anything.
        (SENTIMENT, "positive people annoy me", "unclear"),
        (SENTIMENT, "I'm sorry, I can't label this as positive", "unclear"),
        (SENTIMENT, "it's hard to call it positive", "unclear"),
        (SENTIMENT, "HIV positive", "unclear"),
        (SENTIMENT, "positive and", "unclear"),
        (SENTIMENT, "positive 😒", "unclear"),
        (LETTERS, "A review", "unclear"),
        (GRADES, "A++", "unclear"),
        (LANGUAGES, "C+", "unclear"),
        (STARS, "-1", "unclear"),
        (STARS, "- 1", "unclear"),
        (STARS, "> 1", "unclear"),
        (STARS, "4%", "unclear"),
        (STARS, "$4", "unclear"),
        (STARS, "0.4", "unclear"),
        (STARS, "4,000", "unclear"),
        (STARS, "14", "no_choice"),
        (CHINESE, "不正面", "no_choice"),
        (CHINESE, "答案是正面", "no_choice"),
        (GERMAN, "Ruckfrage", "no_choice"),
        (HINDI, "अच्छाई", "no_choice"),
        (TAGS, "none", "no_choice"),
        (SENTIMENT, "positive " + "so " * 10_000, "too_long"),
    ],
)
def test_never_guessed(choices: tuple[str, ...], text: str, code: str) -> None:
    wrong = read(choices, text)
    assert isinstance(wrong, InvalidLabel)
    assert wrong.code == code


@pytest.mark.parametrize(
    ("choices", "text", "reason"),
    [
        (SENTIMENT, "", "the answer is empty"),
        (SENTIMENT, "hm", "the answer names none of the choices"),
        (SENTIMENT, "positive, negative", "the answer names two of the choices: positive, negative"),
        (STARS, "5 4 3", "the answer names 3 of the choices: 5, 4, 3"),
        (SENTIMENT, "Not positive", 'the answer names positive, but its "not" may take that back'),
        (SENTIMENT, "Positive?", 'the answer names positive, but its "?" may take that back'),
        (YES_NO, "no doubt", "the answer names no among other words, and may mean something else"),
        (SENTIMENT, "x" * 20_001, "the answer has 20001 characters; a label is looked for in 20000 at most"),
    ],
)
def test_reason(choices: tuple[str, ...], text: str, reason: str) -> None:
    wrong = read(choices, text)
    assert isinstance(wrong, InvalidLabel)
    assert wrong.reason == reason


@pytest.mark.parametrize(
    ("choices", "text", "label"),
    [
        (SENTIMENT, "positive", "positive"),  # max_tokens = 1: the answer always ends at the limit
        (LETTERS, "A", "A"),
        (SENTIMENT, "Positive. The reviewer is del", "positive"),
        (("good", "good enough"), "good enough", "good enough"),
    ],
)
def test_cut_at_max_tokens_with_the_label_whole(choices: tuple[str, ...], text: str, label: str) -> None:
    assert read(choices, text, truncated=True) == Label(label, label)


@pytest.mark.parametrize(
    ("choices", "text"),
    [
        (("good", "good enough"), "good"),
        (("good", "good enough"), "It is good"),
        (("1", "10"), "1"),
        (LETTERS, "This is a"),
    ],
)
def test_cut_at_what_may_have_become_another(choices: tuple[str, ...], text: str) -> None:
    wrong = read(choices, text, truncated=True)
    assert isinstance(wrong, InvalidLabel)
    assert wrong.code == "cut_off"
