"""The table [endpoint] of a job file."""

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from batchrun.job.presets import PROVIDER_URL


class Endpoint(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The server, and how batchrun connects to it."""

    preset: Annotated[
        Literal["abliteration", "anthropic", "local", "sandbox"],
        Meta(
            description="Fills in a known server's keys; every key given beside it wins. `anthropic`: "
            "`https://api.anthropic.com`, the key from `ANTHROPIC_API_KEY` in `x-api-key`, the header "
            "`anthropic-version`. `local`: a server on this machine at `http://127.0.0.1:8080`, no key, "
            "tokens cost nothing. `sandbox`: a `batchrun sandbox` at `http://127.0.0.1:8080`, the provider's "
            "prices, any key: that in `SANDBOX_KEY` if it is set."
        ),
    ] = "abliteration"
    base_url: Annotated[
        str,
        Meta(
            description="http(s) URL; `/v1/messages` is added to it. A key goes over https or loopback only."
        ),
    ] = PROVIDER_URL
    api_key_env: Annotated[
        str, Meta(description="Name of the environment variable that holds the key. Never the key itself.")
    ] = "ABLIT_KEY"
    api_key_file: Annotated[
        str | None,
        Meta(description="File that holds the key, read instead of the variable. Relative to the job file."),
    ] = None
    auth: Annotated[
        Literal["bearer", "x-api-key", "none"],
        Meta(
            description="How the key is sent: `Authorization: Bearer`, the `x-api-key` header, or not at all."
        ),
    ] = "bearer"
    headers: Annotated[
        dict[str, str],
        Meta(description='Further request headers, such as `anthropic-version = "2023-06-01"`.'),
    ] = field(default_factory=dict)
    timeout_seconds: Annotated[
        float, Meta(gt=0, le=86_400, description="The longest that one request may take, as a whole.")
    ] = 120.0
    idle_timeout_seconds: Annotated[
        float, Meta(gt=0, le=86_400, description="The longest silence between two events of a stream.")
    ] = 60.0
    max_answer_bytes: Annotated[
        int,
        Meta(
            ge=1024,
            le=2**30,
            description="A longer response, measured after decompression, counts as broken.",
        ),
    ] = 16 * 2**20

    def __repr__(self) -> str:
        return f"Endpoint(base_url={self.base_url!r}, auth={self.auth!r}, headers={sorted(self.headers)})"
