"""basana, filling at the close."""

from __future__ import annotations

import asyncio
import datetime
import importlib.metadata
from collections import deque
from collections.abc import Callable, Iterator
from decimal import Decimal

import basana
from basana.backtesting import exchange, fees, liquidity
from basana.core.enums import OrderOperation
from basana.core.pair import PairInfo

from tests.benchmarks.peers.engines.serving import BAR_MS, CAPITAL, FAST, SLOW, START_MS, Outcome, Tape, serve

PAIR = basana.Pair("BTC", "USDT")
UNIT = Decimal(1)


class Cross:
    """Means as running sums of Decimals, which are exact."""

    def __init__(self, market: exchange.Exchange) -> None:
        self.market = market
        self.closes: deque[Decimal] = deque(maxlen=SLOW)
        self.fast = self.slow = Decimal(0)
        self.long = False

    async def on_bar(self, event: basana.BarEvent) -> None:
        close, closes = event.bar.close, self.closes
        self.fast += close - (closes[-FAST] if len(closes) >= FAST else 0)
        self.slow += close - (closes[0] if len(closes) == SLOW else 0)
        closes.append(close)
        if len(closes) < SLOW:
            return
        fast, slow = self.fast * (SLOW // FAST), self.slow
        if fast > slow and not self.long:
            await self.market.create_market_order(OrderOperation.BUY, PAIR, UNIT)
            self.long = True
        elif fast < slow and self.long:
            await self.market.create_market_order(OrderOperation.SELL, PAIR, UNIT)
            self.long = False


class Bars(basana.EventSource):
    """Makes each bar when it is asked for, as basana's own sources do."""

    def __init__(self, tape: Tape) -> None:
        super().__init__()
        self.bars = _bars(tape)

    def pop(self) -> basana.BarEvent | None:
        return next(self.bars, None)


def _bars(tape: Tape) -> Iterator[basana.BarEvent]:
    first = datetime.datetime.fromtimestamp(START_MS / 1000, datetime.UTC)
    minute = datetime.timedelta(milliseconds=BAR_MS)
    for number, value in enumerate(tape.prices.tolist()):
        begin, price = first + number * minute, Decimal(f"{value:.2f}")
        bar = basana.Bar(begin, PAIR, price, price, price, price, UNIT, minute)
        yield basana.BarEvent(begin + minute, bar)


async def _trade(source: basana.EventSource) -> Outcome:
    dispatcher = basana.backtesting_dispatcher()
    market = exchange.Exchange(
        dispatcher,
        {"USDT": Decimal(CAPITAL)},
        liquidity_strategy_factory=liquidity.InfiniteLiquidity,
        fee_strategy=fees.Percentage(Decimal("0.1")),
        default_pair_info=PairInfo(base_precision=0, quote_precision=8),
        immediate_order_processing=True,
    )
    market.add_bar_source(source)
    market.subscribe_to_bar_events(PAIR, Cross(market).on_bar)
    await dispatcher.run()
    orders = await market.get_orders(PAIR)
    balances = await market.get_balances()
    net_pnl = balances["USDT"].total - CAPITAL
    if balances["BTC"].total:
        net_pnl += orders[-1].quote_amount_filled
    return Outcome([sum(len(order.fills) for order in orders)], [float(net_pnl)])


def event(tape: Tape) -> Callable[[], Outcome]:
    return lambda: asyncio.run(_trade(Bars(tape)))


if __name__ == "__main__":
    serve(importlib.metadata.version("basana"), {"event": event})
