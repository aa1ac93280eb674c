"""A fake exchange, the client that talks to it, and its clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.exchange.handle import FakeExchange, Kind

KINDS: tuple[Kind, ...] = ("binance", "kraken")
BTC, ETH, COIN = SYMBOLS = ["BTC/USDT", "ETH/USDT", "COIN003/USDT"]
NOW_MS = 1_800_000_123_456
MINUTE_MS = 60_000


class Hand:
    """An exchange's clock that is set by hand."""

    ms = NOW_MS

    def __call__(self) -> int:
        return self.ms


@dataclass(frozen=True)
class Pair:
    client: Any
    exchange: FakeExchange
    hand: Hand
