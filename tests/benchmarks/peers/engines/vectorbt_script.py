"""``python -m tests.benchmarks.peers.engines.vectorbt_script ENGINE FILE``: what one types to backtest a file once."""

from __future__ import annotations

import sys

import pandas as pd
import vectorbt

from tests.benchmarks.peers.engines.vectorbt import cross, outcome


def main(engine: str, file: str) -> None:
    vectorbt.settings["engine"] = engine
    candles = pd.read_csv(file, index_col="timestamp")
    candles.index = pd.to_datetime(candles.index, unit="ms")
    portfolio = cross(candles["close"])
    found = outcome(portfolio)
    print(f"fills {found.fills[0]}, net PnL {found.net_pnl[0]:.2f}, drawdown {portfolio.max_drawdown():.4%}")  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
