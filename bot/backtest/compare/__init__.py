"""What a recorded ledger did against what a backtest of the same time would have done."""

from bot.backtest.compare.comparison import Candles, Compared, compared
from bot.backtest.compare.document import document
from bot.backtest.compare.recorded import Outline, Recording, Stretch, outline_of, recording_of
from bot.backtest.compare.text import text

__all__ = [
    "Candles",
    "Compared",
    "Outline",
    "Recording",
    "Stretch",
    "compared",
    "document",
    "outline_of",
    "recording_of",
    "text",
]
