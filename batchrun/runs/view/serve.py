"""Serves the live pages on loopback until Ctrl-C."""

import os
import signal
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import uvicorn

from batchrun.errors import UsageError
from batchrun.runs.view.app import Pages, application, new_token
from batchrun.runs.view.jobs import FoundJob

HOST = "127.0.0.1"
LEAST_PRIORITY = 19
"""A run beside it has the processor first."""


def serve(
    found: Sequence[FoundJob],
    *,
    port: int,
    sandbox: bool,
    tell: Callable[[str], object],
    open_browser: bool,
) -> None:
    """Serves the pages of the jobs until SIGINT or SIGTERM; `tell` gets their address. Port 0: any free one.

    Raises UsageError where the port is taken.
    """
    os.nice(LEAST_PRIORITY)
    with _listening(port) as listener:
        port = listener.getsockname()[1]
        shown = Pages(found, new_token(), sandbox=sandbox)
        server = _Server(
            uvicorn.Config(
                application(shown, port),
                ws="none",
                log_level="error",
                access_log=False,
                server_header=False,
                lifespan="off",
                timeout_graceful_shutdown=1,
            )
        )
        address = f"http://{HOST}:{port}{shown.root}/"
        tell(address)
        if open_browser and _has_display():
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        try:
            server.run(sockets=[listener])
        finally:
            shown.close()


class _Server(uvicorn.Server):
    """uvicorn's server, whose signals end it and are not raised again afterwards."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.handle_exit)
        yield


def _listening(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise UsageError(
            f"Port {port} can't be used: {error.strerror}. Name another one, or leave --port out."
        ) from None
    return listener


def _has_display() -> bool:
    """Returns whether a browser has a window of its own: one in the terminal would hide the address."""
    return sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
