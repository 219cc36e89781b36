"""The event loop that sending runs on."""

from typing import Any


def event_loop_options() -> dict[str, Any]:
    """Returns anyio's options of asyncio: uvloop, which is faster, where it is installed."""
    try:
        import uvloop  # noqa: F401
    except ImportError:
        return {}
    return {"use_uvloop": True}
