"""jesse's research backtest, on its quick path, filling at the close."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from jesse import indicators, research
from jesse.strategies import Strategy

from tests.benchmarks.peers.engines.serving import CAPITAL, FAST, FEE_RATE, SLOW, Outcome, Tape, serve

# On spot it takes the fee of a purchase out of the coins, and would sell less than a unit.
EXCHANGE, SYMBOL = "Binance Perpetual Futures", "BTC-USDT"
CONFIG = {
    "starting_balance": CAPITAL,
    "fee": FEE_RATE,
    "type": "futures",
    "futures_leverage": 1,
    "futures_leverage_mode": "cross",
    "exchange": EXCHANGE,
    "warm_up_candles": 0,
}


class Cross(Strategy):
    fills: ClassVar[list[float]] = []

    def _gap(self) -> float:
        candles = self.candles[-SLOW:]
        if len(candles) < SLOW:
            return 0.0
        return float(indicators.sma(candles, FAST) - indicators.sma(candles, SLOW))

    def should_long(self) -> bool:
        return self._gap() > 0

    def should_short(self) -> bool:
        return False

    def should_cancel_entry(self) -> bool:
        return True

    def go_long(self) -> None:
        self.buy = 1, self.price

    def go_short(self) -> None: ...

    def update_position(self) -> None:
        if self._gap() < 0:
            self.liquidate()

    def before_terminate(self) -> None:
        """It sells at the end what is left."""
        self.ended = True

    def on_open_position(self, order: Any) -> None:
        self.ended = False
        self.fills.append(-order.price * (1 + FEE_RATE))

    def on_close_position(self, order: Any, closed_trade: Any) -> None:
        if not self.ended:
            self.fills.append(order.price * (1 - FEE_RATE))


def event(tape: Tape) -> Callable[[], Outcome]:
    prices = tape.prices
    candles = np.column_stack((tape.timestamp, prices, prices, prices, prices, np.ones(len(tape))))
    routes = [{"exchange": EXCHANGE, "strategy": Cross, "symbol": SYMBOL, "timeframe": "1m"}]
    data = {f"{EXCHANGE}-{SYMBOL}": {"exchange": EXCHANGE, "symbol": SYMBOL, "candles": candles}}

    def run() -> Outcome:
        Cross.fills.clear()
        research.backtest(CONFIG, routes, [], data, fast_mode=True)
        fills = Cross.fills
        left = -fills[-1] / (1 + FEE_RATE) if len(fills) % 2 else 0.0
        return Outcome([len(fills)], [sum(fills) + left])

    return run


if __name__ == "__main__":
    serve(importlib.metadata.version("jesse"), {"event": event})
