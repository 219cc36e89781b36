"""The effect of a server's prompt cache on the rows of a job: tokens, and the amount saved."""

from typing import Any

from batchrun.amounts import usd
from batchrun.engine.pricing import PriceList
from batchrun.engine.starting_balance import starting_price_list
from batchrun.exchange import NO_CACHE, CacheLifetime, CacheUsage
from batchrun.journal import Totals
from batchrun.rows.dataset import Dataset, endpoint_identity
from batchrun.rows.history import RowHistory


class CacheTally:
    """Sums over rows, each by the most expensive lifetime that its request marks."""

    def __init__(self) -> None:
        self._usage: dict[CacheLifetime | None, CacheUsage] = {}

    def add(self, cached: CacheLifetime | None, record: RowHistory | None) -> None:
        """Adds a row whose request marks this lifetime, once for rows that share a response."""
        if record is not None and record.history is not None and any(record.history.cache):
            known = self._usage.get(cached, NO_CACHE)
            self._usage[cached] = known.plus(record.history.cache)

    def saved(self, price_list: PriceList) -> int | None:
        """Returns nano-USD by these prices, below 0 if writes cost more than reads saved."""
        saved = 0
        for cached, usage in self._usage.items():
            tokens = usage.read + usage.write
            plain, actual = price_list.price(tokens, 0), price_list.price(tokens, 0, usage, cached)
            if plain is None or actual is None:
                return None
            saved += plain - actual
        return saved

    def as_dict(self, price_list: PriceList) -> dict[str, Any] | None:
        """Returns JSON-able values; None if no response has mentioned a cache."""
        if not self._usage:
            return None
        saved = self.saved(price_list)
        return {
            "read_tokens": sum(usage.read for usage in self._usage.values()),
            "write_tokens": sum(usage.write for usage in self._usage.values()),
            "saved_usd": None if saved is None else usd(saved),
        }


def prices_of(dataset: Dataset) -> PriceList:
    """Returns the prices of a job's rows, without corrections learned from responses."""
    sandbox = dataset.endpoint == endpoint_identity(dataset.job, sandbox=True)
    return starting_price_list(dataset.job, sandbox, Totals())
