"""Sums over the rows that have ended, from which the use of the rows to send is estimated by their length."""

from dataclasses import dataclass, field
from math import sqrt

from batchrun.runs.plan.sample import RowSpend

SURE_SLOPE = 0.1
"""The largest standard error of the tokens per byte, as a share, with which a line is preferred."""
FIELDS = ("input_tokens", "output_tokens", "nano_usd", "requests")


@dataclass
class EndedRows:
    """`size` is the sum of the lengths of the rows' first requests in bytes, `is_priced` whether the cost of
    each row is known."""

    rows: int = 0
    size: int = 0
    is_priced: bool = True
    _size_squares: float = 0.0
    _sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(FIELDS, 0.0))
    _squares: dict[str, float] = field(default_factory=lambda: dict.fromkeys(FIELDS, 0.0))
    _products: dict[str, float] = field(default_factory=lambda: dict.fromkeys(FIELDS, 0.0))

    def add(self, size: int, spend: RowSpend) -> None:
        self.rows += 1
        self.size += size
        self.is_priced = self.is_priced and spend.nano_usd is not None
        self._size_squares += size * size
        for name in FIELDS:
            value = getattr(spend, name) or 0
            self._sums[name] += value
            self._squares[name] += value * value
            self._products[name] += value * size

    @property
    def tokens_per_byte(self) -> float:
        """Returns the input tokens that a further byte takes: by the line of least squares, since every
        request has tokens that don't depend on its length; by all tokens where the lengths differ too little
        to tell the line."""
        name = "input_tokens"
        if not self.size:
            return 0.0
        ratio = self._sums[name] / self.size
        if self._spread <= 0 or self.rows < 3:
            return ratio
        slope = (self._products[name] - self._sums[name] * self.size / self.rows) / self._spread
        is_known = sqrt(self._variance(name, slope) / self._spread) < SURE_SLOPE * ratio
        return slope if is_known else ratio

    def rest(self, name: str, per_byte: float, rows: int, size: int) -> tuple[float, float]:
        """Returns the sum of a field over `rows` other rows with `size` bytes, and its standard error.

        A row is expected to take `per_byte` for each byte, and besides what these rows took so on average.
        The error is that of a regression's prediction: it grows with the distance from these rows' lengths.
        """
        mean = (self._sums[name] - per_byte * self.size) / self.rows
        shares = 1 / self.rows + 1 / max(rows, 1)
        if per_byte and self._spread > 0 and rows:
            shares += (size / rows - self.size / self.rows) ** 2 / self._spread
        return per_byte * size + rows * mean, rows * sqrt(self._variance(name, per_byte) * shares)

    @property
    def _spread(self) -> float:
        return self._size_squares - self.size**2 / self.rows

    def _variance(self, name: str, per_byte: float) -> float:
        """Returns the variance of what a row takes beyond `per_byte` for each byte."""
        mean = (self._sums[name] - per_byte * self.size) / self.rows
        squares = self._squares[name] - 2 * per_byte * self._products[name] + per_byte**2 * self._size_squares
        return max(squares - self.rows * mean**2, 0.0) / (self.rows - 1)
