"""Reads the endpoint's address from `endpoint.base_url`. No I/O."""

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from batchrun.errors import JobError

_DEFAULT_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?")
_UNQUOTED = "/%:@!$&'()*+,;=?"


@dataclass(frozen=True, slots=True)
class Address:
    """The address of `POST /v1/messages`. `host` is ASCII, without brackets; `target` starts with a slash."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def netloc(self) -> str:
        """Host and port as a Host header has them: without the scheme's own port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def shown(self) -> str:
        """Host and path, as messages name them: a query may hold a secret."""
        return f"{self.netloc}{self.target.partition('?')[0]}"

    @property
    def url(self) -> str:
        """The whole URL."""
        return f"{self.scheme}://{self.netloc}{self.target}"


def messages_address(base_url: str) -> Address:
    """Returns the address of `POST /v1/messages` under `base_url`. Raises JobError unless it is http(s)."""
    if not base_url.isprintable():
        raise JobError("[endpoint] base_url: holds a control character")
    try:
        parts = urlsplit(base_url.rstrip("/") + "/v1/messages")
        host = _checked_host(parts.hostname or "")
        port = parts.port
    except ValueError as error:
        raise JobError(f"[endpoint] base_url: {error}") from None
    if parts.scheme not in _DEFAULT_PORTS or not host:
        raise JobError("[endpoint] base_url: expected http://host or https://host")
    query = f"?{quote(parts.query, safe=_UNQUOTED)}" if parts.query else ""
    port = port or _DEFAULT_PORTS[parts.scheme]
    return Address(parts.scheme, host, port, quote(parts.path, safe=_UNQUOTED) + query)


def _checked_host(host: str) -> str:
    """Returns `host` in ASCII. Raises ValueError where browsers would refuse it, as for "1.2.3.4.5"."""
    if ":" in host:
        return str(ipaddress.IPv6Address(host))
    if not host.isascii() or "xn--" in host:
        import idna

        host = idna.encode(host, uts46=True).decode("ascii")  # includes IDNAError
    if host and not _HOST.fullmatch(host):
        raise ValueError(f"{host!r} is not a host name")
    if host.rstrip(".").rpartition(".")[2].isdigit():
        return str(ipaddress.IPv4Address(host))
    return host
