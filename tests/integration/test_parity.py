"""One arithmetic: the vectorised backtester's trades are the loop's, whatever the strategy, timeframe, size or fill."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from bot.backtest.event import Lived, lived
from bot.backtest.source import CandleSource
from bot.backtest.trades import Trades
from bot.backtest.vectorised import simulated
from bot.compose import plans_of
from bot.domain import Account, Bars, Market
from bot.fills import Terms
from bot.settings import Settings
from bot.strategies.registry import BUILT_IN
from bot.timeframes import MINUTE_MS, TIMEFRAMES, Timeframe

START = 1_704_067_200_000  # 2024-01-01T00:00:00Z
CANDLES = 700
PARAMS: dict[str, dict[str, Any]] = {
    "sma_cross": {"fast": 2, "slow": 5},
    "ema_cross": {"fast": 1, "slow": 2},
    "macd": {"fast": 1, "slow": 2, "signal": 2},
    "rsi_reversion": {"period": 2, "oversold": 40.0, "overbought": 60.0},
    "bollinger_breakout": {"period": 6, "deviations": 0.8},
    "donchian_breakout": {"period": 4},
    "buy_and_hold": {},
}
SIZES = ({"quantity": "1.5"}, {"quote_amount": "450"}, {"equity_fraction": "0.9"}, {"equity_fraction": "1"})


def test_every_strategy_is_here() -> None:
    assert set(PARAMS) == set(BUILT_IN)


def candles(random: np.random.Generator, timeframe: Timeframe, gaps: float) -> Bars:
    """A walk in whole cents, four prices a candle, some of them flat, some missing."""
    steps = random.normal(0, 0.004, (CANDLES, 4)) * (random.random(CANDLES) < 0.9)[:, None]
    prices = np.round(100 * np.exp(np.cumsum(steps).reshape(steps.shape)), 2)
    times = START + np.arange(CANDLES) * timeframe.ms
    there = random.random(CANDLES) >= gaps
    table = prices[there]
    return Bars.from_arrays(times[there], table[:, 0], table.max(axis=1), table.min(axis=1), table[:, 3])


def market(random: np.random.Generator, symbol: str) -> Market:
    steps = Decimal(str(random.choice(["1e-8", "0.001", "0.25"])))
    limits: Mapping[str, Decimal] = {} if random.random() < 0.7 else {"min_cost": Decimal(40), "max_amount": Decimal(4)}
    return Market(symbol, Decimal("0.01"), steps, **limits)


def compared(trades: Trades, expected: Trades) -> None:
    assert len(trades) == len(expected)
    for column in ("timestamp", "symbol", "buy", "price", "quantity"):
        assert np.array_equal(getattr(trades, column), getattr(expected, column)), column
    assert np.abs(trades.pnl - expected.pnl).max(initial=0) < 1e-9
    assert np.abs(trades.fee - expected.fee).max(initial=0) < 1e-9


def both(
    given_: Settings, bars: Mapping[str, Bars], base: Timeframe, markets: Mapping[str, Market], start: int
) -> Lived:
    """Runs both engines and compares all accounts; returns what the loop did."""
    # Parts of odd lengths: where candles are cut cannot matter.
    streams = {symbol: [each[first : first + 97] for first in range(0, len(each), 97)] for symbol, each in bars.items()}
    found = asyncio.run(lived(given_, streams, base, markets, start_ms=start))
    sources = {
        symbol: CandleSource(markets[symbol], each, base, start, given_.execution.fill) for symbol, each in bars.items()
    }
    terms = Terms(given_.execution.fee_rate, given_.execution.slippage_bps)
    for plan, entry in zip(plans_of(given_, polled=False), given_.strategy, strict=True):
        account = Account(entry.account, "USDT", entry.capital, entry.capital)
        booked = simulated(plan, account, sources, terms)
        compared(booked.trades, found.trades[entry.account])
        assert booked.refused == found.refused[entry.account]
    return found


@pytest.mark.parametrize("fill", ["next_open", "close"])
@pytest.mark.parametrize("name", PARAMS)
def test_every_strategy(name: str, fill: str) -> None:
    """On every timeframe of one run, in every size, short too; with gaps, limits, and cash that runs out."""
    random = np.random.default_rng([sum(map(ord, name)), fill == "close"])
    symbols = ("BTC/USDT", "ETH/USDT")
    base = TIMEFRAMES["1m"]
    markets = {symbol: market(random, symbol) for symbol in symbols}
    bars = {symbol: candles(random, base, 0.05) for symbol in symbols}
    entries = []
    for timeframe in ("1m", "5m", "15m"):
        for number, size in enumerate(SIZES):
            params = {**PARAMS[name], **({} if name == "buy_and_hold" else {"short": bool(number % 2)})}
            account = f"{timeframe}-{number}"
            entries.append(
                {"name": name, "params": params, "timeframe": timeframe, "account": account, **size, "capital": 700}
            )
    execution = {"fill": fill, "fee_rate": "0.001", "slippage_bps": "2.5"}
    wanted = Settings(strategy=entries, execution=execution, feed={"symbols": symbols})  # type: ignore[arg-type]
    found = both(wanted, bars, base, markets, START + 100 * MINUTE_MS)
    assert sum(map(len, found.trades.values())) >= (12 if name == "buy_and_hold" else 100)


@seed(5)
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(sorted(PARAMS)), st.sampled_from(["1m", "1h", "1d"]))
def test_whatever_is_asked(number: int, name: str, base_name: str) -> None:
    random = np.random.default_rng(number)
    base = TIMEFRAMES[base_name]
    longer = {"1m": ["1m", "3m", "1h"], "1h": ["1h", "4h", "1d"], "1d": ["1d", "3d", "1w", "1M"]}[base_name]
    symbols = ("BTC/USDT", "ETH/USDT", "SOL/USDT")[: random.integers(1, 4)]
    markets = {symbol: market(random, symbol) for symbol in symbols}
    bars = {symbol: candles(random, base, random.choice([0, 0.03, 0.4])) for symbol in symbols}
    entry = {
        "name": name,
        "params": {**PARAMS[name], **({} if name == "buy_and_hold" else {"short": bool(random.random() < 0.5)})},
        "timeframe": str(random.choice(longer)),
        "capital": str(random.choice([150, 1000, 1_000_000])),
        **SIZES[random.integers(len(SIZES))],
    }
    execution = {
        "fill": str(random.choice(["next_open", "close"])),
        "fee_rate": str(random.choice(["0", "0.001"])),
        "slippage_bps": str(random.choice(["0", "7"])),
    }
    wanted = Settings(strategy=[entry], execution=execution, feed={"symbols": symbols})  # type: ignore[arg-type]
    both(wanted, bars, base, markets, START + int(random.integers(0, 50)) * base.ms + int(random.choice([0, 777])))
