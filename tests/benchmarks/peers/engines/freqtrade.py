"""freqtrade's backtesting of one pair in memory, filling at the open of the next candle."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import freqtrade
import pandas as pd
from freqtrade.configuration import TimeRange
from freqtrade.enums import CandleType, RunMode
from freqtrade.exchange import Exchange
from freqtrade.optimize.backtesting import Backtesting

from tests.benchmarks.peers.engines.serving import CAPITAL, FEE_RATE, Outcome, Tape, serve

STRATEGIES = Path(__file__).with_name("strategies")
PAIR = "BTC/USDT"
MARKET = {
    "id": "BTCUSDT",
    "symbol": PAIR,
    "base": "BTC",
    "quote": "USDT",
    "active": True,
    "spot": True,
    "type": "spot",
    "precision": {"price": 0.01, "amount": 0.001},
    "limits": {"amount": {"min": 0.001, "max": None}, "cost": {"min": 1, "max": None}, "price": {}},
    "info": {},
}


def _backtesting(folder: Path) -> Backtesting:
    config: dict[str, Any] = {
        "runmode": RunMode.BACKTEST,
        "dry_run": True,
        "dry_run_wallet": CAPITAL,
        "stake_currency": "USDT",
        "stake_amount": 1000,
        "max_open_trades": 1,
        "tradable_balance_ratio": 1.0,
        "fee": FEE_RATE,
        "timeframe": "1m",
        "trading_mode": "spot",
        "margin_mode": "",
        "candle_type_def": CandleType.SPOT,
        "strategy": "Cross",
        "strategy_path": str(STRATEGIES),
        "user_data_dir": folder,
        "exchange": {"name": "binance", "pair_whitelist": [PAIR], "pair_blacklist": []},
        "pairlists": [{"method": "StaticPairList"}],
        "entry_pricing": {},
        "exit_pricing": {},
        "unfilledtimeout": {"entry": 10, "exit": 10},
        "original_config": {},
    }
    exchange = Exchange(config, validate=False)
    exchange._markets = {PAIR: MARKET}
    exchange._api.markets = exchange._markets
    return Backtesting(config, exchange)


def event(tape: Tape) -> Callable[[], Outcome]:
    frame = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), tape.prices))
    frame.insert(0, "date", pd.to_datetime(tape.timestamp, unit="ms", utc=True))
    frame["volume"] = 1.0
    backtesting = _backtesting(tape.path.parent)
    (strategy,) = backtesting.strategylist

    def run() -> Outcome:
        backtesting.backtest_one_strategy(strategy, {PAIR: frame.copy()}, TimeRange())
        trades = backtesting.all_bt_content["Cross"]["results"]
        forced = trades.exit_reason == "force_exit"
        gains = trades.profit_abs.where(~forced, -FEE_RATE * trades.open_rate)
        return Outcome([2 * len(trades) - int(forced.sum())], [float(gains.sum())])

    return run


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    serve(freqtrade.__version__, {"event": event})
