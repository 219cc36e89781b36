"""Token prices: the job's own, and its server's known prices where it gives none.

Caching multiplies the price of input. Anthropic documents 1.25 for a write that is kept for 5 minutes, 2 for
one of an hour, and 0.1 for a read (https://docs.anthropic.com/en/docs/build-with-claude/prompt-caching).
"""

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal

from batchrun.job.budget import nano_usd
from batchrun.job.presets import PROVIDER_USD_PER_MILLION, known_usd_per_million
from batchrun.job.spec import Job

_WRITE = Decimal("1.25")
_WRITE_1H = Decimal(2)
_READ = Decimal("0.1")


@dataclass(frozen=True, slots=True)
class Prices:
    """Nano-USD (10^-9 USD) for a million tokens, as whole numbers."""

    input_nano_usd_per_million: int
    output_nano_usd_per_million: int


@dataclass(frozen=True, slots=True)
class CachePrices:
    """Nano-USD for a million input tokens: read from a cache, written to one for 5 minutes or for an hour.

    `unmarked` is the highest price of an input token in a request without marks for the cache.
    """

    read: int
    write: int
    write_1h: int
    unmarked: int


def prices(job: Job, sandbox: bool = False) -> Prices | None:
    """Returns the job's prices; where it names none, its server's known prices.

    None where the cost is unknown; a loaded job has no cap in USD then.
    """
    server = job.endpoint
    known = known_usd_per_million(server.preset, server.base_url)
    default = PROVIDER_USD_PER_MILLION if sandbox else known
    given = job.pricing
    input_usd = default if given.input_usd_per_million is None else given.input_usd_per_million
    output_usd = default if given.output_usd_per_million is None else given.output_usd_per_million
    if input_usd is None or output_usd is None:
        return None
    return Prices(nano_usd(input_usd), nano_usd(output_usd))


def cache_prices(job: Job, sandbox: bool = False) -> CachePrices | None:
    """Returns the job's prices of cached tokens; None where the price of input is unknown.

    Prices that the job leaves out are upper bounds. Writes: the multiples above, the highest of any known
    server. Reads: the price of input, unless the server is known to charge a tenth. A server that caches
    unmarked requests writes at the price of input, unless the job says otherwise.
    """
    known = prices(job, sandbox)
    if known is None:
        return None
    given, of_input = job.pricing, known.input_nano_usd_per_million
    stated = [
        nano_usd(usd)
        for usd in (given.cache_write_usd_per_million, given.cache_write_1h_usd_per_million)
        if usd is not None
    ]
    read = _READ if sandbox or _has_cheap_reads(job) else Decimal(1)
    write = _given_or(given.cache_write_usd_per_million, of_input * _WRITE)
    write_1h = _given_or(given.cache_write_1h_usd_per_million, max(of_input * _WRITE_1H, Decimal(write)))
    return CachePrices(
        _given_or(given.cache_read_usd_per_million, of_input * read),
        write,
        write_1h,
        max(of_input, *stated) if stated else of_input,
    )


def _has_cheap_reads(job: Job) -> bool:
    server = job.endpoint
    known = known_usd_per_million(server.preset, server.base_url)
    return server.preset == "anthropic" or known == PROVIDER_USD_PER_MILLION


def _given_or(usd: Decimal | None, otherwise: Decimal) -> int:
    return int(otherwise.to_integral_value(ROUND_CEILING)) if usd is None else nano_usd(usd)
