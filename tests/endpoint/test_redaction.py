"""What servers echo, in whatever form, is in no message; what they say about it is."""

import base64
import json
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.client.error_body import read_error_body
from batchrun.client.redaction import Private, private_headers, redacted
from batchrun.client.retry import classify_status
from batchrun.exchange import FailureAction

KEY = "sk-live-4f9A0c7Qz81TbXw2"
HEADERS = {"X-Team": "falcon-platform", "Accept": "application/json", "user-agent": "mine"}
PROMPT = (
    "Classify: Marianne Dubois owes 4,210 EUR, call +33 6 12 \u2014 says "
    "\u201cl'h\u00f4tel \u00e9tait sale\u201d\n"
)
SYSTEM = "Du bist Pr\u00fcfer der Kanzlei Wagenknecht."
CHINESE = "\u6211\u7684\u75c5\u5386\u662f\u79d8\u5bc6"
REQUEST = json.dumps(
    {
        "model": "abliterated-model",
        "max_tokens": 100,
        "system": SYSTEM,
        "messages": [{"role": "user", "content": PROMPT}, {"role": "user", "content": [CHINESE]}],
        "metadata": {"user_id": "kilimanjaro-8812"},
    }
).encode()
PRIVATE = Private(KEY, private_headers(HEADERS), REQUEST)
TOLD = (
    "marianne",
    "dubois",
    "owes",
    "4,210",
    "tel \u00e9tait",
    "sale",
    "pr\u00fcfer",
    "kanzlei",
    "wagen",
    "kilimanjaro-8812",
    "8812",
    CHINESE[:3],
    CHINESE[-3:],
    "falcon",
    "platform",
    KEY[:9].lower(),
    KEY[-7:].lower(),
    "4f9a0c",
)


def base64_of(text: str, cut: int = 0) -> str:
    return base64.b64encode(text.encode()).decode()[cut:]


ECHOES = {
    "prompt": PROMPT,
    "system": SYSTEM,
    "key": KEY,
    "header": "falcon-platform",
    "user": "kilimanjaro-8812",
    "another script": CHINESE,
    "all of it": REQUEST.decode(),
}
FORMS: dict[str, Callable[[str], str]] = {
    "whole": lambda text: text,
    "quoted": repr,
    "upper case": str.upper,
    "JSON": json.dumps,
    "JSON twice": lambda text: json.dumps(json.dumps(text)),
    "percent": lambda text: quote(text, safe=""),
    "percent twice": lambda text: quote(quote(text)),
    "entities": lambda text: "".join(f"&#{ord(character)};" for character in text),
    "base64": base64_of,
    "base64 for URLs": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "a piece of base64": lambda text: base64_of(text, 3),
    "hexadecimal": lambda text: text.encode().hex(),
    "cut": lambda text: text[: max(9, len(text) * 2 // 3)] + "...",
    "cut in front": lambda text: "..." + text[-max(9, len(text) * 2 // 3) :],
    "lines": lambda text: "\n".join(text.split()),
    "halves": lambda text: f"{text[: len(text) // 2]} | {text[len(text) // 2 :]}",
    "as a list": lambda text: json.dumps(text.split()),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("what", ECHOES)
def test_what_is_echoed_is_taken_out(what: str, form: str) -> None:
    echo = FORMS[form](ECHOES[what])
    shown = redacted(f"Request rejected at messages.0: {echo}; see the docs", PRIVATE)
    assert shown.startswith("Request rejected at messages.0: ")
    assert shown.endswith("see the docs") or form in ("base64", "hexadecimal")
    assert echo not in shown
    for word in TOLD:
        assert word not in shown.lower()


@pytest.mark.parametrize(
    "message",
    [
        "messages: too long",
        "prompt is too long: 210000 tokens > 200000 maximum",
        "invalid x-api-key",
        "model: abliterated-model is not available for this account",
        "Your credit balance is too low to access the API. Please go to Plans & Billing.",
        "Number of request tokens has exceeded your rate limit (5,000 per minute)",
        "100% of the requests fail; 50%ab",
        "max_tokens: must be less than 8192",
    ],
)
def test_what_a_server_says_by_itself_is_kept(message: str) -> None:
    assert redacted(message, PRIVATE) == message


def test_a_prompt_about_billing_is_not_taken_for_the_servers_own_words() -> None:
    request = json.dumps({"messages": [{"content": "Sentiment: my credit balance is too low"}]}).encode()
    for said, action in (
        ("bad input: my credit balance is too low", FailureAction.FAIL_ROW),
        ("Your credit balance is too low to go on", FailureAction.STOP_RUN),
    ):
        body = json.dumps({"error": {"message": said}}).encode()
        failure = classify_status(400, {}, body, now=0.0, private=Private(request=request))
        assert failure.action is action


def test_a_code_that_is_private_is_none() -> None:
    body = json.dumps({"error": {"type": "Marianne", "code": "content_flagged", "message": "x"}}).encode()
    assert read_error_body(body, PRIVATE).words == ("content_flagged",)


def test_names_come_in_their_place() -> None:
    assert redacted(f"no {KEY}, no falcon-platform, no Dubois!", PRIVATE) == "no [key], no [header], no […]!"


def test_short_values_are_taken_out_where_they_stand_alone() -> None:
    private = Private(request=json.dumps({"messages": [{"content": "cat"}]}).encode())
    assert redacted("bad text: cat; category unknown", private) == "bad text: […]; category unknown"


def test_urls_are_cut_short() -> None:
    body = b'{"error": "see https://me:pw@example.test/path?token=abc#x, or http://h/?q"}'
    assert read_error_body(body).message == "see https://example.test/path or http://h/"


@given(st.text(max_size=80), st.text(max_size=80), st.text(max_size=30))
def test_any_text_can_be_redacted(text: str, prompt: str, key: str) -> None:
    request = json.dumps({"messages": [{"content": prompt}]}).encode()
    assert isinstance(redacted(text, Private(key, (key,), request)), str)
