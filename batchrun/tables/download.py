"""Downloads an input over http or https once, to a temporary copy that all passes read."""

from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from batchrun.errors import InputError
from batchrun.tables.copies import CopiedLocation, copied
from batchrun.tables.endings import format_of
from batchrun.text import cause, without_secrets

if TYPE_CHECKING:
    import httpx

_CHUNK_BYTES = 1 << 20
_TIMEOUT_SECONDS = 60


def download(url: str, folder: Path | None) -> CopiedLocation:
    """Returns what `url` holds, in a temporary copy in `folder`; the ending of its path gives the format.

    Follows redirects, and proxies that the environment names. Raises InputError where the server can't be
    reached, refuses, or breaks off.
    """
    import httpx  # takes a tenth of a second, which most inputs don't need

    name, parts = without_secrets(url), urlsplit(url)
    if "@" in parts.netloc:
        raise InputError(
            f"{name}: a URL with a user or a password can't be downloaded. Download the file first"
        )
    kind = format_of(unquote(parts.path))

    def write(copy: IO[bytes]) -> None:
        try:
            with httpx.stream("GET", url, timeout=_TIMEOUT_SECONDS, follow_redirects=True) as response:
                if not response.is_success:
                    answer = f"{response.status_code} {response.reason_phrase}"
                    raise InputError(f"{name}: the server answered {answer.strip()}")
                copy.writelines(_chunks(response, is_compressed=kind[1] is not None))
        except httpx.ConnectError as error:
            raise InputError(f"{name} can't be reached: {cause(error, url)}") from error
        except httpx.RemoteProtocolError as error:
            raise InputError(f"{name}: the download broke off: {cause(error, url)}. Try again") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise InputError(f"{name} can't be downloaded: {cause(error, url)}. Try again") from error

    return copied(name, kind, write, folder)


def _chunks(response: "httpx.Response", *, is_compressed: bool) -> Iterator[bytes]:
    """Yields the file. Servers call a .gz file encoded text, too, which is not to be decoded twice."""
    yield from response.iter_raw(_CHUNK_BYTES) if is_compressed else response.iter_bytes(_CHUNK_BYTES)
