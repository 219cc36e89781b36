"""Servers that batchrun knows by name: the keys that `endpoint.preset` fills in, and token prices."""

import ipaddress
from collections.abc import Mapping
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

PROVIDER_URL = "https://api.abliteration.ai"
PROVIDER_USD_PER_MILLION = Decimal(5)  # input and output alike

_PRESETS: Mapping[str, Mapping[str, Any]] = {
    "abliteration": {"base_url": PROVIDER_URL, "api_key_env": "ABLIT_KEY", "auth": "bearer"},
    # https://docs.anthropic.com/en/api/versioning: the key in x-api-key, the version header on every request.
    "anthropic": {
        "base_url": "https://api.anthropic.com",
        "api_key_env": "ANTHROPIC_API_KEY",
        "auth": "x-api-key",
        "headers": {"anthropic-version": "2023-06-01"},
    },
    # The port of `batchrun sandbox --real` and of llama.cpp's server.
    "local": {"base_url": "http://127.0.0.1:8080", "auth": "none"},
    # What `batchrun sandbox` serves, with the provider's prices.
    "sandbox": {"base_url": "http://127.0.0.1:8080", "api_key_env": "SANDBOX_KEY"},
}
SANDBOX_KEY = "sandbox-key"
"""The key for a sandbox, which accepts any unless it was given some."""


_USD_ON_THIS_MACHINE = {"local": Decimal(0), "sandbox": PROVIDER_USD_PER_MILLION}


def with_preset(endpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the table [endpoint] with its preset's keys added; the table's own keys win, header by header.

    An unknown preset adds nothing: the check of the table's types refuses it.
    """
    name = endpoint.get("preset", "abliteration")
    preset = _PRESETS.get(name, {}) if isinstance(name, str) else {}
    filled = {**preset, **endpoint}
    given = filled.get("headers")
    if "headers" in preset and isinstance(given, dict):
        named = {header.lower() for header in given}
        added = {key: value for key, value in preset["headers"].items() if key not in named}
        filled["headers"] = {**added, **given}
    return filled


def known_usd_per_million(preset: str, base_url: str) -> Decimal | None:
    """Returns the USD price of a million tokens, input and output alike, at a job's server; None: unknown.

    Prices of the presets `local` and `sandbox` hold on this machine only: an additional base_url may name
    another server.
    """
    if base_url == PROVIDER_URL:
        return PROVIDER_USD_PER_MILLION
    if preset in _USD_ON_THIS_MACHINE and is_loopback(urlsplit(base_url).hostname or ""):
        return _USD_ON_THIS_MACHINE[preset]
    return None


def is_loopback(host: str) -> bool:
    """Whether `host`, a name or an address, is this machine's own."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
