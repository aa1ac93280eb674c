"""The loop's side of the comparison, on a ledger that is thrown away."""

from __future__ import annotations

import asyncio
from typing import Any

from bot.backtest.check.parity import Trial
from bot.backtest.event import lived
from bot.backtest.trades import Trades
from bot.engine import Plan
from bot.settings import Settings

ACCOUNT = "check"


def event_driven(trial: Trial) -> Trades:
    """What the trading loop trades."""
    plan = Plan(trial.strategy, ACCOUNT, trial.sizing, timeframe=trial.timeframe)
    entry: dict[str, Any] = {
        "name": ACCOUNT,
        "timeframe": trial.timeframe.name,
        "capital": trial.capital,
        trial.sizing.kind.value: trial.sizing.value,
    }
    given: dict[str, Any] = {
        "feed": {"symbols": list(trial.candles)},
        "strategy": [entry],
        "execution": {"fee_rate": trial.fee_rate, "slippage_bps": trial.slippage_bps, "fill": trial.fill},
    }
    streams = {symbol: [bars] for symbol, bars in trial.candles.items()}
    found = asyncio.run(lived(Settings(**given), streams, trial.candle, trial.markets, plans=[plan]))
    return found.trades[ACCOUNT]
