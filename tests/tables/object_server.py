"""An object store that speaks as much of S3's protocol as Arrow's client needs: for tests, without keys."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

Objects = dict[str, bytes]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    objects: Objects
    parts: dict[str, dict[int, bytes]]

    def do_GET(self) -> None:
        path, query = self._target()
        if "list-type" in query:
            prefix = f"{path}/{query.get('prefix', [''])[0]}"
            found = {key: data for key, data in self.objects.items() if key.startswith(prefix)}
            contents = "".join(
                f"<Contents><Key>{escape(key.partition('/')[2])}</Key><Size>{len(data)}</Size>"
                "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
                for key, data in sorted(found.items())
            )
            listed = f"<ListBucketResult><KeyCount>{len(found)}</KeyCount>{contents}</ListBucketResult>"
            self._answer(200, listed.encode())
        elif path in self.objects:
            self._answer_object(self.objects[path])
        else:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        path, query = self._target()
        self._body()
        if "uploads" in query:
            self.parts[path] = {}
            name = b"InitiateMultipartUploadResult"
            self._answer(200, b"<%s><UploadId>1</UploadId></%s>" % (name, name))
        else:
            parts = self.parts.pop(path)
            self.objects[path] = b"".join(parts[number] for number in sorted(parts))
            name = b"CompleteMultipartUploadResult"
            self._answer(200, b"<%s><ETag>e</ETag></%s>" % (name, name))

    def do_PUT(self) -> None:
        path, query = self._target()
        content = self._body()
        if not path.startswith("bucket/"):
            self._answer(404, b"<Error><Code>NoSuchBucket</Code></Error>")
        elif "partNumber" in query:
            self.parts[path][int(query["partNumber"][0])] = content
            self._answer(200)
        else:
            self.objects[path] = content
            self._answer(200)

    def do_DELETE(self) -> None:
        self.objects.pop(self._target()[0], None)
        self._answer(204)

    def _target(self) -> tuple[str, dict[str, list[str]]]:
        parts = urlsplit(self.path)
        return unquote(parts.path).lstrip("/"), parse_qs(parts.query, keep_blank_values=True)

    def _body(self) -> bytes:
        """The content, in chunks of HTTP's inside of which there may be chunks of S3's with a checksum."""
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        content = b""
        while length := int(self.rfile.readline(), 16):
            content += self.rfile.read(length)
            self.rfile.readline()
        self.rfile.readline()
        return _unchunked(content) if "aws-chunked" in self.headers["content-encoding"] else content

    def _answer_object(self, data: bytes) -> None:
        wanted = self.headers.get("range")
        if wanted is None:
            self._answer(200, data)
            return
        start, _, end = wanted.removeprefix("bytes=").partition("-")
        last = min(int(end or len(data)), len(data) - 1)
        self._answer(206, data[int(start) : last + 1], f"bytes {start}-{last}/{len(data)}")

    def _answer(self, status: int, content: bytes = b"", content_range: str | None = None) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.send_header("etag", '"e"')
        if content_range is not None:
            self.send_header("content-range", content_range)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


def _unchunked(content: bytes) -> bytes:
    data = b""
    while True:
        size, _, content = content.partition(b"\r\n")
        length = int(size.partition(b";")[0], 16)
        if not length:
            return data
        data, content = data + content[:length], content[length + 2 :]


@contextmanager
def object_server(objects: Objects) -> Iterator[str]:
    """Serves `objects`, by bucket and key, in which uploads arrive; only the bucket `bucket` takes any.

    Returns its address.
    """
    handler = type("Handler", (_Handler,), {"objects": objects, "parts": {}})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
