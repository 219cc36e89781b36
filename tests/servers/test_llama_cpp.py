"""llama.cpp's own server with SmolLM2: a real model, real token counts, errors in a shape of its own."""

from pathlib import Path

import httpx
import pytest

from tests.servers.conftest import reviews, run

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]

PROMPT = "Sentiment of this review, one word: "


@pytest.mark.parametrize("stream", ["false", "true"])
def test_a_job_runs_to_the_end(llama_cpp: str, tmp_path: Path, stream: str) -> None:
    """Every row has a text and costs nothing, plain and streamed."""
    ran = run(
        tmp_path, reviews(12), f"endpoint.base_url={llama_cpp}", "request.model=m", f"request.stream={stream}"
    )
    assert ran.code == 0, ran.messages
    assert ran.rows["status"].to_list() == ["ok"] * 12
    assert all(ran.rows["output"].to_list())
    assert set(ran.rows["stop_reason"]) <= {"end_turn", "max_tokens"}
    assert ran.rows["cost_usd"].sum() == 0
    # Now and then llama.cpp closes the connection of a finished stream just when the next request is on it.
    lost = ran.summary["requests"]["by_error"].get("connection_lost", 0)
    assert ran.summary["requests"]["sent"] == 12 + lost
    assert lost == 0 or stream == "true"


@pytest.mark.parametrize("stream", ["false", "true"])
def test_tokens_from_its_cache_are_counted(llama_cpp: str, tmp_path: Path, stream: str) -> None:
    """llama.cpp states them beside `input_tokens`; together they are what its count_tokens says."""
    texts = reviews(6)
    ran = run(
        tmp_path, texts, f"endpoint.base_url={llama_cpp}", "request.model=m", f"request.stream={stream}"
    )
    counted = [
        httpx.post(
            f"{llama_cpp}/v1/messages/count_tokens",
            json={"model": "m", "messages": [{"role": "user", "content": PROMPT + text}]},
        ).json()["input_tokens"]
        for text in texts
    ]
    assert ran.rows["input_tokens"].to_list() == counted


def test_a_prompt_longer_than_the_context_fails_its_row_alone(llama_cpp: str, tmp_path: Path) -> None:
    """The refusal has no top-level `type`; its own type becomes the row's error code."""
    ran = run(tmp_path, [*reviews(2), "word " * 3000], f"endpoint.base_url={llama_cpp}", "request.model=m")
    assert ran.code == 3
    assert ran.rows["status"].to_list() == ["ok", "ok", "failed"]
    assert ran.rows["error_code"][2] == "exceed_context_size_error"
    assert ran.rows["attempts"][2] == 1
