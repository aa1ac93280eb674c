"""A backtest as people see it: tables on a terminal, one JSON document, one HTML file, one picture.

A ``Report`` is filled in by whoever ran the backtest; ``document`` makes it plain, and the others show that.
"""

from bot.backtest.report.document import document, summary
from bot.backtest.report.files import ReportError, checked, write
from bot.backtest.report.given import Outcome, Report, Run
from bot.backtest.report.prices import PricePoints, points_of_each
from bot.backtest.report.terminal import text

__all__ = [
    "Outcome",
    "PricePoints",
    "Report",
    "ReportError",
    "Run",
    "checked",
    "document",
    "points_of_each",
    "summary",
    "text",
    "write",
]
