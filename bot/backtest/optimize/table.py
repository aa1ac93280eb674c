"""A search on a terminal: what the best combinations did in sample, and beside it what they did out of sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from bot.backtest.optimize.document import Document
from bot.backtest.optimize.figures import MAX_DRAWDOWN, WHOLE
from bot.backtest.report.words import NONE, count, duration, moment, number, percent
from bot.service.render import Page

_SHOWN = ("total_profit_ratio", MAX_DRAWDOWN, "sharpe")
_NAMES = {
    "total_profit_ratio": "profit",
    MAX_DRAWDOWN: "drawdown",
    "cagr": "CAGR",
    "sqn": "SQN",
    **{name: name.capitalize() for name in ("sharpe", "sortino", "calmar")},
}
_PERCENT = {"cagr", "win_rate", "exposure", "average_profit_ratio", "median_profit_ratio", *_SHOWN[:2]}
_GAINS = {"total_profit", "total_profit_ratio", "cagr", "average_profit_ratio", "median_profit_ratio", "expectancy"}


def text(document: Document) -> str:
    page = Page()
    windows = document["windows"]
    page.add(_headline(document))
    for failure in document["failures"]:
        page.add(escape(f"{_params(failure['params'])} failed: {failure['error']}"))
    if len(windows) == 1:
        _add_window(page, document, windows[0])
    else:
        _add_walk(page, document, windows)
    return page.text


def _headline(document: Document) -> str:
    combinations = document["combinations"]
    parts = [f"{combinations:,} combination{'s' if combinations > 1 else ''}, {document['tried']:,} tried"]
    if not document["complete"]:
        parts[0] += " until it ended"
    if document["refused"]:
        parts.append(f"{document['refused']:,} refused by the strategy")
    if document["failed"]:
        parts.append(f"{document['failed']:,} failed")
    ranked = f"ranked by {_named(document['by'])}"
    if document["min_trades"]:
        ranked += f" from {document['min_trades']:,} trades on"
    return f"[bold]{escape(document['strategy'])}[/]  {', '.join([*parts, ranked])}"


def _add_window(page: Page, document: Document, window: Document) -> None:
    split = window["split"]
    page.add(f"in sample      {_stretch(window['start'], split or window['end'])}")
    if split:
        page.add(f"out of sample  {_stretch(split, window['end'])}")
    if window["too_few_trades"]:
        page.add(f"{window['too_few_trades']:,} left out, with fewer than {document['min_trades']:,} trades in sample")
    rows = window["top"]
    if not rows:
        page.add("", "nothing to rank")
        return
    shown = _shown(document["by"], page.narrow)
    names = list(rows[0]["params"])
    table = _table(("#", *names), shown, both=bool(split))
    for row in rows:
        table.add_row(str(row["rank"]), *_values(row["params"]), *_cells(row, shown, both=bool(split)))
    page.add("", table)
    if split:
        page.add("", *_luck(document["by"], window, len(rows)))


def _add_walk(page: Page, document: Document, windows: Sequence[Document]) -> None:
    shown = _shown(document["by"], page.narrow)
    names = list(next((window["top"][0]["params"] for window in windows if window["top"]), {}))
    table = _table(("#", "in sample from", "out of sample from", *names), shown, both=True, after=("place", "ranks"))
    for place, window in enumerate(windows, start=1):
        days = [moment(window[key])[: 10 if page.narrow else 16] for key in ("start", "split")]
        best = window["top"][0] if window["top"] else None
        params = [NONE] * len(names) if best is None else _values(best["params"])
        cells = [NONE] * (2 * len(shown)) if best is None else _cells(best, shown, both=True)
        luck = window["overfitting"]
        where = NONE if luck["place_of_best"] is None else f"{luck['place_of_best']:,} of {luck['places']:,}"
        table.add_row(str(place), *days, *params, *cells, where, number(luck["rank_correlation"]))
    page.add(f"up to  {moment(windows[-1]['end'])}", "", table, "")
    walked = document["walk_forward"]
    if walked is None:
        page.add("nothing to trade out of sample")
        return
    told = [f"{_named(name)} {_told(name)(walked[name])}" for name in shown]
    page.add(f"[bold]joined out of sample[/]  {', '.join(told)}")
    page.add(
        "place: of the best in sample, among all out of sample; ranks: correlation of in sample with out of sample,"
        " 1 the same order, 0 none"
    )


def _luck(by: str, window: Document, top: int) -> list[str | Table]:
    luck = window["overfitting"]
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("out of sample")
    names = list(dict.fromkeys((by, "total_profit_ratio")))
    for name in names:
        table.add_column(_named(name), justify="right")
    for label, keys in (
        ("median of all", ("median", "median_profit")),
        (f"median of the top {top}", ("median_of_top", "median_profit_of_top")),
    ):
        table.add_row(label, *[_told(name)(luck[key]) for name, key in zip(names, keys, strict=False)])
    lines: list[str | Table] = [table]
    if luck["place_of_best"] is not None:
        lines.append(f"the best in sample is number {luck['place_of_best']:,} of {luck['places']:,} out of sample")
    if luck["rank_correlation"] is not None:
        lines.append(
            f"rank correlation of in sample with out of sample {luck['rank_correlation']:.2f}"
            " (1: the same order; 0: no connection, the best one was luck)"
        )
    return lines


def _shown(by: str, narrow: bool) -> list[str]:
    """``by`` first, then those that are always shown; a narrow terminal has no room for all."""
    names = ["trades", *dict.fromkeys((by, *_SHOWN))]
    names = list(dict.fromkeys(names))
    return [name for name in names if name in {by, "total_profit_ratio", "sharpe"}] if narrow else names


def _table(first: Sequence[str], shown: Sequence[str], *, both: bool, after: Sequence[str] = ()) -> Table:
    """Two columns a figure, the figure's name above the first."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for name in first:
        table.add_column(f"\n{escape(name)}" if both else escape(name), justify="right", no_wrap=True)
    for name in shown:
        if both:
            table.add_column(f"{_named(name)}\nin", justify="right", no_wrap=True)
            table.add_column("\nout", justify="right", no_wrap=True)
        else:
            table.add_column(_named(name), justify="right", no_wrap=True)
    for name in after:
        table.add_column(f"\n{name}", justify="right", no_wrap=True)
    return table


def _cells(row: Document, shown: Sequence[str], *, both: bool) -> list[str]:
    sides = ("in_sample", "out_of_sample") if both else ("in_sample",)
    return [_cell(name, row[side][name]) for name in shown for side in sides]


def _cell(name: str, value: float | None) -> str:
    told = _told(name)(value)
    if name not in _GAINS or not value:
        return told
    return f"[{'green' if value > 0 else 'red'}]{told}[/]"


def _told(name: str) -> Callable[[Any], str]:
    if name in _PERCENT:
        return percent
    if name.endswith("_ms"):
        return duration
    return count if name in WHOLE else number


def _named(name: str) -> str:
    return _NAMES.get(name) or name.removesuffix("_ms").replace("_", " ")


def _values(params: Document) -> list[str]:
    return [escape(_value(value)) for value in params.values()]


def _value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _params(params: Document) -> str:
    return " ".join(f"{name}={_value(value)}" for name, value in params.items())


def _stretch(start: str, end: str) -> str:
    return f"{moment(start)} to {moment(end)}"
