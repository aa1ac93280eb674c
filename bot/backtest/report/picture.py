"""A backtest as one picture, 1600 x 1200. The one module that needs matplotlib."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from io import BytesIO

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from bot.backtest.report import layout, months
from bot.backtest.report.document import Document, drawdowns, summary
from bot.backtest.report.given import Outcome, Report
from bot.backtest.report.hold import held
from bot.backtest.report.words import amount, count, moment, percent
from bot.backtest.trades import Trades
from bot.domain import FloatArray, IntArray

DPI = 100
INCHES = (16.0, 12.0)
MARKS_MAX = 2_000
YEARS_MAX = 12
# What stands beside an axis of years, months, days, hours, minutes and seconds: all that its labels leave out, and no
# month beside days of several.
BESIDE = ("", "%Y", "%Y", "%Y-%m-%d", "%Y-%m-%d", "%Y-%m-%d %H:%M")
UP, DOWN, EQUITY, HOLD, PRICE, MUTED, GRID = "#0b8a66", "#cf3350", "#2563eb", "#a16207", "#4b5563", "#6b7280", "#e2e5ea"
# The return of a month that has the full colour.
FULL = 0.15


def picture(report: Report) -> bytes:
    """The PNG file of the first strategy, with the prices of the symbol that it traded most: price with fills, equity,
    drawdown, monthly returns and the summary."""
    # Names may hold a dollar sign, which is not meant as a formula, or letters that the font does not have.
    with mpl.rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        figure = _figure(report)
        file = BytesIO()
        figure.savefig(file, format="png", dpi=DPI)
    return file.getvalue()


def _figure(report: Report) -> Figure:
    document, outcome = summary(report), report.outcomes[0]
    years = layout.months(document["strategies"][0])[-YEARS_MAX:]
    figure = Figure(figsize=INCHES, dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    heights = (4.4, 2.8, 1.6, 0.1, 0.34 * max(1, len(years)))
    grid = figure.add_gridspec(5, 2, height_ratios=heights, width_ratios=(3.3, 1), hspace=0.22, wspace=0.13)
    grid.update(left=0.055, right=0.985, top=0.905, bottom=0.03)
    axes = [figure.add_subplot(grid[0, 0])]
    axes += [figure.add_subplot(grid[row, 0], sharex=axes[0]) for row in (1, 2)]
    _titles(figure, document)
    _prices(axes[0], report, outcome.fills)
    _equity(axes[1], report)
    _drawdown(axes[2], outcome)
    _times(axes)
    _summary(figure.add_subplot(grid[0:3, 1]), document)
    _months(figure.add_subplot(grid[4, :]), years)
    return figure


def _titles(figure: Figure, document: Document) -> None:
    strategies = document["strategies"]
    strategy = strategies[0]
    others = f"  (the first of {len(strategies)} strategies)" if len(strategies) > 1 else ""
    figure.text(0.055, 0.967, _short(layout.named(strategy), 100) + others, fontsize=16, fontweight="bold")
    span = f"{moment(document['start'])[:16]} to {moment(document['end'])[:16]} UTC"
    facts = {name: cell.text for name, cell in layout.facts(document)}
    prices = next(f"{name} {facts[name]}" for name in ("candles", "ticks") if name in facts)
    told = [_short(facts["symbols"], 60), prices, span, f"fills {facts['fills']}"]
    told += [f"fee {facts['fee']}", strategy["sizing"], f"{facts['engine']} {facts['version']}"]
    figure.text(0.055, 0.943, _short("   ".join(told), 190), fontsize=10.5, color=MUTED)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _prices(axes: Axes, report: Report, fills: Trades) -> None:
    symbols = report.run.symbols
    chosen = int(np.bincount(fills.symbol, minlength=len(symbols)).argmax())
    points, mine = report.prices[chosen], fills.of(chosen)
    times = _dates(points.timestamp)
    axes.fill_between(times, points.low, points.high, color=PRICE, alpha=0.25, linewidth=0)
    axes.plot(times, points.close, color=PRICE, linewidth=0.8)
    rows = np.arange(len(mine))
    if len(rows) > MARKS_MAX:
        rows = np.unique(np.linspace(0, len(mine) - 1, MARKS_MAX).astype(np.int64))
    size = min(34.0, max(9.0, 10_000 / max(1, len(rows))))
    for buys, marker, color, label in ((True, "^", UP, "buy"), (False, "v", DOWN, "sell")):
        side = rows[mine.buy[rows] == buys]
        marks = {"marker": marker, "s": size, "linewidths": 0.4, "edgecolors": "white", "zorder": 3}
        axes.scatter(_dates(mine.timestamp[side]), mine.price[side], color=color, label=label, **marks)
    part = "" if len(rows) == len(mine) else f" ({count(len(rows))} of {count(len(mine))} fills marked)"
    among = f", one of {len(symbols)} symbols" if len(symbols) > 1 else ""
    _dress(axes, _short(symbols[chosen], 60) + among + part, amount)
    axes.legend(loc="upper left", ncols=2, frameon=False, fontsize=9)


def _equity(axes: Axes, report: Report) -> None:
    for place, outcome in reversed(list(enumerate(report.outcomes))):
        style = (EQUITY, 1.6, "equity") if place == 0 else ("#b8c0cb", 0.9, "other strategies" if place == 1 else None)
        color, width, label = style
        axes.plot(_dates(outcome.curve.times), outcome.curve.values, color=color, linewidth=width, label=label)
    times, worth = held(report.prices, report.run.end_ms)
    worth = worth * report.outcomes[0].curve.capital
    axes.plot(_dates(times), worth, color=HOLD, linewidth=1, linestyle="--", label="buy and hold")
    _dress(axes, f"Equity ({report.run.currency})", amount)
    axes.legend(loc="upper left", ncols=3, frameon=False, fontsize=9)


def _drawdown(axes: Axes, outcome: Outcome) -> None:
    falls = -drawdowns(outcome.curve.values)
    axes.fill_between(_dates(outcome.curve.times), falls, 0, color=DOWN, alpha=0.35, linewidth=0)
    axes.set_ylim(top=0)
    _dress(axes, "Drawdown", percent)


def _dress(axes: Axes, title: str, told: Callable[[float], str]) -> None:
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: told(value)))
    axes.grid(color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9, color=GRID, labelcolor=MUTED)
    axes.spines[:].set_visible(False)
    axes.margins(x=0.01)


def _times(axes: list[Axes]) -> None:
    locator = AutoDateLocator()
    axes[-1].xaxis.set_major_locator(locator)
    axes[-1].xaxis.set_major_formatter(ConciseDateFormatter(locator, offset_formats=list(BESIDE)))
    for upper in axes[:-1]:
        upper.tick_params(labelbottom=False)


def _dates(times: IntArray) -> npt.NDArray[np.datetime64]:
    return times.astype("datetime64[ms]")


def _summary(axes: Axes, document: Document) -> None:
    """Names and values down the right side."""
    axes.set_axis_off()
    groups = layout.summary(document, document["strategies"][0])
    lines = sum(len(rows) + 2 for _, rows in groups)
    place = 0
    for title, rows in groups:
        axes.text(0, 1 - place / lines, title, fontsize=11, fontweight="bold", va="top")
        for number, (name, cell) in enumerate(rows, start=1):
            height = 1 - (place + number) / lines
            color = {1: UP, -1: DOWN}.get(cell.sign, "black")
            axes.text(0, height, name, fontsize=10, color=MUTED, va="top")
            axes.text(1, height, _short(cell.text, 28), fontsize=10, color=color, va="top", ha="right")
        place += len(rows) + 2


def _months(axes: Axes, years: list[tuple[str, list[float | None], float | None]]) -> None:
    axes.set_title("Monthly returns", loc="left", fontsize=11, fontweight="bold")
    axes.tick_params(length=0, labelsize=9, labelcolor=MUTED)
    axes.spines[:].set_visible(False)
    axes.set_xticks(range(13), [*months.NAMES, "total"])
    axes.set_yticks(range(len(years)), [year for year, _, _ in years])
    if not years:
        return
    values = [[*row, total] for _, row, total in years]
    shades: FloatArray = np.array([[np.nan if value is None else value for value in row] for row in values])
    axes.imshow(shades, cmap=_shading(), vmin=-FULL, vmax=FULL, aspect="auto")
    axes.vlines(np.arange(12) + 0.5, -0.5, len(years) - 0.5, color="white", linewidth=2)
    axes.hlines(np.arange(len(years) - 1) + 0.5, -0.5, 12.5, color="white", linewidth=2)
    for row, cells in enumerate(values):
        for column, value in enumerate(cells):
            if value is not None:
                axes.text(column, row, percent(value), ha="center", va="center", fontsize=9)


def _shading() -> mpl.colors.Colormap:
    return mpl.colors.LinearSegmentedColormap.from_list("returns", ["#e58a9b", "#ffffff", "#7cc7ae"])
