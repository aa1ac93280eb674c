"""History from an exchange's candles, page by page."""

from __future__ import annotations

from typing import Any, cast

import structlog

from bot.clock import VirtualClock
from bot.exchange.client import Client
from bot.feeds.ohlcv import CandleHistory
from bot.ports import Window
from bot.timeframes import HOUR_MS, TIMEFRAMES

BEGAN_MS = 1_735_689_600_000
BTC = "BTC/USDT"


class Narrow:
    """A client of an exchange that looks at one answer's length of time, and was away for some days."""

    timeframes = ("1h",)

    def __init__(self, candles: int) -> None:
        self.candles, self.asked = candles, 0

    def candles_per_request(self, symbol: str) -> int:
        return self.candles

    async def call(self, method: str, symbol: str, timeframe: str, since: int, limit: int) -> list[list[Any]]:
        self.asked += 1
        hours = range(since, since + min(limit, self.candles) * HOUR_MS, HOUR_MS)
        away = range(BEGAN_MS + 5 * HOUR_MS, BEGAN_MS + 95 * HOUR_MS)
        return [[hour, 1.0, 3.0, 0.5, 2.0, 9.0] for hour in hours if hour not in away]


async def test_what_follows_a_long_gap_is_there() -> None:
    client = Narrow(20)
    history = CandleHistory(cast(Client, client), [BTC], VirtualClock(0), structlog.get_logger())
    window = Window(bars=((TIMEFRAMES["1h"], 200),))
    block = await history.before(BEGAN_MS + 200 * HOUR_MS, window, [BTC])
    assert block is not None
    hours = {time // HOUR_MS - BEGAN_MS // HOUR_MS for time in block.timestamp.tolist()}
    assert hours == {*range(5), *range(95, 200)}
    assert client.asked <= 12
