"""The lengths of bars, and where each bar begins: aligned to the epoch, in UTC."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bot.domain import IntArray

TICK = "tick"
MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Timeframe:
    """``ms`` is a bar's length, for a month its mean; some bar begins at ``origin_ms``."""

    name: str
    ms: int
    origin_ms: int = 0

    def floor(self, times: IntArray) -> IntArray:
        """The open of the bar that each time lies in."""
        if self.name == "1M":
            return times.astype("datetime64[ms]").astype("datetime64[M]").astype("datetime64[ms]").astype(np.int64)
        return (times - self.origin_ms) // self.ms * self.ms + self.origin_ms

    def ends(self, opens: IntArray) -> IntArray:
        """Where the bars that open at these times end: where the next ones open."""
        if self.name == "1M":
            months = opens.astype("datetime64[ms]").astype("datetime64[M]") + 1
            return months.astype("datetime64[ms]").astype(np.int64)
        return opens + self.ms

    def makes(self, longer: Timeframe) -> bool:
        """Whether whole bars of this length make one of another. Weeks and months are made of days."""
        return longer == self or min(longer.ms, DAY_MS) % self.ms == 0

    def open_of(self, time: int) -> int:
        """The open of the bar that a time lies in."""
        return int(self.floor(np.array([time], np.int64))[0])

    def back(self, open_ms: int, count: int) -> int:
        """The open of the bar that is ``count`` bars before another; a count below 0 leads forward."""
        if self.name == "1M":
            month = np.datetime64(open_ms, "ms").astype("datetime64[M]") - count
            return int(month.astype("datetime64[ms]").astype(np.int64))
        return open_ms - count * self.ms


# A week begins on Monday, as it does at exchanges; 1970-01-05 was one.
WEEK = Timeframe("1w", 7 * DAY_MS, 4 * DAY_MS)
# A twelfth of 365.2425 days. Only what a month is compared with needs its length.
MONTH = Timeframe("1M", 2_629_746_000)

_MINUTES = {name: Timeframe(name, int(name[:-1]) * MINUTE_MS) for name in ("1m", "3m", "5m", "15m", "30m")}
_HOURS = {name: Timeframe(name, int(name[:-1]) * HOUR_MS) for name in ("1h", "2h", "4h", "6h", "8h", "12h")}
_DAYS = {name: Timeframe(name, int(name[:-1]) * DAY_MS) for name in ("1d", "3d")}
TIMEFRAMES: dict[str, Timeframe] = {**_MINUTES, **_HOURS, **_DAYS, "1w": WEEK, "1M": MONTH}
NAMES = (TICK, *TIMEFRAMES)


def timeframe_of(name: str) -> Timeframe | None:
    """None for "tick"; raises KeyError for a name that is none of ``NAMES``."""
    return None if name == TICK else TIMEFRAMES[name]
