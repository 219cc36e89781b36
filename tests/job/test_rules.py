"""What a job must hold besides its types: a broken rule is refused, the case next to it isn't."""

from pathlib import Path

import pytest

from batchrun.errors import JobError, OutputError
from batchrun.job.caps import CAPS
from batchrun.job.file import load_job
from batchrun.job.presets import PROVIDER_URL
from batchrun.job.prices import Prices, prices
from batchrun.runs.paths import check_paths
from tests.job.conftest import Refusal


def test_template_or_messages_exactly_one(refusal: Refusal, minimal: Path) -> None:
    assert refusal("", "prompt.messages=m").endswith("the job has both")
    minimal.write_text(minimal.read_text().replace('template = "{{ text }}"', ""))
    with pytest.raises(JobError, match="the job has neither"):
        load_job(minimal)
    assert load_job(minimal, ["prompt.messages=conversation"]).prompt.messages == "conversation"


@pytest.mark.parametrize("key", ["template", "system", "image"])
def test_empty_prompt(refusal: Refusal, key: str) -> None:
    assert refusal("", f'prompt.{key}=" "').startswith(f"[prompt] {key}: must not be empty")


def test_an_image_goes_with_a_template(refusal: Refusal, minimal: Path) -> None:
    assert load_job(minimal, ["prompt.image=photo"]).prompt.image == "photo"
    minimal.write_text(minimal.read_text().replace("template = ", "messages = "))
    with pytest.raises(JobError, match=r"\[prompt\] image: goes with prompt\.template"):
        load_job(minimal, ["prompt.image=photo"])


def test_system_in_blocks(minimal: Path) -> None:
    """As the API has them, what else they hold included."""
    minimal.write_text(
        minimal.read_text() + '[[prompt.system]]\ntype = "text"\ntext = "a"\ncache_control = {ttl = 1.5}\n'
    )
    block = {"type": "text", "text": "a", "cache_control": {"ttl": 1.5}}
    assert load_job(minimal).prompt.system == (block,)


@pytest.mark.parametrize(
    ("blocks", "text"),
    [
        ("[]", "system: must not be empty; leave it out"),
        ('[{type = "text", text = " "}]', "system[0]: expected {type"),
        ('[{type = "text", text = "a"}, {text = "a"}]', "system[1]: expected {type"),
        ('[{type = "image", text = "a"}]', "system[0]: expected {type"),
        ('[{type = "text", text = "a", at = 2026-01-01}]', "system[0].at: a date or time can't be sent"),
        ('["a"]', 'system[0]: expected a table, got "a"'),
        ("5", "system: expected text, got 5"),
    ],
)
def test_system_in_blocks_that_are_none(refusal: Refusal, blocks: str, text: str) -> None:
    assert refusal("", f"prompt.system={blocks}").startswith(f"[prompt] {text}")


@pytest.mark.parametrize(
    ("key", "home"),
    [("max_tokens", "request.max_tokens"), ("system", "prompt.system"), ("stream", "request.stream")],
)
def test_extra_cannot_go_around_a_key(refusal: Refusal, key: str, home: str) -> None:
    """A max_tokens in extra would make the worst case of a request a lie."""
    assert refusal("", f"request.extra.{key}=1") == f"[request.extra] {key}: set {home} instead"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("[1.5, inf]", "a[1]: inf can't be sent as JSON"),
        ("{b = [2026-01-01]}", "a.b[0]: a date or time can't be sent as JSON; write it as text, in quotes"),
        (str(2**63), "a: a whole number of more than 64 bits can't be sent"),
    ],
)
def test_extra_must_be_json(refusal: Refusal, value: str, text: str) -> None:
    assert refusal("", f"request.extra.a={value}") == f"[request.extra] {text}"


