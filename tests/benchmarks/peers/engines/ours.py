"""This project's engines. What is measured of them is here and nowhere else."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from bot import __version__
from bot.backtest import Result, run_backtest
from bot.backtest.event import lived
from bot.backtest.optimize import sweep as together
from bot.compose import tune_collector
from bot.domain import Bars, Market
from bot.settings import Settings
from bot.strategies import build
from bot.timeframes import TIMEFRAMES
from tests.benchmarks.peers.engines.serving import (
    BAR_MS,
    CAPITAL,
    FAST,
    FEE_RATE,
    PAIRS,
    SLOW,
    START_MS,
    Outcome,
    Tape,
    serve,
)

SYMBOL = "BTC/USDT"
PART = 65_536


def command(file: Path) -> list[str]:
    """From a file of candles to printed figures, in a process of its own."""
    strategy = f"--strategy sma_cross --param fast={FAST} --param slow={SLOW}"
    account = f"--capital {CAPITAL} --quantity 1 --fee-rate {FEE_RATE} --fill close"
    return [sys.executable, "main.py", "backtest", "--data", str(file), *strategy.split(), *account.split()]


OPTIONS: dict[str, Any] = {"capital": CAPITAL, "quantity": 1, "fee_rate": FEE_RATE, "fill": "close"}


def _traded(bars: Bars) -> Result:
    return run_backtest(bars, build("sma_cross", fast=FAST, slow=SLOW), **OPTIONS)


def _outcome(results: Iterable[Result]) -> Outcome:
    fills, net_pnl = zip(*((len(result.trades), result.trades.net_pnl) for result in results), strict=True)
    return Outcome(list(fills), list(net_pnl))


def vectorised(tape: Tape) -> Callable[[], Outcome]:
    bars = Bars.from_ticks(tape.timestamp, tape.prices)
    return lambda: _outcome([_traded(bars)])


def equity(tape: Tape) -> Callable[[], Outcome]:
    bars = Bars.from_ticks(tape.timestamp, tape.prices)

    def run() -> Outcome:
        result = _traded(bars)
        assert len(result.equity) == len(bars)
        fall = result.curve.drawdown
        return _outcome([result])._replace(max_drawdown=fall.ratio if fall else 0.0)

    return run


def sweep(tape: Tape) -> Callable[[], Outcome]:
    bars = Bars.from_ticks(tape.timestamp, tape.prices)
    strategies = [build("sma_cross", fast=fast, slow=slow) for fast, slow in PAIRS]
    return lambda: _outcome(together(bars, strategies, **OPTIONS))


def event(tape: Tape) -> Callable[[], Outcome]:
    """Through the trading loop, every fill durable in a ledger; the prices come off their file part by part."""
    settings = Settings(
        strategy=[  # type: ignore[arg-type]
            {"name": "sma_cross", "params": {"fast": FAST, "slow": SLOW}, "quantity": 1, "capital": CAPITAL}
        ],
        execution={"fill": "close", "fee_rate": str(FEE_RATE)},  # type: ignore[arg-type]
        feed={"symbols": [SYMBOL]},  # type: ignore[arg-type]
    )
    markets = {SYMBOL: Market(SYMBOL, Decimal("0.01"), Decimal("0.001"))}
    tune_collector()

    def run() -> Outcome:
        found = asyncio.run(lived(settings, {SYMBOL: _parts(tape)}, TIMEFRAMES["1m"], markets))
        (trades,) = found.trades.values()
        return Outcome([len(trades)], [trades.net_pnl])

    return run


def _parts(tape: Tape) -> Iterator[Bars]:
    for first in range(0, len(tape), PART):
        prices = np.fromfile(tape.path, count=PART, offset=8 * first)
        times = START_MS + BAR_MS * np.arange(first, first + len(prices), dtype=np.int64)
        yield Bars.from_ticks(times, prices)


if __name__ == "__main__":
    serve(__version__, {"vectorised": vectorised, "equity": equity, "sweep": sweep, "event": event})
