"""`/sandbox/...`: reading the bill, and changing limits, faults and credits while the sandbox runs."""

from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from batchrun.sandbox.errors import SettingsError
from batchrun.sandbox.faults import checked_shares
from batchrun.sandbox.limits import Limits
from batchrun.sandbox.provider import Provider
from batchrun.sandbox.wire import encode, error_body

T = TypeVar("T")

MOST_BODY_BYTES = 65_536
_OWN_HOSTS = frozenset(("127.0.0.1", "localhost"))

PositiveInt = Annotated[int, Meta(ge=1)]


class LimitsChange(Struct, forbid_unknown_fields=True):
    """What isn't named stays as it is; null lifts a limit."""

    rpm: PositiveInt | UnsetType | None = UNSET
    tpm: PositiveInt | UnsetType | None = UNSET


class CreditsChange(Struct, forbid_unknown_fields=True):
    """The new balance of every key; null: no balance is kept."""

    credits: Annotated[int, Meta(ge=0)] | None


def control_application(provider: Provider) -> Starlette:
    """The application for all paths but `/v1/messages`; its errors have the endpoint's shape."""

    def health(request: Request) -> Response:
        _refuse_foreign(request)
        return _json({"status": "ok"})

    def bill(request: Request) -> Response:
        _refuse_foreign(request)
        return _json(provider.bill.statement(with_requests=request.query_params.get("requests") != "0"))

    async def limits(request: Request) -> Response:
        change = _decoded(await _body(request), LimitsChange)
        old = provider.limits
        provider.limits = Limits(
            rpm=old.rpm if change.rpm is UNSET else change.rpm,
            tpm=old.tpm if change.tpm is UNSET else change.tpm,
        )
        return _json({"rpm": provider.limits.rpm, "tpm": provider.limits.tpm})

    async def fault_shares(request: Request) -> Response:
        shares = _decoded(await _body(request), dict[str, Any])
        try:
            provider.fault_draw.shares = checked_shares(shares)
        except SettingsError as error:
            raise HTTPException(400, str(error)) from None
        return _json(provider.fault_draw.shares)

    async def balances(request: Request) -> Response:
        change = _decoded(await _body(request), CreditsChange)
        provider.set_credits(change.credits)
        return _json({"credits": change.credits})

    return Starlette(
        routes=[
            Route("/sandbox/health", health, methods=["GET"]),
            Route("/sandbox/bill", bill, methods=["GET"]),
            Route("/sandbox/limits", limits, methods=["POST"]),
            Route("/sandbox/faults", fault_shares, methods=["POST"]),
            Route("/sandbox/credits", balances, methods=["POST"]),
        ],
        exception_handlers={HTTPException: _error_response},
    )


def _refuse_foreign(request: Request) -> None:
    """A web page that a browser shows can reach loopback, by a foreign Origin or a name of its own."""
    host, origin = request.headers.get("host"), request.headers.get("origin")
    for name, url in (("Host", host and f"//{host}"), ("Origin", origin)):
        if url and _host_of(url) not in _OWN_HOSTS:
            raise HTTPException(403, f"the sandbox's control paths take no foreign {name}")


def _host_of(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


async def _body(request: Request) -> bytes:
    _refuse_foreign(request)
    body, size = bytearray(), 0
    async for part in request.stream():  # to its end: a client that still sends doesn't listen
        size += len(part)
        if size <= MOST_BODY_BYTES:
            body += part
    if size > MOST_BODY_BYTES:
        raise HTTPException(413, f"the body has more than {MOST_BODY_BYTES:,} bytes")
    return bytes(body)


def method_not_allowed(allowed: str) -> Response:
    """The 405 that names the methods which the path knows."""
    body = error_body("invalid_request_error", "method_not_allowed", f"this path takes {allowed}")
    return Response(body, 405, {"Allow": allowed}, "application/json")


def _json(value: object) -> Response:
    return Response(encode(value), media_type="application/json")


def _decoded(body: bytes, expected: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=expected)
    except msgspec.DecodeError as error:
        raise HTTPException(400, str(error)) from None


def _error_response(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    if error.status_code == 405:
        return method_not_allowed((error.headers or {})["Allow"])
    if error.status_code == 404:
        message = f"nothing is at {request.url.path}; the endpoint is POST /v1/messages"
        body = error_body("not_found_error", "not_found", message)
    else:
        body = error_body("invalid_request_error", "invalid_parameter", error.detail)
    return Response(body, error.status_code, media_type="application/json")
