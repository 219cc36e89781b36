"""All that can be set about a sandbox."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from batchrun.sandbox.errors import SettingsError
from batchrun.sandbox.faults import checked_shares

KNOWN_MODELS = ("abliterated-model", "abliterated-model-large", "abliterated-model-large-v2")

CostFields = Literal["present", "null", "absent"]


@dataclass(frozen=True, slots=True)
class Settings:
    """How the sandbox behaves. Times are in seconds; None means no limit. Raises SettingsError.

    `keys`: the API keys that are accepted; empty: any. `models`: accepted besides the provider's own.
    `credits`: each key's balance at the start; None: no balance is kept and `remaining_credits` is null.
    `rpm`, `tpm`: requests and tokens that a key may use in a minute. `limit_window`: the seconds over which
    they are counted; the window holds its share of a minute's. `limit_headers`: whether answers tell
    about the limits. `retry_after_date`: Retry-After as an HTTP date instead of seconds.
    `concurrency`: requests that the server handles at a time, of all keys; one more gets a 429.
    `cost_fields`: whether answers name credits and cost, name them as null, or leave them out.
    `replies`: a TOML file of scripted answers. `answers`: without a match there, an answer is one of these;
    empty: drawn words. `default_max_tokens`: where a request names none.
    `thinking`: tokens that the model thinks before each answer, which count as output.
    `latency`: median time before an answer begins; `latency_sigma`: sigma of its log-normal distribution.
    `first_token`: further time until the first token; `tokens_per_second`: pace from there, 0 = at once.
    `faults`: share of the arriving requests by fault kind; `slow_seconds`: delay of the fault slow-headers;
    `retry_after`: seconds that the fault 429-random states, 0: none.
    `seed`: of latencies and faults. `bill_requests`: how many single requests the bill remembers.
    `real`: the model SmolLM2-135M-Instruct answers, on this many `threads`, whatever model a request names.
    """

    keys: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    credits: int | None = None
    rpm: int | None = None
    tpm: int | None = None
    limit_window: float = 60.0
    concurrency: int | None = None
    limit_headers: bool = True
    retry_after_date: bool = False
    cost_fields: CostFields = "present"
    replies: str | Path | None = None
    answers: tuple[str, ...] = ()
    default_max_tokens: int = 4096
    thinking: int = 0
    latency: float = 0.0
    latency_sigma: float = 0.0
    first_token: float = 0.0
    tokens_per_second: float = 0.0
    faults: Mapping[str, float] = field(default_factory=dict)
    slow_seconds: float = 5.0
    retry_after: float = 1.0
    seed: int = 0
    bill_requests: int = 1_000_000
    max_body_bytes: int = 32 * 1024 * 1024
    real: bool = False
    threads: int = 1

    def __post_init__(self) -> None:
        for name in ("rpm", "tpm", "concurrency", "default_max_tokens", "max_body_bytes", "threads"):
            _require_at_least(name, getattr(self, name), 1)
        for name in ("credits", "bill_requests", "thinking", "latency", "latency_sigma"):
            _require_at_least(name, getattr(self, name), 0)
        for name in ("first_token", "tokens_per_second", "slow_seconds", "retry_after"):
            _require_at_least(name, getattr(self, name), 0)
        if not 0 < self.limit_window < float("inf"):
            raise SettingsError(f"limit_window must be above 0, not {self.limit_window}")
        if self.cost_fields not in get_args(CostFields):
            raise SettingsError(f"cost_fields must be present, null or absent, not {self.cost_fields!r}")
        if "" in self.keys or "" in self.models:
            raise SettingsError("keys and models must not be empty strings")
        if self.real and self.replies is not None:
            raise SettingsError("replies are for the scripted sandbox: a real model makes its own answers")
        checked_shares(self.faults)


def _require_at_least(name: str, value: float | None, least: int) -> None:
    # Written so that NaN fails too.
    if value is not None and not least <= value < float("inf"):
        raise SettingsError(f"{name} must be at least {least}, not {value}")
