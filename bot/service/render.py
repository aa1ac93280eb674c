"""Documents as text: tables as wide as the terminal."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    # A backtest is shown in half a second: it does not wait for the ledger's modules.
    from bot.service.inspect import Document

PIPE_WIDTH = 200
NARROW = 100


class Page:
    """Collects what is to be shown. A pipe gets whole lines without colours, a narrow terminal what matters most."""

    def __init__(self, width: int | None = None) -> None:
        terminal = sys.stdout.isatty()
        if width is None:
            width = os.get_terminal_size(sys.stdout.fileno()).columns or 80 if terminal else PIPE_WIDTH
        colors = terminal and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        self.width, self.narrow = width, width < NARROW
        self._buffer = io.StringIO()
        self._console = Console(file=self._buffer, width=width, force_terminal=colors, no_color=not colors)

    def add(self, *parts: RenderableType) -> None:
        for part in parts:
            self._console.print(part, highlight=False, soft_wrap=isinstance(part, str))

    def table(self, *columns: str, right: Iterable[str] = ()) -> Table:
        """Columns that may be long (accounts, values, reasons) wrap; the others are never cut."""
        table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1 if self.narrow else 2, 0, 0))
        for name in columns:
            wraps = name in {"account", "strategy", "value", "reason", "file", "ledger", "replay"}
            justify = "right" if name in right else "left"
            table.add_column(name, justify=justify, no_wrap=not wraps, overflow="fold")  # type: ignore[arg-type]
        return table

    def time(self, row: Document) -> str:
        text: str = row["datetime"]
        return f"{text[5:10]} {text[11:19]}" if self.narrow else text

    @property
    def text(self) -> str:
        return self._buffer.getvalue()


def status(document: Document) -> str:
    page = Page()
    state = f"running (process {document['pid']})" if document["running"] else "not running"
    if "at" in document:
        state = f"as it was at {document['at']}"
    page.add(f"[bold]{escape(document['ledger'])}[/]  {state}")
    age = document["data_age_s"]
    stale = ", stale" if document["running"] and document["stale"] else ""
    since = "before" if "at" in document else "ago"
    when = f"last price {document['last_price_at']}  ({_duration(age)} {since}{stale})" if age is not None else ""
    if document.get("ticks_deleted"):
        when = "the ticks of that time were deleted (storage.keep_ticks_days), and with them the prices"
    page.add(when or "no prices yet")
    page.add(
        f"{document['polls']} polls, {document['ticks']} ticks, {document['signals']} signals,"
        f" {document['trades']} trades, {len(document['open_orders'])} open orders"
    )
    money = ("capital", "cash", "equity", "profit")
    accounts = page.table("account", "strategy", *money, right=money)
    held = ("quantity", "average", "price", "value ", "unrealised")
    positions = page.table("account", "symbol", *held, right=held)
    for account in document["accounts"]:
        name = escape(account["account"])
        accounts.add_row(name, escape(account["strategy"] or "-"), *[_money(account[key]) for key in money])
        for position in account["positions"]:
            prices = [_price(position[key]) for key in ("average_price", "price")]
            values = [_money(position[key]) for key in ("value", "unrealised_pnl")]
            positions.add_row(name, escape(position["symbol"]), _number(position["quantity"]), *prices, *values)
    page.add(accounts, positions if positions.row_count else "no open positions")
    return page.text


def trades(rows: Sequence[Document]) -> str:
    page = Page()
    numbers = ("quantity", "price", "fee", "pnl")
    table = page.table("id", "time", "account", "symbol", "side", *numbers, right=("id", *numbers))
    for row in rows:
        side = f"[{'green' if row['side'] == 'buy' else 'red'}]{row['side']}[/]"
        names = [escape(row["account"]), escape(row["symbol"]), side]
        amounts = [_number(row["quantity"]), _price(row["price"]), _money(row["fee"]), _money(row["pnl"])]
        table.add_row(str(row["id"]), page.time(row), *names, *amounts)
    page.add(table if rows else "no trades yet")
    return page.text


def signals(rows: Sequence[Document]) -> str:
    page = Page()
    quote = () if page.narrow else ("bid", "ask")
    columns = ("id", "time", "account", "symbol", "target", *quote, "verdict", "reason")
    table = page.table(*columns, right=("id", "target", *quote))
    for row in rows:
        names = [escape(row["account"]), escape(row["symbol"]), f"{row['target']:g}"]
        told = [row["verdict"], escape(row["reason"] or "")]
        table.add_row(str(row["id"]), page.time(row), *names, *[_price(row[key]) for key in quote], *told)
    page.add(table if rows else "no signals yet")
    return page.text


def why(document: Document) -> str:
    page = Page()
    page.add(f"[bold]{escape(document['symbol'])}[/] around {document['time']}")
    prices = ("bid", "ask", "last")
    quotes = page.table("time", *prices, right=prices)
    for quote in document["quotes"]:
        quotes.add_row(quote["datetime"], *[_price(quote[key]) for key in prices])
    none = "the ticks of that time were deleted" if document["ticks_deleted"] else "no prices on the tape around then"
    page.add(quotes if document["quotes"] else none)
    for account in document["accounts"]:
        page.add(f"[bold]{escape(account['account'])}[/]: {escape(account['explanation'])}")
        if following := account["next_signal"]:
            then = f"target {following['target']:g} at {following['datetime']}, {following['verdict']}"
            page.add(f"  next signal: {then}")
    return page.text


def exported(files: Sequence[Document]) -> str:
    page = Page()
    table = page.table("table", "rows", "bytes", "file", right=("rows", "bytes"))
    for file in files:
        table.add_row(file["table"], f"{file['rows']:,}", f"{file['bytes']:,}", escape(file["path"]))
    page.add(table)
    return page.text


def audit(document: Document) -> str:
    page = Page()
    if not document["ok"]:
        page.add(f"[bold red]not ok[/]: {escape(document['error'])}")
        if "difference" in document:
            page.add(_difference(page, document["difference"]))
        return page.text
    page.add(f"[bold]ok[/]  digest {document['digest']}")
    page.add(
        f"{document['polls']} polls, {document['ticks']} ticks, {document['signals']} signals, {document['orders']}"
        f" orders, {document['trades']} trades, {document['seals']} seals"
    )
    money = ("capital", "realised", "fees", "cash")
    accounts = page.table("account", *money, right=money)
    held = ("quantity", "cost")
    positions = page.table("account", "symbol", *held, right=held)
    for account in document["accounts"]:
        accounts.add_row(escape(account["account"]), *[_money(float(account[key])) for key in money])
    for position in document["positions"]:
        names = [escape(position[key]) for key in ("account", "symbol")]
        positions.add_row(*names, _number(float(position["quantity"])), _money(float(position["cost"])))
    page.add(accounts if accounts.row_count else "no accounts")
    page.add(positions if positions.row_count else "no open positions")
    return page.text


def verify(document: Document) -> str:
    page = Page()
    if document["ok"]:
        page.add(f"[bold]ok[/]  digest {document['digest']}")
        what = f"{document['polls']} polls from poll {document['first_poll']} on, {document['decisions']} decisions"
        page.add(f"replayed {what}: every row is the same")
        return page.text
    page.add(f"[bold red]not ok[/]: {escape(document['error'])}")
    if document["difference"]:
        page.add(_difference(page, document["difference"]))
    return page.text


def downloaded(files: Sequence[Document]) -> str:
    """A line a file, and below it what is not as one would have it."""
    page = Page()
    for file in files:
        what = f"{file['symbol']} {file['timeframe']}: {file['rows']:,} candles ({file['added']:,} new)"
        when = f", {file['from_datetime']} to {file['to_datetime']}" if file["rows"] else ""
        count = file["gaps"]
        gaps = f", {count} {'gap' if count == 1 else 'gaps'} ({file['candles_missing']:,} candles)" if count else ""
        page.add(escape(f"{what}{when}{gaps or (', no gaps' if file['rows'] else '')}  {file['path']}"))
        page.add(*[f"  the exchange has no candles from {first} to {end}" for first, end in file["first_gaps"]])
        if count > len(file["first_gaps"]):
            page.add(f"  and {count - len(file['first_gaps'])} more gaps")
        page.add(*[f"  never downloaded: {first} to {end}" for first, end in file["not_downloaded"]])
        page.add(*[f"  cannot be had: {first} to {end}" for first, end in file["not_to_be_had"]])
        page.add(*[f"  {escape(note)}" for note in file["notes"]])
        if file["problem"]:
            page.add(f"  [bold red]ended early[/]: {escape(file['problem'])}; run it again to go on")
    return page.text


def doctor(document: Document) -> str:
    page = Page()
    words = {"ok": "ok     ", "warning": "[yellow]warning[/]", "failed": "[bold red]FAILED[/] "}
    width = max(len(check["name"]) for check in document["checks"])
    for check in document["checks"]:
        page.add(f"{words[check['state']]}  {check['name']:<{width}}  {escape(check['text'])}")
    return page.text


def _difference(page: Page, difference: Document) -> RenderableType:
    """Both versions of a decision side by side; where they part is marked."""
    table = page.table("column", "ledger", "replay", "")
    stored, replayed = difference["stored"] or {}, difference["replayed"] or {}
    for column in stored or replayed:
        values = [_side(side, column) for side in (stored, replayed)]
        parts = values[0] != values[1]
        table.add_row(column, *[f"[bold]{value}[/]" if parts else value for value in values], "<" if parts else "")
    return table


def _side(side: Document, column: str) -> str:
    return escape(str(side[column])) if column in side and side[column] is not None else "-"


def summary(document: Document) -> str:
    """The last words of a run."""
    equity = ", ".join(f"{name} {value:,.2f}" for name, value in document["equity"].items())
    lines = {**document, "equity": equity}
    return "".join(f"{name:<8} {value}\n" for name, value in lines.items())


def settings(values: Document, origins: dict[str, str]) -> str:
    page = Page()
    table = page.table("setting", "value", "from")
    for key, value in _leaves(values, ""):
        # JSON, which for these is TOML too: what is shown can be written back.
        table.add_row(escape(key), escape(json.dumps(value, ensure_ascii=False)), escape(origins.get(key, "")))
    page.add(table)
    return page.text


def _leaves(values: Document, prefix: str) -> Iterable[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _money(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.2f}" if abs(value) >= 1 or value == 0 else f"{value:.6f}".rstrip("0")


def _price(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.2f}" if value >= 100 else _number(value)


def _number(value: float) -> str:
    """All that matters of it, without an exponent."""
    return f"{value:.10f}".rstrip("0").rstrip(".")


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} seconds"