def test_columns_are_parameters_that_can_vary(refusal: Refusal, minimal: Path) -> None:
    """Known parameters, and those that extra gives a default."""
    prefix = "[request.columns] "
    assert refusal("", "request.columns.temprature=t") == (
        f"{prefix}temprature: unknown parameter; did you mean temperature?"
    )
    assert (
        refusal("", "request.columns.system=t") == f"{prefix}system: can't differ by row; see prompt.system"
    )
    assert (
        refusal("", "request.columns.stream=t") == f"{prefix}stream: can't differ by row; see request.stream"
    )
    assert refusal("", "request.columns.zzz=t").startswith(
        f"{prefix}zzz: unknown parameter. Known: flagged_cat"
    )
    assert "expected the name of a column" in refusal("", 'request.columns.model=""')
    job = load_job(
        minimal, ["request.extra.seed=1", "request.columns.seed=s", "request.columns.max_tokens=n"]
    )
    assert job.request.columns == {"seed": "s", "max_tokens": "n"}


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("https://API.abliteration.ai/", PROVIDER_URL),
        ("https://api.abliteration.ai:443", PROVIDER_URL),
        ("HTTPS://gateway.example/anthropic//", "https://gateway.example/anthropic"),
        ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
        ("http://localhost:80", "http://localhost"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_base_url_is_normal(minimal: Path, url: str, normal: str) -> None:
    """Ways to write one address are one address: for prices, digests and paths."""
    assert load_job(minimal, [f"endpoint.base_url={url}"]).endpoint.base_url == normal


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("api.example.com", "expected an http or https URL"),
        ("ftp://api.example.com", "expected an http or https URL"),
        ("https://", "expected an http or https URL"),
        ("https://example.com:99999", "expected an http or https URL"),
        ("https://[::1", "expected an http or https URL"),
        ("https://exa mple.com", "expected an http or https URL"),
        ("https://me:s3cret@example.com", "no user or password"),
        ("https://example.com?key=s3cret", "no query"),
        ("https://example.com#s3cret", "no query"),
        ("https://example.com?", "no query"),
        ("https://example.com/v1", 'leave out "/v1"'),
        ("https://example.com/v1/messages/", 'leave out "/v1"'),
    ],
)
def test_base_url_refused(refusal: Refusal, url: str, text: str) -> None:
    """What is wrong is said without repeating a URL that may hold a password."""
    message = refusal("", f"endpoint.base_url={url}")
    assert message.startswith("[endpoint] base_url: ")
    assert text in message
    assert "s3cret" not in message


@pytest.mark.parametrize(
    "host", ["example.com", "10.0.0.1", "127.0.0.1.example.com", "localhost.example.com"]
)
def test_key_goes_over_plain_http_to_loopback_only(refusal: Refusal, minimal: Path, host: str) -> None:
    """Refused with a key, fine without one; loopback is fine with one."""
    text = refusal("", f"endpoint.base_url=http://{host}")
    assert text.startswith(f"[endpoint] base_url: the key would go unencrypted to {host}.\n")
    for without_key in ("endpoint.auth=none", "request.free_tier=true"):
        assert load_job(minimal, [f"endpoint.base_url=http://{host}", without_key])
    assert load_job(minimal, ["endpoint.base_url=http://127.9.9.9:1"])


@pytest.mark.parametrize("name", ["Authorization", "x-api-key", "X-Free-Tier", "Content-Length", "Host"])
def test_headers_that_batchrun_sets(refusal: Refusal, name: str) -> None:
    assert refusal("", f"endpoint.headers.{name}=x").startswith(
        f"[endpoint] headers.{name}: not to be set here; "
    )


def test_headers_that_no_wire_carries(refusal: Refusal) -> None:
    """Line breaks would smuggle a header; names have the characters of RFC 9110."""
    assert "line break" in refusal("", 'endpoint.headers.a="x\\r\\nb: c"')
    assert "non-ASCII" in refusal("", "endpoint.headers.a=é")
    assert "a name is made of" in refusal("[endpoint.headers]\n'a b' = 'x'")
    assert "given twice" in refusal("[endpoint.headers]\na = 'x'\nA = 'y'")


def test_key_in_place_of_its_variable(refusal: Refusal) -> None:
    """A key pasted into api_key_env is refused, and not repeated."""
    text = refusal("", "endpoint.api_key_env=sk-s3cret")
    assert "the name of an environment variable" in text
    assert "s3cret" not in text
    assert "leave it out" in refusal("", 'endpoint.api_key_file=""')


