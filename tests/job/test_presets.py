"""What `endpoint.preset` fills in, and that every key given beside it wins."""

from pathlib import Path

import pytest

from batchrun.job.credentials import api_key
from batchrun.job.endpoint import Endpoint
from batchrun.job.file import load_job
from batchrun.job.prices import Prices, prices
from tests.job.conftest import Refusal


def test_the_default_is_the_provider(minimal: Path) -> None:
    """Naming the default preset is the same as naming none."""
    job = load_job(minimal)
    assert job.endpoint == Endpoint() == load_job(minimal, ["endpoint.preset=abliteration"]).endpoint
    assert (job.endpoint.base_url, job.endpoint.api_key_env) == ("https://api.abliteration.ai", "ABLIT_KEY")


def test_anthropic_wants_its_own_key_header_and_version(minimal: Path) -> None:
    endpoint = load_job(minimal, ["endpoint.preset=anthropic"]).endpoint
    assert endpoint.base_url == "https://api.anthropic.com"
    assert (endpoint.auth, endpoint.api_key_env) == ("x-api-key", "ANTHROPIC_API_KEY")
    assert endpoint.headers == {"anthropic-version": "2023-06-01"}


def test_anthropic_has_no_known_price(refusal: Refusal) -> None:
    """Prices differ by model there, so a cap in USD asks for them."""
    text = refusal("", "endpoint.preset=anthropic", "request.max_tokens=16", "budget.usd=1")
    assert text.startswith("[budget] usd: a cap in USD needs prices; none are known")


def test_local_wants_no_key_and_costs_nothing(minimal: Path) -> None:
    """Also under a cap in USD, which then holds by itself."""
    job = load_job(minimal, ["endpoint.preset=local", "budget.usd=1", "request.max_tokens=16"])
    assert (job.endpoint.base_url, job.endpoint.auth) == ("http://127.0.0.1:8080", "none")
    assert prices(job) == Prices(0, 0)


def test_keys_beside_a_preset_win(minimal: Path) -> None:
    """A header wins in whatever case it is written; the preset's other headers stay."""
    overrides = [
        "endpoint.preset=anthropic",
        "endpoint.base_url=http://localhost:4000",
        "endpoint.api_key_env=PROXY_KEY",
        "endpoint.auth=bearer",
        'endpoint.headers.Anthropic-Version="2030-01-01"',
    ]
    endpoint = load_job(minimal, overrides).endpoint
    assert (endpoint.base_url, endpoint.api_key_env) == ("http://localhost:4000", "PROXY_KEY")
    assert (endpoint.auth, endpoint.headers) == ("bearer", {"Anthropic-Version": "2030-01-01"})
    other_header = load_job(minimal, ["endpoint.preset=anthropic", "endpoint.headers.x-team=a"]).endpoint
    assert other_header.headers == {"anthropic-version": "2023-06-01", "x-team": "a"}


@pytest.mark.parametrize("url", ["http://127.0.0.1:11434", "http://localhost:8000", "http://[::1]:1"])
def test_local_stays_free_on_another_port(minimal: Path, url: str) -> None:
    job = load_job(minimal, ["endpoint.preset=local", f"endpoint.base_url={url}"])
    assert prices(job) == Prices(0, 0)


def test_local_with_an_address_elsewhere_has_no_price(minimal: Path) -> None:
    """A server that isn't on this machine may bill: without prices nothing is known."""
    job = load_job(minimal, ["endpoint.preset=local", "endpoint.base_url=https://example.com"])
    assert prices(job) is None


def test_given_prices_win_over_the_presets(minimal: Path) -> None:
    overrides = [
        "endpoint.preset=local",
        "pricing.input_usd_per_million=1",
        "pricing.output_usd_per_million=2",
    ]
    assert prices(load_job(minimal, overrides)) == Prices(10**9, 2 * 10**9)


@pytest.mark.parametrize("value", ["antropic", "3", "[]"])
def test_an_unknown_preset_is_refused(refusal: Refusal, value: str) -> None:
    text = refusal("", f"endpoint.preset={value}")
    assert text.startswith('[endpoint] preset: expected "abliteration" or "anthropic" or "local"')


def test_the_sandbox_of_another_terminal_needs_one_key_of_the_job(minimal: Path) -> None:
    job = load_job(minimal, ["endpoint.preset=sandbox", "request.max_tokens=16", "budget.usd=1"])
    assert job.endpoint.base_url == "http://127.0.0.1:8080"
    assert prices(job) == Prices(5 * 10**9, 5 * 10**9)
    assert api_key(job, {"ABLIT_KEY": "the real one"}) == "sandbox-key"
    assert api_key(job, {"SANDBOX_KEY": "named"}) == "named"


def test_the_prices_of_the_sandbox_hold_on_this_machine_only(refusal: Refusal) -> None:
    text = refusal(
        "",
        "endpoint.preset=sandbox",
        "endpoint.base_url=https://example.com",
        "request.max_tokens=16",
        "budget.usd=1",
    )
    assert "pricing" in text
