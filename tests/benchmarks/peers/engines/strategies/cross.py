"""The strategy in freqtrade's shape, which reads it from a folder of its own."""

from __future__ import annotations

from typing import Any

import pandas as pd
from freqtrade.strategy import IStrategy

from tests.benchmarks.peers.engines.serving import FAST, SLOW


class Cross(IStrategy):
    INTERFACE_VERSION = 3
    timeframe = "1m"
    minimal_roi: dict[str, float] = {}  # noqa: RUF012  (the shape that it asks for)
    stoploss = -0.99
    startup_candle_count = 0
    process_only_new_candles = True

    def populate_indicators(self, dataframe: pd.DataFrame, metadata: Any) -> pd.DataFrame:
        dataframe["fast"] = dataframe["close"].rolling(FAST).mean()
        dataframe["slow"] = dataframe["close"].rolling(SLOW).mean()
        return dataframe

    def populate_entry_trend(self, dataframe: pd.DataFrame, metadata: Any) -> pd.DataFrame:
        dataframe["enter_long"] = (dataframe["fast"] > dataframe["slow"]).astype(int)
        return dataframe

    def populate_exit_trend(self, dataframe: pd.DataFrame, metadata: Any) -> pd.DataFrame:
        dataframe["exit_long"] = (dataframe["fast"] < dataframe["slow"]).astype(int)
        return dataframe

    def custom_stake_amount(self, *, current_rate: float, **_: Any) -> float:
        return current_rate
