"""Who may connect: the run's token, private addresses, and TLS with a certificate made for the run."""

import hmac
import ipaddress
import re
import secrets
import socket
import ssl
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

from batchrun.errors import UsageError

_LONGEST_TOKEN = 1_024
_TOKEN_FORM = re.compile(r"[A-Za-z0-9_-]{43}(\.[0-9a-f]{64})?")
"""The secret, and with TLS the fingerprint, as `new_token` makes them."""
_CERTIFICATE_DAYS = 366


@dataclass(frozen=True, slots=True)
class Token:
    """The secret of one run. `fingerprint`: with TLS, the SHA-256, in hex, of its certificate."""

    secret: str
    fingerprint: str | None = None

    def __repr__(self) -> str:
        return "Token(***)"

    def text(self) -> str:
        return self.secret if self.fingerprint is None else f"{self.secret}.{self.fingerprint}"

    def matches(self, secret: str) -> bool:
        """Compares in a time that doesn't depend on where the two differ."""
        return hmac.compare_digest(self.secret.encode(), secret.encode(errors="replace"))


def new_token(fingerprint: str | None = None) -> Token:
    return Token(secrets.token_urlsafe(32), fingerprint)


def read_token(text: str) -> Token:
    secret, _, fingerprint = text.strip().partition(".")
    return Token(secret, fingerprint or None)


def read_token_file(path: Path) -> Token:
    """Raises UsageError if the file can't be read or holds no token."""
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST_TOKEN + 1)
    except OSError as error:
        raise UsageError(f"--token-file: can't read {path}: {error.strerror}") from None
    text = content.decode("ascii", "replace").strip()
    if not _TOKEN_FORM.fullmatch(text) or len(content) > _LONGEST_TOKEN:
        raise UsageError(
            f"--token-file: {path} holds no token. Next: name the file that the run has written."
        )
    return read_token(text)


def shown_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_own_network(host: str) -> bool:
    """Returns whether an IP address is this machine's or of a network that the internet doesn't reach."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return not address.is_global and not address.is_unspecified


def own_address() -> str:
    """Returns the address by which others reach this machine, as far as its routes tell; else loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address of documentation; nothing is sent
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def listening_socket(host: str, port: int, *, tls: bool) -> socket.socket:
    """Returns a bound socket. Raises UsageError if that fails, or if plain TCP must not be used there."""
    try:
        family, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )[0]
        if not tls and not is_own_network(str(address[0])):
            raise UsageError(
                f"[workers] address: {host} can be reached from the internet, and plain TCP would show the"
                " key there.\nNext: name a private address of this machine, or add --workers-tls."
            )
        return socket.create_server(address, family=family)
    except OSError as error:
        raise UsageError(
            f"[workers] address: can't listen at {shown_address(host, port)}: {error.strerror or error}.\n"
            "Next: name an address of this machine and a port that is free."
        ) from None


def client_tls() -> ssl.SSLContext:
    """The certificate is known by its fingerprint, and not by who has signed it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def fingerprint_of(certificate: bytes) -> str:
    return sha256(certificate).hexdigest()


def new_certificate() -> tuple[ssl.SSLContext, str]:
    """Makes a certificate and a key for one run; returns a server's context, and the fingerprint.

    Raises UsageError where the extra that makes certificates isn't installed.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError:
        raise UsageError(
            "--workers-tls makes a certificate. It needs: pip install 'batchrun-llm[tls]'"
        ) from None
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "batchrun")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=_CERTIFICATE_DAYS))
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    with tempfile.NamedTemporaryFile() as file:  # for its owner alone; ssl reads files only
        file.write(pem)
        file.flush()
        context.load_cert_chain(file.name)
    return context, fingerprint_of(certificate.public_bytes(serialization.Encoding.DER))
