"""The virtual clock: monotonic seconds, and a wall clock that may jump."""

from batchrun.clock import MILLISECONDS_PER_DAY

FIRST_DAY = 20_000
HOUR_MS = 3_600_000
SECONDS_BEFORE_MIDNIGHT = 20


class Clock:
    """`now` is in seconds and never goes back. `days` are the UTC days that the wall clock has shown."""

    def __init__(self, near_midnight: bool) -> None:
        into_day = MILLISECONDS_PER_DAY // 2
        if near_midnight:
            into_day = MILLISECONDS_PER_DAY - SECONDS_BEFORE_MIDNIGHT * 1000
        self.now = 0.0
        self.days: set[int] = set()
        self._offset_ms = FIRST_DAY * MILLISECONDS_PER_DAY + into_day

    def wall(self) -> int:
        """Returns milliseconds since 1970 UTC, as `batchrun.clock.milliseconds` does."""
        shown = self._offset_ms + int(self.now * 1000)
        self.days.add(shown // MILLISECONDS_PER_DAY)
        return shown

    def jump(self, hours: int) -> None:
        self._offset_ms += hours * HOUR_MS
