"""What the tests of the endpoint share."""

from functools import partial
from typing import Any

import pytest

from batchrun.client import reqwest, transport


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["direct", "reqwest"])
def wire(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a test over both transports: reqwest's, which serves proxies, is used here without one."""
    if request.param == "reqwest":
        without_proxy: Any = partial(_without_proxy, reqwest.ReqwestTransport)
        monkeypatch.setattr(transport, "proxy_for", lambda *_: "http://127.0.0.1:1")
        monkeypatch.setattr(reqwest, "ReqwestTransport", without_proxy)


def _without_proxy(made: Any, *arguments: Any) -> Any:
    return made(*arguments[:-1], None)
