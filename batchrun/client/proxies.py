"""Finds the proxy that the environment names for an address. No I/O."""

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from batchrun.client.address import Address
from batchrun.errors import JobError
from batchrun.job.presets import is_loopback

_SCHEMES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")


def proxy_for(address: Address, environ: Mapping[str, str]) -> str | None:
    """Returns the proxy's URL, None for a direct connection. This machine's own address never gets a proxy.

    Reads HTTPS_PROXY or HTTP_PROXY, by the address's scheme, then ALL_PROXY, and NO_PROXY; in lower case
    first. Raises JobError where the proxy's address can't be parsed; its text doesn't quote it, since it may
    hold a password.
    """
    name = _variable((f"{address.scheme}_proxy", "all_proxy"), environ)
    if name is None or is_loopback(address.host):
        return None
    exceptions = environ[no_proxy] if (no_proxy := _variable(("no_proxy",), environ)) else ""
    if any(_excepts(entry.strip().lower(), address) for entry in exceptions.split(",")):
        return None
    proxy = environ[name].strip()
    return _checked(proxy if "://" in proxy else f"http://{proxy}", name)


def _variable(names: tuple[str, ...], environ: Mapping[str, str]) -> str | None:
    spellings = (spelling for name in names for spelling in (name, name.upper()))
    return next((spelling for spelling in spellings if environ.get(spelling, "").strip()), None)


def _checked(proxy: str, name: str) -> str:
    try:
        parts = urlsplit(proxy)
        usable = parts.scheme in _SCHEMES and parts.hostname and parts.port != 0
        usable = usable and proxy.isprintable() and " " not in parts.netloc
    except ValueError:
        usable = False
    if not usable:
        raise JobError(
            f"the environment variable {name} holds no proxy's address: expected http://host:port.\n"
            "Correct it or unset it; NO_PROXY names hosts that need no proxy."
        )
    return proxy


def _excepts(entry: str, address: Address) -> bool:
    """Whether an entry of NO_PROXY means `address`: *, a domain, host:port, an IP address or a network."""
    if entry == "*":
        return True
    try:
        return ipaddress.ip_address(address.host) in ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        pass
    host, colon, port = entry.rpartition(":")
    if colon and port.isdigit() and "]" not in port:
        if int(port) != address.port:
            return False
        entry = host.strip("[]")
    domain = entry.removeprefix("*").removeprefix(".")
    return bool(domain) and (address.host == domain or address.host.endswith(f".{domain}"))
