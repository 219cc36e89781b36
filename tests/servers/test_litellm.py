"""LiteLLM's proxy: its mock models, and its translation of another server's answers."""

from pathlib import Path

import pytest

from tests.servers.conftest import reviews, run

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]


@pytest.mark.parametrize("stream", ["false", "true"])
def test_a_job_with_a_mock_model_runs_to_the_end(litellm: str, tmp_path: Path, stream: str) -> None:
    """A mock answers with plain JSON also where a stream was asked for."""
    ran = run(
        tmp_path,
        reviews(20),
        f"endpoint.base_url={litellm}",
        "request.model=mock",
        f"request.stream={stream}",
    )
    assert ran.code == 0, ran.messages
    assert ran.rows["output"].to_list() == ["positive"] * 20
    assert ran.summary["requests"]["sent"] == 20


@pytest.mark.parametrize("stream", ["false", "true"])
def test_a_job_with_a_translated_model_runs_to_the_end(litellm: str, tmp_path: Path, stream: str) -> None:
    """LiteLLM asks llama.cpp in OpenAI's terms and answers in Anthropic's, as a real stream too."""
    ran = run(
        tmp_path,
        reviews(8),
        f"endpoint.base_url={litellm}",
        "request.model=smollm2",
        f"request.stream={stream}",
    )
    assert ran.code == 0, ran.messages
    assert all(ran.rows["output"].to_list())
    assert (ran.rows["input_tokens"] > 20).all()
    assert ran.rows["output_tokens"].is_between(1, 8).all()
    assert ran.summary["requests"]["sent"] == 8


def test_a_429_without_retry_after_is_waited_out(litellm: str, tmp_path: Path) -> None:
    """A model that refuses everything gets few requests, with pauses, and its row stays to be asked again."""
    settings = [f"endpoint.base_url={litellm}", "request.model=limited", "budget.seconds=12"]
    ran = run(tmp_path, reviews(1), *settings)
    assert ran.code == 4, ran.messages
    assert ran.rows["status"].to_list() == ["pending"]
    assert set(ran.summary["requests"]["by_error"]) <= {"throttling_error", "interrupted"}
    assert 2 <= ran.summary["requests"]["sent"] <= 6


def test_an_unknown_model_fails_without_a_second_attempt(litellm: str, tmp_path: Path) -> None:
    ran = run(tmp_path, reviews(1), f"endpoint.base_url={litellm}", "request.model=nobody")
    assert ran.rows["status"].to_list() == ["failed"], ran.messages
    assert ran.rows["attempts"].to_list() == [1]
