"""What [telemetry] otlp costs: `python -m benchmarks.telemetry` runs a job with and without it, by turns."""

import argparse
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.jobs import Jobs
from benchmarks.server import Server, compile_server, serving

IN_FLIGHT = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="batchrun-telemetry-") as name,
        collecting() as address,
        serving(compile_server(Path(name))) as server,
    ):
        jobs = Jobs(Path(name))
        pairs = [
            (_cpu(jobs, server, options.rows), _cpu(jobs, server, options.rows, address))
            for _ in range(options.pairs)
        ]
    without, with_it = zip(*pairs, strict=True)
    ratios = sorted(after / before for before, after in pairs)
    print(
        f"us of CPU per row, medians of {options.pairs} pairs of {options.rows:,} rows:"
        f" {median(without):.1f} without, {median(with_it):.1f} with;"
        f" ratio {median(ratios):.3f} ({ratios[0]:.3f}-{ratios[-1]:.3f})"
    )


def _cpu(jobs: Jobs, server: Server, rows: int, address: str | None = None) -> float:
    job = jobs.new(server, rows, IN_FLIGHT)
    if address is not None:
        job.file.write_text(f'{job.file.read_text()}[telemetry]\notlp = "{address}"\n')
    return job.run().cpu / rows * 1e6


@contextmanager
def collecting() -> Iterator[str]:
    """A collector that throws away what it gets; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    main()
