"""A proxy on loopback that keeps every request and answer that goes through it."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

_OF_ONE_CONNECTION = frozenset(("connection", "content-length", "date", "server", "transfer-encoding"))


@dataclass(frozen=True)
class Exchange:
    """One request and its answer; names of headers are in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes
    status: int
    answer: bytes

    @property
    def request(self) -> dict[str, Any]:
        decoded: dict[str, Any] = json.loads(self.body)
        return decoded

    @property
    def message(self) -> dict[str, Any]:
        """The answer's message; that of a stream is put together from its events."""
        if not self.answer.startswith(b"event:"):
            decoded: dict[str, Any] = json.loads(self.answer)
            return decoded
        lines = self.answer.decode().splitlines()
        events = [json.loads(line.removeprefix("data:")) for line in lines if line.startswith("data:")]
        by_type = {event["type"]: event for event in events}
        end = {key: value for key, value in by_type["message_delta"].items() if key not in ("type", "delta")}
        text = "".join(event["delta"]["text"] for event in events if event["type"] == "content_block_delta")
        start = by_type["message_start"]["message"]
        usage = {**start["usage"], **end.pop("usage")}
        whole = {**start, **end, **by_type["message_delta"]["delta"], "usage": usage}
        return {**whole, "content": [{"type": "text", "text": text}]}


@dataclass(frozen=True)
class Recording:
    base_url: str
    exchanges: list[Exchange]


@contextmanager
def recording(target: str) -> Iterator[Recording]:
    """Passes POST requests on to the server at the base URL `target`, until the block ends."""
    exchanges: list[Exchange] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            passed = {
                name: value for name, value in headers.items() if name not in {*_OF_ONE_CONNECTION, "host"}
            }
            answer = client.post(self.path, content=body, headers=passed | {"accept-encoding": "identity"})
            exchanges.append(Exchange(self.path, headers, body, answer.status_code, answer.content))
            self.send_response(answer.status_code)
            for name, value in answer.headers.items():
                if name not in _OF_ONE_CONNECTION:
                    self.send_header(name, value)
            self.send_header("content-length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    with httpx.Client(base_url=target, timeout=20) as client:
        thread.start()
        try:
            yield Recording(f"http://127.0.0.1:{server.server_address[1]}", exchanges)
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
