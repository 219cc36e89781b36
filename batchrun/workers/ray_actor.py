"""A worker as a Ray actor. Ray imports this module on every node, so batchrun has to be installed there."""

import os
from functools import partial

import anyio

from batchrun.client.event_loop import event_loop_options
from batchrun.errors import BatchrunError
from batchrun.workers.access import read_token, shown_address
from batchrun.workers.worker import Ending, serve


class SendingActor:
    """Sends for a coordinator, from a process of its own."""

    def serve(self, host: str, port: int, token: str) -> str | None:
        """Sends until the connection ends. Returns why, in a line, or None where the run is over."""
        coordinator = shown_address(host, port)
        try:
            ending = anyio.run(
                partial(serve, (host, port), read_token(token)), backend_options=event_loop_options()
            )
        except BatchrunError as error:
            return str(error)
        except OSError as error:
            return f"The node {os.uname().nodename} can't connect to the run at {coordinator}: {error}."
        return None if ending is Ending.OVER else f"The connection to the run at {coordinator} broke."
