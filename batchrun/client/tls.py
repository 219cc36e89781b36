"""TLS by OpenSSL over memory buffers, without I/O; and the choice of trusted certificates.

It costs half as much as the event loop's own TLS, since nothing is buffered or scheduled twice.
"""

import os
import ssl
from contextlib import suppress
from pathlib import Path

from batchrun.errors import JobError

_MOST_AT_A_TIME = 262_144
_CA_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


class PlainServerError(OSError):
    """The server answered a TLS handshake in plain HTTP."""


class TlsLayer:
    """The client's side of one TLS connection: plain bytes in, encrypted bytes out, and back."""

    def __init__(self, context: ssl.SSLContext, host: str) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self.at_end = False
        """Whether the server has announced the end of the connection (close_notify)."""

    def pending(self) -> bytes:
        """Returns the bytes to send to the server now."""
        return self._outgoing.read() if self._outgoing.pending else b""

    def shake_hands(self, data: bytes = b"") -> bool:
        """Takes bytes of the handshake. Returns whether it is done. Raises ssl.SSLError."""
        if data:
            self._incoming.write(data)
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def decrypt(self, data: bytes) -> bytes:
        """Returns the plain bytes in `data`, sent by the server. Raises ssl.SSLError."""
        self._incoming.write(data)
        pieces = []
        try:
            while piece := self._tls.read(_MOST_AT_A_TIME):
                pieces.append(piece)
            self.at_end = True
        except ssl.SSLWantReadError:
            pass
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def encrypt(self, data: bytes) -> bytes:
        """Returns the bytes to send for `data`. Raises ssl.SSLError."""
        sent = self._tls.write(data)
        while sent < len(data):  # a record holds 16 KiB
            sent += self._tls.write(memoryview(data)[sent:])
        return self._outgoing.read()

    def farewell(self) -> bytes:
        """Returns the bytes that close the connection in order."""
        with suppress(ssl.SSLError):
            self._tls.unwrap()
        return self.pending()


def client_context() -> ssl.SSLContext:
    """Returns a context that verifies servers by the CAs in SSL_CERT_FILE and SSL_CERT_DIR, or the system's.

    Falls back to certifi's where the system has none. Raises JobError where a variable names no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["http/1.1"])
    named = {name: os.environ[name] for name in _CA_VARIABLES if name in os.environ}
    if named:
        _load_named(context, named)
    elif _system_has_certificates():
        context.load_default_certs()
    else:
        import certifi

        context.load_verify_locations(certifi.where())
    return context


def _load_named(context: ssl.SSLContext, named: dict[str, str]) -> None:
    file, folder = named.get("SSL_CERT_FILE"), named.get("SSL_CERT_DIR")
    try:
        usable_folder = folder if folder and Path(folder).is_dir() and any(Path(folder).iterdir()) else None
        if file is not None or usable_folder is None:
            context.load_verify_locations(file or os.devnull)
        if usable_folder is not None:
            context.load_verify_locations(capath=usable_folder)
    except (OSError, ValueError):  # includes ssl.SSLError
        names = " and ".join(f"{name}={value!r}" for name, value in named.items())
        raise JobError(
            f"no CA certificate found in {names}, so that no server can be trusted.\n"
            "Name a PEM file with CA certificates, or unset the variable: then the system's are used."
        ) from None


def _system_has_certificates() -> bool:
    cafile, capath, *_ = ssl.get_default_verify_paths()
    return bool(cafile) or bool(capath and any(Path(capath).iterdir()))
