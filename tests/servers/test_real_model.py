"""`batchrun sandbox --real` and `batchrun run --local`: SmolLM2 behind keys, limits and bill."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from batchrun.sandbox import Sandbox, Settings, background
from tests.servers.conftest import reviews, run

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]

LONG = "Write a long story about a river and the people who live beside it."


@pytest.fixture(scope="module", autouse=True)
def installed(llama_cpp: str) -> None:
    """Skips where the packages of the real model are missing."""


@pytest.fixture(scope="module")
def real() -> Iterator[Sandbox]:
    with background(Settings(real=True)) as sandbox:
        yield sandbox


def ask(sandbox: Sandbox, *texts: str, key: str | None = None, **parameters: Any) -> httpx.Response:
    """POST /v1/messages with these texts, the user's and the assistant's in turn."""
    messages = [{"role": "assistant" if n % 2 else "user", "content": text} for n, text in enumerate(texts)]
    body = {"model": "any", "max_tokens": 16, "temperature": 0, "messages": messages, **parameters}
    headers = {} if key is None else {"x-api-key": key}
    return httpx.post(f"{sandbox.base_url}/v1/messages", json=body, headers=headers, timeout=60)


def test_the_model_answers_and_its_own_tokens_are_billed(real: Sandbox) -> None:
    """Usage, bill and cost agree; the answer names the model that made it, whatever the request names."""
    before = real.bill()["total"]
    answer = ask(real, "Write one sentence about Stonehenge.", max_tokens=60).json()
    after = real.bill()["total"]
    assert "Stonehenge" in answer["content"][0]["text"]
    assert (answer["model"], answer["stop_reason"]) == ("SmolLM2-135M-Instruct", "end_turn")
    usage = answer["usage"]
    assert usage["input_tokens"] == after["input_tokens"] - before["input_tokens"]
    assert usage["output_tokens"] == after["output_tokens"] - before["output_tokens"]
    assert answer["estimated_cost_usd"] == pytest.approx(sum(usage.values()) * 5e-6)


def test_max_tokens_and_stop_sequences_end_an_answer(real: Sandbox) -> None:
    cut = ask(real, LONG, max_tokens=5).json()
    assert (cut["stop_reason"], cut["usage"]["output_tokens"]) == ("max_tokens", 5)
    question = "Write one sentence about Stonehenge."
    stopped = ask(real, question, max_tokens=60, stop_sequences=["monument"]).json()
    assert (stopped["stop_reason"], stopped["stop_sequence"]) == ("stop_sequence", "monument")
    assert "monument" not in stopped["content"][0]["text"]


def test_history_and_system_prompt_reach_the_model(real: Sandbox) -> None:
    """More turns and a system prompt are more tokens of the prompt."""
    alone = ask(real, "And now?").json()["usage"]["input_tokens"]
    with_system = ask(real, "And now?", system="You speak of the sea.").json()["usage"]["input_tokens"]
    with_history = ask(real, "Hello", "Hello to you!", "And now?").json()["usage"]["input_tokens"]
    assert len({alone, with_system, with_history}) == 3
    assert with_history > alone


def test_the_same_request_is_sampled_with_the_same_seed(real: Sandbox) -> None:
    """At a temperature, too; another request is drawn again."""
    ask(real, LONG, temperature=1.5)  # from here on the prompt is in llama.cpp's cache
    texts = [ask(real, LONG, temperature=1.5).json()["content"] for _ in range(2)]
    assert texts[0] == texts[1]
    assert ask(real, LONG, temperature=1.6).json()["content"] != texts[0]


def test_a_stream_is_the_same_answer(real: Sandbox) -> None:
    ask(real, LONG)  # from here on the prompt is in llama.cpp's cache
    plain = ask(real, LONG).json()["content"][0]["text"]
    lines = ask(real, LONG, stream=True).text.splitlines()
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    pieces = [event["delta"]["text"] for event in events if event["type"] == "content_block_delta"]
    assert len(pieces) > 1
    assert "".join(pieces) == plain
    assert events[-1] == {"type": "message_stop"}


def test_what_the_model_cant_take_is_a_400(real: Sandbox) -> None:
    """A prompt beyond the context, and images."""
    assert "context size (8192 tokens)" in ask(real, "word " * 9000).json()["error"]["message"]
    block = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
    image = ask(real, "x", messages=[{"role": "user", "content": [block]}])
    assert (image.status_code, "reads no images" in image.text) == (400, True)


def test_keys_credits_and_limits_stand_in_front() -> None:
    """A key that is named is needed; what isn't admitted never reaches the model and isn't billed."""
    with background(Settings(real=True, keys=("k",), credits=1, rpm=2)) as sandbox:
        assert ask(sandbox, "Hi").status_code == 401
        assert ask(sandbox, "Hi", key="k").json()["remaining_credits"] == 0
        assert ask(sandbox, "Hi", key="k").status_code == 402
        httpx.post(f"{sandbox.base_url}/sandbox/credits", json={"credits": 10})
        assert ask(sandbox, "Hi", key="k").status_code == 200
        refused = ask(sandbox, "Hi", key="k")
        assert (refused.status_code, int(refused.headers["retry-after"]) > 30) == (429, True)
    assert sandbox.bill()["total"]["billed_requests"] == 2


def test_whoever_went_away_while_waiting_costs_nothing(real: Sandbox) -> None:
    """The model works for those alone who still listen."""
    billed = real.bill()["total"]["billed_requests"]
    busy = threading.Thread(target=ask, args=(real, LONG), kwargs={"max_tokens": 200, "temperature": 2})
    busy.start()
    time.sleep(0.3)
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{real.base_url}/v1/messages", json=body, timeout=0.2)
    busy.join()
    ask(real, "Hi")
    total = real.bill()
    assert total["total"]["billed_requests"] == billed + 2
    assert [request["status"] for request in total["requests"][-2:]] == [0, 200]


def test_a_signal_ends_it_in_the_middle_of_an_answer() -> None:
    command = [sys.executable, "-m", "batchrun", "sandbox", "--real", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert "(SmolLM2-135M-Instruct answers; Ctrl-C stops it)" in line
            sandbox = line.split()[1]
            body = {"model": "m", "temperature": 2, "messages": [{"role": "user", "content": LONG}]}
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(f"{sandbox}/v1/messages", json=body, timeout=0.5)
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=5) == 0
            assert process.stderr.read() == ""
        finally:
            process.kill()


@pytest.mark.parametrize("stream", ["false", "true"])
def test_run_local_starts_the_model_and_costs_nothing(tmp_path: Path, stream: str) -> None:
    """Whatever model and endpoint the job names: nothing is spent, and the rows say who answered."""
    settings = [f"request.stream={stream}", "budget.usd=1"]
    ran = run(tmp_path, reviews(6), *settings, options=("--local",))
    assert ran.code == 0, ran.messages
    assert ran.rows["status"].to_list() == ["ok"] * 6
    assert set(ran.rows["response_model"]) == {"SmolLM2-135M-Instruct"}
    assert ran.summary["usd"]["settled"] == 0
    assert ran.rows["credits_used"].sum() == 0
    assert "nothing is paid" in ran.messages
