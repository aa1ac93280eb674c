"""backtesting.py, filling at the close."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import backtesting
import numpy as np
import pandas as pd

from tests.benchmarks.peers.engines.serving import CAPITAL, FAST, FEE_RATE, SLOW, FloatArray, Outcome, Tape, serve


def _sma(closes: FloatArray, period: int) -> FloatArray:
    means: FloatArray = pd.Series(closes).rolling(period).mean().to_numpy()
    return means


class Cross(backtesting.Strategy):
    def init(self) -> None:
        self.fast = self.I(_sma, self.data.Close, FAST)
        self.slow = self.I(_sma, self.data.Close, SLOW)

    def next(self) -> None:
        fast, slow = self.fast[-1], self.slow[-1]
        if fast > slow:
            if not self.position:
                self.buy(size=1)
        elif fast < slow and self.position:
            self.position.close()


def event(tape: Tape) -> Callable[[], Outcome]:
    index = pd.to_datetime(tape.timestamp, unit="ms")
    frame = pd.DataFrame(dict.fromkeys(("Open", "High", "Low", "Close"), tape.prices), index=index)
    frame["Volume"] = 0.0

    def run() -> Outcome:
        test = backtesting.Backtest(frame, Cross, cash=CAPITAL, commission=FEE_RATE, trade_on_close=True)
        found = test.run()
        strategy = found._strategy
        closed, left = found._trades, strategy.trades
        return Outcome(
            [2 * len(closed) + len(left)],
            [float(closed.PnL.sum() - sum(FEE_RATE * trade.entry_price for trade in left))],
        )

    return run


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    backtesting.backtesting._tqdm = lambda items, **_: items  # no progress bar
    np.seterr(all="ignore")
    serve(backtesting.__version__, {"event": event})
