"""A backtest on a terminal: tables as wide as it is."""

from __future__ import annotations

from itertools import zip_longest

from rich.cells import cell_len
from rich.markup import escape
from rich.table import Table

from bot.backtest.report import layout
from bot.backtest.report.document import Document
from bot.backtest.report.layout import Cell, Rows, Sheet
from bot.service.render import Page

COLORS = {1: "green", -1: "red"}
GAP = ("", Cell(""))


def text(document: Document, width: int | None = None) -> str:
    """The tables of each strategy and its summary, and below them all strategies side by side. The width is that of the
    terminal, unless it is given."""
    page = Page(width)
    several = len(document["strategies"]) > 1
    page.add(_pairs([layout.facts(document)]))
    for strategy in document["strategies"]:
        sizing = escape(f"{strategy['timeframe']}, {strategy['sizing']}")
        page.add("", f"[bold]{escape(layout.named(strategy))}[/]  {sizing}")
        for sheet in layout.sheets(document, strategy):
            page.add("", f"[bold]{sheet.title}[/]", _table(page, sheet))
        groups = [rows for _, rows in layout.summary(document, strategy)]
        below = [[line for rows in groups for line in (*rows, GAP)][:-1]]
        page.add("", "[bold]Summary[/]", _pairs(below if page.narrow else groups))
    if several:
        sheet = layout.comparison(document)
        page.add("", f"[bold]{sheet.title}[/]", _table(page, sheet))
    return page.text


def _table(page: Page, sheet: Sheet) -> Table:
    gap = 1 if page.narrow else 2
    chosen = _chosen(sheet, page.width, gap)
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, gap, 0, 0))
    for place in chosen:
        column = sheet.columns[place]
        table.add_column(escape(column.name), justify="left" if column.left else "right", overflow="fold")
    for number, row in enumerate(sheet.rows, start=1):
        last = sheet.total and number == len(sheet.rows)
        table.add_row(*[_colored(row[place]) for place in chosen], style="bold" if last else "")
    return table


def _chosen(sheet: Sheet, width: int, gap: int) -> list[int]:
    """The columns that there is room for."""
    rows = [[column.name for column in sheet.columns], *([cell.text for cell in row] for row in sheet.rows)]
    widths = [max(map(cell_len, texts)) + gap for texts in zip(*rows, strict=True)]
    chosen = list(range(len(widths)))
    for place in reversed(range(len(widths))):
        if sheet.columns[place].spare and sum(widths[left] for left in chosen) - gap > width:
            chosen.remove(place)
    return chosen


def _pairs(groups: list[Rows]) -> Table:
    """Names and values, each group beside the one before it."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for _ in groups:
        table.add_column(no_wrap=True)
        table.add_column(justify="left" if len(groups) == 1 else "right", overflow="fold")
    for row in zip_longest(*groups, fillvalue=GAP):
        table.add_row(*[part for name, cell in row for part in (name, _colored(cell))])
    return table


def _colored(cell: Cell) -> str:
    color = COLORS.get(cell.sign)
    return f"[{color}]{escape(cell.text)}[/]" if color else escape(cell.text)
