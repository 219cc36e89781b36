"""The sandbox's control paths: small bodies, and nothing that a web page in a browser could send."""

import contextlib
import socket

import httpx
import pytest

from batchrun.sandbox.control import MOST_BODY_BYTES
from batchrun.sandbox.server import MOST_HEAD_BYTES, background

PATHS = ["limits", "faults", "credits"]
FOREIGN = [{"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Host": "[x"}]


@pytest.mark.parametrize("headers", FOREIGN)
def test_a_foreign_host_or_origin_is_refused_and_changes_nothing(headers: dict[str, str]) -> None:
    with background() as sandbox:
        for path in PATHS:
            url = f"{sandbox.base_url}/sandbox/{path}"
            assert httpx.post(url, content=b'{"rpm":1}', headers=headers).status_code == 403
        for path in ("health", "bill"):
            assert httpx.get(f"{sandbox.base_url}/sandbox/{path}", headers=headers).status_code == 403
        assert sandbox.provider.limits.rpm != 1


@pytest.mark.parametrize("path", PATHS)
def test_a_large_body_is_refused_and_not_kept(path: str) -> None:
    with background() as sandbox:
        url = f"{sandbox.base_url}/sandbox/{path}"
        refused = httpx.post(url, content=b" " * (MOST_BODY_BYTES + 1))
        assert refused.status_code == 413
        assert "more than 65,536 bytes" in refused.text


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_its_own_names_are_taken(name: str) -> None:
    with background() as sandbox:
        port = sandbox.base_url.rpartition(":")[2]
        headers = {"Host": f"{name}:{port}", "Origin": f"http://{name}:{port}"}
        url = f"{sandbox.base_url}/sandbox/limits"
        assert httpx.post(url, content=b'{"rpm":7}', headers=headers).json()["rpm"] == 7


@pytest.mark.parametrize("lines", [[b"a" * (MOST_HEAD_BYTES + 1)], [b"b" * 1_000] * 100])
def test_headers_without_end_are_refused_and_not_kept(lines: list[bytes]) -> None:
    """One header, or many: 30 MB would follow."""
    with background() as sandbox:
        port = int(sandbox.base_url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(b"POST /v1/messages HTTP/1.1\r\nHost: x\r\n")
            with contextlib.suppress(ConnectionError):
                for number in range(300):
                    connection.sendall(b"x%d: %s\r\n" % (number, lines[number % len(lines)]))
            with contextlib.suppress(ConnectionError):
                assert connection.recv(64).startswith(b"HTTP/1.1 431 ") or connection.recv(64) == b""
        assert httpx.get(f"{sandbox.base_url}/sandbox/health").status_code == 200
        assert not sandbox.bill()["requests"]


def test_a_whole_head_that_is_too_large_gets_a_431() -> None:
    with background() as sandbox:
        refused = httpx.get(f"{sandbox.base_url}/sandbox/health", headers={"X": "a" * MOST_HEAD_BYTES})
        taken = httpx.get(f"{sandbox.base_url}/sandbox/health", headers={"X": "a" * (MOST_HEAD_BYTES // 2)})
        assert (refused.status_code, taken.status_code) == (431, 200)
