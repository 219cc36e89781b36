"""Proxies of the environment: when one is used, and what becomes of one that can't be."""

import pytest

from batchrun.client.address import messages_address
from batchrun.client.endpoint import EndpointSettings, open_endpoint
from batchrun.client.proxies import proxy_for
from batchrun.errors import JobError
from batchrun.exchange import Failure, Response

from .wire_server import MESSAGE, always, answer_from, response, send_once, wire_server


@pytest.mark.parametrize(
    ("variables", "proxy"),
    [
        ({}, None),
        ({"HTTPS_PROXY": "http://p:3128"}, "http://p:3128"),
        ({"https_proxy": "p:3128"}, "http://p:3128"),
        ({"https_proxy": "http://low:1", "HTTPS_PROXY": "http://up:1"}, "http://low:1"),
        ({"HTTP_PROXY": "http://p:3128"}, None),
        ({"ALL_PROXY": "socks5://user:pass@p:1080"}, "socks5://user:pass@p:1080"),
        ({"HTTPS_PROXY": " "}, None),
        *[
            ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": exceptions}, proxy)
            for exceptions, proxy in [
                ("*", None),
                ("api.model.test", None),
                ("other, MODEL.test", None),
                (".model.test", None),
                ("*.model.test", None),
                ("api.model.test:8443", None),
                ("api.model.test:443", "http://p:3128"),
                ("del.test", "http://p:3128"),
                ("10.0.0.0/8", "http://p:3128"),
                ("", "http://p:3128"),
            ]
        ],
    ],
)
def test_proxy_is_that_of_the_scheme_unless_the_host_is_excepted(
    variables: dict[str, str], proxy: str | None
) -> None:
    assert proxy_for(messages_address("https://api.model.test:8443"), variables) == proxy


@pytest.mark.parametrize(
    ("host", "exceptions", "is_used"),
    [
        ("10.1.2.3", "10.0.0.0/8", False),
        ("11.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "10.1.2.3", False),
        ("[2001:db8::1]", "2001:db8::/32", False),
        ("[2001:db8::1]", "[2001:db8::1]", False),
        ("127.0.0.1", "", False),
        ("localhost", "", False),
    ],
)
def test_addresses_and_networks_are_excepted_and_this_machine_always(
    host: str, exceptions: str, is_used: bool
) -> None:
    variables = {"http_proxy": "http://p:3128", "no_proxy": exceptions}
    assert (proxy_for(messages_address(f"http://{host}"), variables) is not None) is is_used


@pytest.mark.parametrize(
    "proxy", ["http://", "http://host:port", "http://p:99999", "ftp://p", "http://[::1", "http://a b", "://"]
)
@pytest.mark.anyio
async def test_proxy_that_cannot_be_parsed_is_the_users_error(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", proxy)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(JobError, match="https_proxy"):
        async with open_endpoint(EndpointSettings("https://model.invalid")):
            pass


@pytest.mark.anyio
async def test_loopback_is_never_asked_for_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert (await answer_from(always(response(MESSAGE)))).body == MESSAGE


@pytest.mark.anyio
async def test_proxy_of_the_environment_is_used_for_other_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    async with wire_server(always(response(MESSAGE))) as proxy:
        for name in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, proxy.url)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        outcome = await send_once(EndpointSettings("http://model.invalid", "sk-test-key"))
        assert isinstance(outcome, Response)
        assert proxy.requests[0].startswith(b"POST http://model.invalid/v1/messages HTTP/1.1\r\n")


@pytest.mark.anyio
async def test_proxy_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else one would look for the fault at the address that is right."""
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    outcome = await send_once(EndpointSettings("http://model.invalid", "sk-test-key"))
    assert isinstance(outcome, Failure)
    assert outcome.message.startswith("no connection to model.invalid: ")
    assert outcome.message.endswith(", through the environment's proxy")
