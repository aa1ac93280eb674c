"""A comparison on a terminal."""

from __future__ import annotations

import textwrap

from rich.markup import escape

from bot.backtest.compare.document import Document
from bot.backtest.report import words
from bot.service.render import Page

_COLORS = {1: "green", -1: "red"}
# What is below this is the rounding of sums.
_NOTHING = 1e-6


def text(document: Document, width: int | None = None) -> str:
    """The verdict first, then what each cause cost, then the first gaps. The width is that of the terminal, unless it
    is given."""
    page = Page(width)
    page.add(_verdict(document))
    against = ", ".join(document["against"]) or "a backtest on its own tape"
    if document["from"] is not None:
        when = f"{words.moment(document['from'])} to {words.moment(document['to'])}"
        page.add(_wrapped(page, f"{document['ledger']} against {against}, {when}", ""))
    if not document["ok"] and not document["against"]:
        told = "both saw the same prices: one of the two engines is wrong, or the ledger was altered, which audit tells"
        page.add(_wrapped(page, told, ""))
    for note in document["notes"]:
        page.add(_wrapped(page, f"note: {note}", ""))
    if not document["ok"]:
        for money in document["money"]:
            _causes(page, money)
    if len(document["accounts"]) > 1:
        _accounts(page, document)
    _gaps(page, document)
    return page.text


def _verdict(document: Document) -> str:
    live, backtest, same = (document[f"trades_{name}"] for name in ("live", "backtest", "same"))
    if document["ok"]:
        return f"[bold green]{_counted(same, 'trade')} matched, no gaps[/]"
    cost = ", ".join(_cost(money) for money in document["money"] if money["gaps"])
    gaps = _counted(document["gaps"], "gap")
    of = f"{live:,}" if live == backtest else f"{live:,} live and {backtest:,} backtest"
    return f"[bold red]{same:,} of {of} trades are the same; {gaps} {cost}[/]"


def _cost(money: Document) -> str:
    difference = money["difference"]
    if abs(difference) < _NOTHING:
        return "cost nothing"
    return f"{'gained' if difference > 0 else 'cost'} {words.money(abs(difference))} {escape(money['currency'])}"


def _causes(page: Page, money: Document) -> None:
    table = page.table("cause", "gaps", escape(money["currency"]), right=("gaps", escape(money["currency"])))
    for row in money["causes"]:
        table.add_row(row["cause"], f"{row['gaps']:,}", _signed(row["effect"]))
    if abs(money["open_positions"]) >= _NOTHING:
        table.add_row("positions still open", "", _signed(money["open_positions"]))
    table.add_row("live less backtest", f"{money['gaps']:,}", _signed(money["difference"]), style="bold")
    live, backtest = (words.money(money[f"profit_{name}"]) for name in ("live", "backtest"))
    page.add("", table, f"net profit {live} live, {backtest} in the backtest")


def _accounts(page: Page, document: Document) -> None:
    numbers = ("live", "backtest", "same", "gaps", "difference")
    times = () if page.narrow else ("from", "to")
    table = page.table("account", "strategy", *times, *numbers, right=numbers)
    for row in document["accounts"]:
        when = [words.moment(row[name]) for name in times]
        counts = [f"{row[name]:,}" for name in ("trades_live", "trades_backtest", "trades_same", "gaps")]
        strategy = f"{row['strategy']} {row['timeframe']}"
        table.add_row(escape(row["account"]), escape(strategy), *when, *counts, _signed(row["difference"]))
    page.add("", table)


def _gaps(page: Page, document: Document) -> None:
    """Two lines each: what it was, and why."""
    shown = document["first_gaps"]
    if shown:
        page.add("")
    for gap in shown:
        effect = f"{_signed(gap['effect'])} {escape(gap['currency'])}"
        names = f"{escape(gap['account'])}  {escape(gap['symbol'])}  {gap['side'] or 'no order'}"
        page.add(f"[bold]{words.moment(gap['datetime'])}[/]  {names}  [bold]{gap['cause']}[/]  {effect}")
        page.add(_wrapped(page, gap["text"], "    "))
    if more := document["gaps"] - len(shown):
        page.add(f"and {_counted(more, 'more gap')}: --limit says how many are shown")


def _wrapped(page: Page, text: str, indent: str) -> str:
    return escape(textwrap.fill(text, page.width, initial_indent=indent, subsequent_indent="    "))


def _signed(value: float) -> str:
    if abs(value) < _NOTHING:
        return words.money(0.0)
    color = _COLORS[1 if value > 0 else -1]
    return f"[{color}]{'+' if value > 0 else ''}{words.money(value)}[/]"


def _counted(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"
