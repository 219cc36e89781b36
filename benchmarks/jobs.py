"""Jobs of the real command: `python -m batchrun`, with prices, a budget, Parquet in and Parquet out."""

import itertools
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import Measured, Usage, measure, python_module
from benchmarks.server import Server

TEMPLATE = "Sentiment of this review, one word: {{ text }}"
_JOB = """
[input]
path = "{input}"
[prompt]
template = "{template}"
[request]
model = "abliterated-model"
max_tokens = 64
[endpoint]
base_url = "http://127.0.0.1:{port}"
auth = "none"
[pricing]
input_usd_per_million = 5.0
output_usd_per_million = 5.0
[limits]
concurrency = {in_flight}
[budget]
usd = 1000000.0
[output]
path = "{output}"
"""


@dataclass(frozen=True)
class Job:
    """A job file; its journal is beside it."""

    file: Path
    log: Path

    def command(self, name: str) -> list[str]:
        return python_module("batchrun", name, str(self.file))

    def run(self) -> Usage:
        return measure(self.command("run"), self.log)

    def start(self) -> Measured:
        return Measured(self.command("run"), self.log)

    def start_as_coordinator(self, *options: str) -> Measured:
        """Starts a run whose log has its CPU while sending: see `benchmarks.coordinator`."""
        return Measured(python_module("benchmarks.coordinator", str(self.file), *options), self.log)


class Jobs:
    """Makes jobs and their inputs in a folder; an input is written once for each number of rows."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()

    def new(self, server: Server, rows: int, in_flight: int) -> Job:
        """A job without a journal."""
        return self.with_journal_of(self._folder / f"job{next(self._numbers)}", server, rows, in_flight)

    def with_journal_of(self, stem: Path, server: Server, rows: int, in_flight: int) -> Job:
        """A job with the output and the journal of `stem`, which may be there from an earlier one."""
        return self._job(stem, self.input(rows), server.port, in_flight)

    def to_plan(self, table: Path) -> Job:
        """A job over `table` that is not sent anywhere."""
        return self._job(self._folder / f"job{next(self._numbers)}", table, port=9, in_flight=1)

    def _job(self, stem: Path, table: Path, port: int, in_flight: int) -> Job:
        file, output = stem.with_suffix(".toml"), stem.with_suffix(".parquet")
        file.write_text(
            _JOB.format(template=TEMPLATE, input=table, port=port, in_flight=in_flight, output=output)
        )
        return Job(file, stem.with_suffix(".log"))

    def input(self, rows: int, ending: str = "parquet") -> Path:
        """The table of so many rows."""
        path = self._folder / f"rows{rows}.{ending}"
        if not path.exists():
            subprocess.run(python_module("benchmarks.rows", str(path), str(rows)), check=True)
        return path
