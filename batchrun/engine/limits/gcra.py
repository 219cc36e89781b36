"""The generic cell rate algorithm, in its virtual-scheduling form (ITU-T I.371). Reads no clock."""

from dataclasses import dataclass


@dataclass(slots=True)
class Gcra:
    """Spaces units out in time. `interval` is seconds per unit, `tolerance` seconds that may be caught up.

    `arrival` is the theoretical arrival time of the next unit. Any stretch of s seconds lets at most
    (s + tolerance) / interval units go, plus the last request's remaining units.
    """

    interval: float
    tolerance: float
    arrival: float = float("-inf")

    def delay(self, now: float) -> float:
        """Returns the seconds until the next request may go; 0 or less: now."""
        return self.arrival - self.tolerance - now

    def admit(self, now: float, units: float) -> None:
        self.arrival = max(self.arrival, now) + units * self.interval

    def at_interval(self, interval: float, now: float) -> "Gcra":
        """Returns the same at another interval: units sent ahead of their time remain so."""
        ahead = max(0.0, self.arrival - now) / self.interval if self.interval else 0.0
        return Gcra(interval, self.tolerance, now + ahead * interval)

    def correct(self, units: float) -> None:
        """Counts units that an admitted request used beyond its estimate; returns them if negative."""
        self.arrival += units * self.interval