ELSEWHERE = ("request.max_tokens=16", "endpoint.base_url=https://example.com")


@pytest.mark.parametrize("cap", ["usd", "usd_per_run", "usd_per_day"])
def test_usd_cap_without_prices(refusal: Refusal, minimal: Path, cap: str) -> None:
    """Refused elsewhere, naming both keys; fine with prices, for the sandbox, at the provider's address."""
    assert refusal("", *ELSEWHERE, f"budget.{cap}=1") == (
        f"[budget] {cap}: a cap in USD needs prices; none are known for https://example.com.\n"
        "Set pricing.input_usd_per_million and pricing.output_usd_per_million."
    )
    given = ("pricing.input_usd_per_million=3", "pricing.output_usd_per_million=15")
    assert prices(load_job(minimal, [*ELSEWHERE, f"budget.{cap}=1", *given])) == Prices(3 * 10**9, 15 * 10**9)
    sandboxed = load_job(minimal, [*ELSEWHERE, f"budget.{cap}=1"], sandbox=True)
    assert prices(sandboxed, sandbox=True) == Prices(5 * 10**9, 5 * 10**9)
    assert prices(load_job(minimal, [ELSEWHERE[0], f"budget.{cap}=1"])) == Prices(5 * 10**9, 5 * 10**9)


def test_no_prices_without_a_usd_cap(minimal: Path) -> None:
    """An unpriced endpoint is fine as long as nothing depends on prices."""
    assert prices(load_job(minimal, [*ELSEWHERE, "budget.tokens=1000"])) is None


def test_half_a_price_list(refusal: Refusal, minimal: Path) -> None:
    """Elsewhere one price alone is an error; at the provider's address the other has its default."""
    assert "give both" in refusal("", *ELSEWHERE, "pricing.input_usd_per_million=3")
    assert prices(load_job(minimal, ["pricing.input_usd_per_million=0"])) == Prices(0, 5 * 10**9)


@pytest.mark.parametrize("cap", [cap.key for cap in CAPS if cap.needs_worst_case])
def test_cap_without_a_worst_case(refusal: Refusal, minimal: Path, cap: str) -> None:
    """A cap on what a request may use needs max_tokens, for all rows or by column."""
    value = "team.budget" if cap == "pool" else 1
    text = refusal("", f"budget.{cap}={value}")
    assert text.startswith(f"[budget] {cap}: without request.max_tokens a request has no worst case.")
    assert load_job(minimal, [f"budget.{cap}={value}", "request.columns.max_tokens=n"])
    assert load_job(minimal, ["budget.rows=1", "budget.seconds=1"])


@pytest.mark.parametrize(
    "path", ["labels", "labels.txt", "labels.parquet.gz", ".parquet", "labels.run", "out/"]
)
def test_output_ending(refusal: Refusal, path: str) -> None:
    assert refusal("", f"output.path={path}") == (
        f'[output] path: must end in .parquet, .csv, .jsonl, got "{path}"'
    )


def test_output_on_another_machine(refusal: Refusal) -> None:
    assert "in an object store" in refusal("", "output.path=https://host/labels.parquet")


@pytest.mark.parametrize(
    ("source", "output", "clash"),
    [
        ("a.csv", "a.csv", True),
        ("a.csv", "sub/../a.csv", True),
        ("*.csv", "a.csv", True),
        ("./*.csv", "a.csv", True),
        ("*.csv", "a.parquet", False),
        ("*.csv", "out/a.csv", False),
        ("data/*.csv", "data/out/a.csv", False),
        ("**/*.csv", "a.csv", True),
        ("**/*.csv", "out/deep/a.csv", True),
        ("data/**/*.csv", "out/a.csv", False),
        ("s3://bucket/*.csv", "a.csv", False),
    ],
)
def test_output_among_the_input(minimal: Path, source: str, output: str, clash: bool) -> None:
    """An output that the next run would read as input, or that would replace the input, is refused."""
    overrides = [f"input.path={source}", f"output.path={output}"]
    job = load_job(minimal, overrides)
    if not clash:
        check_paths(job)
        return
    with pytest.raises(OutputError, match=r"\[output\] path"):
        check_paths(job)
