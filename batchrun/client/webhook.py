"""Notifies a server other than the endpoint: one POST, without a key."""

import anyio

from batchrun.version import __version__

_HEADERS = {"content-type": "application/json", "user-agent": f"batchrun/{__version__}"}


def post_json(url: str, body: bytes, timeout: float) -> str | None:
    """POSTs JSON once, within `timeout` seconds. Returns the fault in words, without the URL, or None."""

    import httpx  # takes a tenth of a second, which most runs don't need

    async def post() -> int:
        with anyio.fail_after(timeout):
            async with httpx.AsyncClient(timeout=timeout) as client:
                return (await client.post(url, content=body, headers=_HEADERS)).status_code

    try:
        status = anyio.run(post)
    except TimeoutError:
        return f"took longer than {timeout:g} s"
    except Exception as error:  # any kind: an unusable proxy is a ValueError
        return f"can't be reached ({type(error).__name__})"
    return None if 200 <= status < 300 else f"answered with status {status}"
