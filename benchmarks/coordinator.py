"""`batchrun run JOB`, which says at its end how much CPU its own process has used while it was sending.

`python -m benchmarks.coordinator JOB --free-senders`: its senders cost nothing, so that the coordinator is
measured alone. With `[workers]` in the job, the run is one with workers, although none is started.
`--journal-by-thread`: its journal has no process of its own all the same.
"""

import argparse
import asyncio
import re
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from batchrun.cli import main as batchrun
from batchrun.engine.session import OpenSender
from batchrun.exchange import Completion, Response
from batchrun.journal.writer import commits_here
from batchrun.runs import run, sending

_SAID = "CPU while sending: {:.6f} s"

_BODY = (
    b'{"id":"msg_1","type":"message","role":"assistant","model":"abliterated-model","content":[{"type":"text",'
    b'"text":"positive"}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":40,'
    b'"output_tokens":3}}'
)
_COMPLETION = Completion("positive", "end_turn", response_id="msg_1", response_model="abliterated-model")


class FreeSender:
    """Answers all requests of one round of the event loop at the beginning of the next."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[Response]] = []

    async def ready(self) -> None: ...

    async def send(self, _body: bytes, _begun: Callable[[], None] | None = None) -> Response:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Response] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._answer)
        self._waiting.append(answer)
        return await answer

    def _answer(self) -> None:
        waiting, self._waiting = self._waiting, []
        for answer in waiting:
            answer.set_result(Response(_BODY, 40, 3, latency=0.001, completion=_COMPLETION))


@asynccontextmanager
async def _open(*_: object) -> AsyncIterator[FreeSender]:
    yield FreeSender()


@contextmanager
def _senders(*_: object) -> Iterator[OpenSender]:
    yield _open


def cpu_while_sending(log: str) -> float:
    """Returns the seconds that a run has said in its log."""
    return float(re.findall(_SAID.replace("{:.6f}", "([0-9.]+)"), log)[-1])


def _say_cpu_while_sending() -> None:
    run_engine = sending.run_engine

    def measured(*arguments: Any) -> Any:
        before = time.process_time()
        try:
            return run_engine(*arguments)
        finally:
            print(_SAID.format(time.process_time() - before), file=sys.stderr)

    sending.run_engine = measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job")
    parser.add_argument("--free-senders", action="store_true")
    parser.add_argument("--journal-by-thread", action="store_true")
    options = parser.parse_args()
    _say_cpu_while_sending()
    if options.free_senders:
        run.senders = _senders  # type: ignore[assignment]
    if options.journal_by_thread:
        run.commits_of = lambda *_: commits_here
    sys.argv[1:] = ["run", options.job]
    batchrun()


if __name__ == "__main__":
    main()
