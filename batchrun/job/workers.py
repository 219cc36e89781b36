"""The table [workers] of a job file."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from batchrun.errors import JobError


class Workers(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Processes that send the run's requests, on this machine or on others; see docs/cluster.md."""

    kind: Annotated[
        Literal["local", "listen", "ray"],
        Meta(
            description="`local`: the run starts processes on this machine. `listen`: it waits for workers"
            " that are started by hand. `ray`: a Ray cluster starts them."
        ),
    ]
    count: Annotated[
        Annotated[int, Meta(ge=1, le=1_000)] | None,
        Meta(
            description="Worker processes that the run starts. Left out: 2; with `ray`, one for each core of"
            " the cluster."
        ),
    ] = None
    address: Annotated[
        str | None,
        Meta(
            description="Where the run listens, as `HOST:PORT`; `:PORT` for this machine's own address. Left"
            " out: any free port. Without `tls` it must not be reachable from the internet. With `ray`, the"
            " cluster's address, by default `auto`."
        ),
    ] = None
    tls: Annotated[
        bool,
        Meta(
            description="Encrypt the connections, by a certificate made for the run. Needs the extra `tls`."
        ),
    ] = False


DEFAULT_COUNT = 2
NO_CLIENT = (
    "a run can't be a client of Ray (ray://), since workers connect back to it.\n"
    "Next: start it on a node of the cluster, for example by `ray job submit`."
)


def split_option(option: str) -> dict[str, object]:
    """Returns the table that `--workers` stands for: ray[:N], local:N or listen[:PORT]. Raises ValueError."""
    if option.startswith("ray://"):
        raise ValueError(NO_CLIENT)
    kind, colon, value = option.partition(":")
    if colon and not (value.isascii() and value.isdigit()):
        raise ValueError(f"expected a whole number behind the colon, got {value!r}")
    if kind in ("local", "ray"):
        return {"kind": kind, **({"count": int(value)} if colon else {})}
    if kind == "listen":
        return {"kind": kind, **({"address": f":{value}"} if colon else {})}
    raise ValueError(f"expected ray[:N], local:N or listen[:PORT], got {option!r}")


def check_workers(workers: Workers) -> None:
    """Raises JobError for a key that doesn't go with the kind, or an address that is none."""
    if workers.kind == "local" and (workers.address is not None or workers.tls):
        raise JobError(
            '[workers]: address and tls go with kind = "listen"; workers on this machine need neither'
        )
    if workers.kind == "listen" and workers.count is not None:
        raise JobError(
            '[workers] count: goes with kind = "local" and "ray"; with "listen" start as many as you want'
        )
    if workers.kind == "ray" and (workers.address or "").startswith("ray://"):
        raise JobError(f"[workers] address: {NO_CLIENT}")
    if workers.kind == "listen":
        try:
            split_address(workers.address or ":0")
        except ValueError as error:
            raise JobError(f"[workers] address: {error}") from None


def split_address(text: str) -> tuple[str, int]:
    """Returns host and port of HOST:PORT; IPv6 addresses stand in brackets. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not port.isascii() or not port.isdigit() or "/" in host:
        raise ValueError(f"expected HOST:PORT, got {text!r}")
    if int(port) > 65_535:
        raise ValueError(f"expected a port of 65535 at most, got {port}")
    return host, int(port)
