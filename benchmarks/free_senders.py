"""A run whose senders cost nothing: `python -m benchmarks.free_senders JOB`. The coordinator alone is left.

With `[workers]` in the job, the run is one with workers, although none is started. `--journal-by-thread`: its
journal has no process of its own all the same.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from batchrun.client.server import Server
from batchrun.engine.session import OpenSender
from batchrun.exchange import Completion, Response
from batchrun.job.file import load_job
from batchrun.journal.writer import commits_here
from batchrun.runs import run

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


def main(job_file: str, *options: str) -> None:
    run.senders = _senders  # type: ignore[assignment]
    if "--journal-by-thread" in options:
        run.commits_of = lambda *_: commits_here
    run.run_job(load_job(Path(job_file), ()), Server("http://127.0.0.1:9", None))


if __name__ == "__main__":
    main(*sys.argv[1:])
