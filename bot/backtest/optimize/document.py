"""A search as one plain document: what ``--json`` prints and what the terminal's tables are made of.

Numbers are numbers, ratios too (0.01 is one percent), times are ISO 8601 in UTC, durations milliseconds, and what is
undefined is None.
"""

from __future__ import annotations

import math
from typing import Any

from bot.backtest.metrics import Metrics
from bot.backtest.optimize import figures
from bot.backtest.optimize.found import Found
from bot.backtest.optimize.study import IN_SAMPLE, OUT_OF_SAMPLE, Status
from bot.domain import iso8601

Document = dict[str, Any]
_FAILURES_TOLD = 3


def document(found: Found, top: int, walked: Metrics | None = None) -> Document:
    """The ``top`` combinations of each window, and what can be said of all; ``walked`` is what the windows' parts out
    of sample come to together."""
    study = found.study
    told = list(found.failures.items())[:_FAILURES_TOLD]
    return {
        "strategy": study.strategy,
        "by": found.by,
        "min_trades": found.min_trades,
        "capital": float(study.setup.capital),
        "symbols": list(study.setup.sources),
        "complete": found.ended is None,
        "combinations": len(study.combinations),
        "tried": found.count(Status.TRIED),
        "refused": found.count(Status.REFUSED),
        "failed": found.count(Status.FAILED),
        "failures": [{"params": study.combinations[number], "error": text} for number, text in told],
        "windows": [_window(found, number, top) for number in range(len(study.windows))],
        "walk_forward": None if walked is None else _figures(figures.row(walked, study.figures), study.figures),
    }


def _window(found: Found, number: int, top: int) -> Document:
    window = found.study.windows[number]
    has_out = window.has_out_of_sample
    ranked = found.ranked(number)
    return {
        "start": iso8601(window.start_ms),
        "split": iso8601(window.split_ms) if has_out else None,
        "end": iso8601(window.end_ms),
        "ranked": len(ranked),
        "too_few_trades": found.too_few(number),
        "top": [
            {
                "rank": rank,
                "params": found.study.combinations[each],
                "in_sample": _row(found, number, IN_SAMPLE, each),
                "out_of_sample": _row(found, number, OUT_OF_SAMPLE, each) if has_out else None,
            }
            for rank, each in enumerate(ranked[:top].tolist(), start=1)
        ],
        "overfitting": found.luck(number, top)._asdict() if has_out else None,
    }


def _row(found: Found, window: int, side: int, number: int) -> Document:
    return _figures(found.values[window, side, number].tolist(), found.study.figures)


def _figures(values: list[float], names: tuple[str, ...]) -> Document:
    return {name: _number(name, value) for name, value in zip(names, values, strict=True)}


def _number(name: str, value: float) -> float | int | None:
    if math.isnan(value):
        return None
    return int(value) if name in figures.WHOLE else value
