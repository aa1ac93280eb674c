"""A backtest as one HTML file that needs nothing else: styles, scripts and numbers are inside, and it asks nobody.

The charts are drawn on canvases by the scripts in ``assets``. The known libraries were weighed: plotly's is 4.8 MB in
each file and holds addresses of map and font servers; these are 28 kB. Tables that do not grow are plain HTML; the list
of trades is made from columns of numbers, a page at a time.
"""

from __future__ import annotations

import base64
import hashlib
from html import escape
from importlib import resources

import numpy as np
import orjson

from bot.backtest.curve import Curve
from bot.backtest.report import layout, tables
from bot.backtest.report.document import Document, drawdowns, summary
from bot.backtest.report.given import Report
from bot.backtest.report.hold import held
from bot.backtest.report.prices import PricePoints
from bot.backtest.report.words import duration
from bot.backtest.trades import Trades
from bot.backtest.trips import RoundTrips
from bot.domain import FloatArray, IntArray

# Of all strategies together: some ten megabytes, which a phone still opens.
TRADES_MAX = 50_000
FILLS_MAX = 100_000
# More digits than anybody reads; the file with all of them is the JSON document.
DIGITS = 10
SCRIPTS = ("chart.js", "scenes.js", "page.js")


def page(report: Report) -> bytes:
    """The file. Whatever comes from outside is escaped, and its scripts are named by their hashes: if something
    should slip through, a browser does not run it."""
    assets = resources.files("bot.backtest.report") / "assets"
    style = (assets / "page.css").read_text(encoding="utf-8")
    script = "\n".join((assets / name).read_text(encoding="utf-8").removeprefix('"use strict";\n') for name in SCRIPTS)
    script = f'"use strict";\n{script}'
    # "<" ends a script in HTML, wherever it stands in it.
    data = orjson.dumps(_data(report)).decode().replace("<", "\\u003c")
    policy = f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'"
    found = summary(report)
    head = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(layout.title(found))}</title>\n<style>{style}</style>\n</head>\n"
    )
    body = f"<body>\n{tables.body(found)}\n"
    tail = f'<script type="application/json" id="data">{data}</script>\n<script>{script}</script>\n</body>\n</html>\n'
    return (head + body + tail).encode()


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _data(report: Report) -> Document:
    run, among = report.run, max(1, len(report.outcomes))
    hold_times, hold = held(report.prices, run.end_ms)
    return {
        "from": run.start_ms,
        "to": run.end_ms,
        "symbols": run.symbols,
        "reasons": report.reasons,
        "prices": [_points(points) for points in report.prices],
        "hold": {"t": _steps(hold_times), "worth": _numbers(hold)},
        "strategies": [
            {
                "name": outcome.account,
                "curve": _curve(outcome.curve),
                "fills": _fills(outcome.fills, FILLS_MAX // among),
                "trades": _trades(outcome.trips, TRADES_MAX // among),
            }
            for outcome in report.outcomes
        ],
    }


def _points(points: PricePoints) -> Document:
    width = duration(points.width_ms)
    note = f"Each point is {width} of candles, with their extremes." if points.width_ms else ""
    columns = (points.open, points.high, points.low, points.close)
    prices = dict(zip("ohlc", map(_numbers, columns), strict=True))
    return {"step": points.step_ms, "note": note, "t": _steps(points.timestamp), **prices}


def _curve(curve: Curve) -> Document:
    return {
        "t": _steps(curve.times),
        "equity": _numbers(curve.values),
        "drawdown_percent": _numbers(-100 * drawdowns(curve.values)),
    }


def _fills(fills: Trades, most: int) -> Document:
    """The newest ones."""
    newest = slice(max(0, len(fills) - most), None)
    return {
        "left_out": newest.start,
        "t": _steps(fills.timestamp[newest]),
        "symbol": fills.symbol[newest].tolist(),
        "buy": fills.buy[newest].astype(np.int8).tolist(),
        "price": _numbers(fills.price[newest]),
        "quantity": _numbers(fills.quantity[newest]),
        "pnl": _numbers(fills.pnl[newest]),
    }


def _trades(trips: RoundTrips, most: int) -> Document:
    """The newest ones."""
    newest = slice(max(0, len(trips.symbol) - most), None)
    return {
        "left_out": newest.start,
        "symbol": trips.symbol[newest].tolist(),
        "short": trips.short[newest].astype(np.int8).tolist(),
        "opened": _steps(trips.opened_ms[newest]),
        "closed": _steps(trips.closed_ms[newest]),
        "quantity": _numbers(trips.quantity[newest]),
        "entry": _numbers(trips.entry_price[newest]),
        "exit": _numbers(trips.exit_price[newest]),
        "fees": _numbers(trips.fees[newest]),
        "profit": _numbers(trips.profit[newest]),
        "ratio": _numbers(trips.profit_ratio[newest]),
        "reason": trips.reason[newest].tolist(),
    }


def _steps(times: IntArray) -> list[int]:
    """The first time and the steps to the next ones, which are shorter to write."""
    return np.diff(times, prepend=0).tolist()  # type: ignore[no-any-return]


def _numbers(values: FloatArray) -> list[float]:
    return [float(f"{value:.{DIGITS}g}") for value in values.tolist()]
