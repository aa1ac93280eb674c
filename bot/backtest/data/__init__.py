"""The data of a backtest: files of candles, checked and where asked for repaired, a recorded ledger, or simulated
candles; and the view of them that ends at a time.

What only some sources need (pyarrow, SQLite, the simulated feed) is imported when they are opened.
"""

from bot.backtest.data.errors import DataError
from bot.backtest.data.marketdata import MarketData, SimulatedMarket, TickSeries
from bot.backtest.data.report import Repair, Report
from bot.backtest.data.series import Held, Series
from bot.backtest.data.sources import open_data
from bot.backtest.data.view import AsOf, Bar, LookAheadError

__all__ = [
    "AsOf",
    "Bar",
    "DataError",
    "Held",
    "LookAheadError",
    "MarketData",
    "Repair",
    "Report",
    "Series",
    "SimulatedMarket",
    "TickSeries",
    "open_data",
]
