"""Writes the journal of the current format: `python -m tests.journals.make`. Those of former formats stay.

A run is killed with some rows answered, one that has failed permanently, and some requests in flight.
"""

import os
import shutil
import signal
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path

from batchrun.client.server import Server
from batchrun.job.file import load_job
from batchrun.journal.schema import FORMAT
from batchrun.runs.run import run_job
from batchrun.sandbox import Settings, background

FOLDER = Path(__file__).parent
_ENDED = 10


def main() -> None:
    with tempfile.TemporaryDirectory() as name, background(Settings(latency=0.2)) as sandbox:
        folder = Path(name)
        for file in ("job.toml", "rows.jsonl"):
            shutil.copyfile(FOLDER / file, folder / file)
        child = os.fork()
        if child == 0:
            run_job(
                load_job(folder / "job.toml", sandbox=True), Server(sandbox.base_url, "a-key", sandbox=True)
            )
            os._exit(0)
        path = folder / "out.run" / "journal.sqlite"
        while _ended(path) < _ENDED:
            time.sleep(0.01)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        target = FOLDER / f"format{FORMAT}" / "journal.sqlite"
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target)


def _ended(path: Path) -> int:
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            return int(connection.execute("SELECT count(*) FROM attempts").fetchone()[0])
    except sqlite3.OperationalError:  # there is none yet
        return 0


if __name__ == "__main__":
    main()
