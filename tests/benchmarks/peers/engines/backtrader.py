"""backtrader, filling at the close."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import backtrader
import pandas as pd

from tests.benchmarks.peers.engines.serving import CAPITAL, FAST, FEE_RATE, SLOW, Outcome, Tape, serve


class Cross(backtrader.Strategy):
    def __init__(self) -> None:
        self.fast = backtrader.indicators.SMA(self.data.close, period=FAST)
        self.slow = backtrader.indicators.SMA(self.data.close, period=SLOW)
        self.fills, self.net_pnl = 0, 0.0

    def next(self) -> None:
        fast, slow = self.fast[0], self.slow[0]
        if fast > slow:
            if not self.position:
                self.buy(size=1)
        elif fast < slow and self.position:
            self.sell(size=1)

    def notify_order(self, order: Any) -> None:
        if order.status == order.Completed:
            self.fills += 1
            self.net_pnl += order.executed.pnl - order.executed.comm


def event(tape: Tape) -> Callable[[], Outcome]:
    index = pd.to_datetime(tape.timestamp, unit="ms")
    frame = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), tape.prices), index=index)
    frame["volume"] = 0.0

    def run() -> Outcome:
        cerebro = backtrader.Cerebro(stdstats=False)
        cerebro.adddata(backtrader.feeds.PandasData(dataname=frame))
        cerebro.addstrategy(Cross)
        cerebro.broker.setcash(CAPITAL)
        cerebro.broker.setcommission(FEE_RATE)
        cerebro.broker.set_coc(True)
        (found,) = cerebro.run()
        return Outcome([found.fills], [found.net_pnl])

    return run


if __name__ == "__main__":
    serve(backtrader.__version__, {"event": event})
