"""nautilus_trader, filling at the close of the bar that an order was sent on."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import nautilus_trader
import pandas as pd
from nautilus_trader.backtest.engine import BacktestEngine, BacktestEngineConfig
from nautilus_trader.config import LoggingConfig, StrategyConfig
from nautilus_trader.indicators import SimpleMovingAverage
from nautilus_trader.model.currencies import BTC, USDT
from nautilus_trader.model.data import BarType
from nautilus_trader.model.enums import AccountType, OmsType, OrderSide
from nautilus_trader.model.identifiers import InstrumentId, Symbol, TraderId, Venue
from nautilus_trader.model.instruments import CurrencyPair
from nautilus_trader.model.objects import Money, Price, Quantity
from nautilus_trader.persistence.wranglers import BarDataWrangler
from nautilus_trader.trading.strategy import Strategy

from tests.benchmarks.peers.engines.serving import CAPITAL, FAST, FEE_RATE, SLOW, Outcome, Tape, serve

VENUE = Venue("SIM")
BARS = BarType.from_str("BTCUSDT.SIM-1-MINUTE-LAST-EXTERNAL")
UNIT = Quantity(1, 0)
PAIR = CurrencyPair(
    instrument_id=InstrumentId(Symbol("BTCUSDT"), VENUE),
    raw_symbol=Symbol("BTCUSDT"),
    base_currency=BTC,
    quote_currency=USDT,
    price_precision=2,
    size_precision=0,
    price_increment=Price(0.01, 2),
    size_increment=UNIT,
    ts_event=0,
    ts_init=0,
    margin_init=Decimal(0),
    margin_maint=Decimal(0),
    maker_fee=Decimal(str(FEE_RATE)),
    taker_fee=Decimal(str(FEE_RATE)),
)


class Cross(Strategy):
    def __init__(self) -> None:
        super().__init__(StrategyConfig())
        self.fast, self.slow = SimpleMovingAverage(FAST), SimpleMovingAverage(SLOW)
        self.long = False
        self.fills, self.bought_at = 0, 0.0

    def on_start(self) -> None:
        self.register_indicator_for_bars(BARS, self.fast)
        self.register_indicator_for_bars(BARS, self.slow)
        self.subscribe_bars(BARS)

    def on_bar(self, bar: Any) -> None:
        if not self.slow.initialized:
            return
        fast, slow = self.fast.value, self.slow.value
        if fast > slow and not self.long:
            self.submit_order(self.order_factory.market(PAIR.id, OrderSide.BUY, UNIT))
            self.long = True
        elif fast < slow and self.long:
            self.submit_order(self.order_factory.market(PAIR.id, OrderSide.SELL, UNIT))
            self.long = False

    def on_order_filled(self, event: Any) -> None:
        self.fills += 1
        if event.order_side == OrderSide.BUY:
            self.bought_at = float(event.last_px)


def event(tape: Tape) -> Callable[[], Outcome]:
    index = pd.to_datetime(tape.timestamp, unit="ms", utc=True)
    frame = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), tape.prices), index=index)
    frame["volume"] = 1e6
    bars = BarDataWrangler(BARS, PAIR).process(frame)

    def run() -> Outcome:
        # Without its log and its analysis of the trades, which cost more than all the rest.
        quiet = LoggingConfig(bypass_logging=True)
        config = BacktestEngineConfig(trader_id=TraderId("T-1"), logging=quiet, run_analysis=False)
        engine = BacktestEngine(config)
        engine.add_venue(VENUE, OmsType.NETTING, AccountType.CASH, [Money(CAPITAL, USDT)])
        engine.add_instrument(PAIR)
        strategy = Cross()
        engine.add_strategy(strategy)
        engine.add_data(bars)
        engine.run()
        net_pnl = engine.portfolio.account(VENUE).balance_total(USDT).as_double() - CAPITAL
        engine.dispose()
        return Outcome([strategy.fills], [net_pnl + strategy.bought_at * strategy.long])

    return run


if __name__ == "__main__":
    serve(nautilus_trader.__version__, {"event": event})
