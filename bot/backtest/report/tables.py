"""What of the page does not move: the header, the figures and the tables, as HTML. Every text is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from bot.backtest.report import layout
from bot.backtest.report.document import Document
from bot.backtest.report.layout import Cell, Column, Rows, Sheet
from bot.backtest.report.months import NAMES
from bot.backtest.report.words import NONE, percent

GAIN = {1: "up", -1: "down"}
# From which return on, up or down, a month has the next shade.
SHADES = (0.0, 0.02, 0.05, 0.1)
TRADES = (
    *(("number", "#"), ("symbol", "symbol"), ("side", "side"), ("opened", "opened"), ("closed", "closed")),
    *(("duration", "time"), ("quantity", "quantity"), ("entry", "entry"), ("exit", "exit"), ("fees", "fees")),
    *(("profit", "profit"), ("ratio", "profit %"), ("reason", "exit reason")),
)


def body(document: Document) -> str:
    strategies = document["strategies"]
    several = len(strategies) > 1
    parts = [_header(document)]
    if several:
        parts.append(_comparison(layout.comparison(document)))
        parts.append(_bar(_select("strategy", "strategy", [strategy["account"] for strategy in strategies])))
    parts += [_of(place, _names(strategy) + _tiles(strategy)) for place, strategy in enumerate(strategies)]
    parts.append(_charts(document))
    parts += [_of(place, _tables(document, strategy)) for place, strategy in enumerate(strategies)]
    parts.append(_trades(document))
    return "\n".join(parts)


def _of(place: int, inside: str) -> str:
    """Shown while its strategy is chosen; all of them where scripts do not run."""
    return f'<section data-strategy="{place}">{inside}</section>'


def _header(document: Document) -> str:
    none = "<noscript><p>The charts and the list of trades need JavaScript, which is switched off here.</p></noscript>"
    facts = _list("facts", layout.facts(document))
    return f"<header><h1>{escape(layout.title(document))}</h1>{facts}{none}</header>"


def _names(strategy: Document) -> str:
    about = f"{strategy['timeframe']}, {strategy['sizing']}"
    return f'<h2>{escape(layout.named(strategy))}</h2><p class="muted">{escape(about)}</p>'


def _tiles(strategy: Document) -> str:
    return _list("tiles", layout.headline(strategy))


def _list(kind: str, rows: Rows) -> str:
    inside = "".join(f"<div><dt>{escape(name)}</dt>{_cell(cell, 'dd')}</div>" for name, cell in rows)
    return f'<dl class="{kind}">{inside}</dl>'


def _tables(document: Document, strategy: Document) -> str:
    groups = "".join(
        f"<div><h3>{title}</h3>{_list('summary', rows)}</div>" for title, rows in layout.summary(document, strategy)
    )
    parts = [f'<h2>Summary</h2><div class="groups">{groups}</div>', _months(strategy)]
    parts += [f"<h2>{sheet.title}</h2>{_table(sheet)}" for sheet in layout.sheets(document, strategy)]
    return "\n".join(parts)


def _table(sheet: Sheet) -> str:
    head = "".join(f'<th scope="col"{_class(_kind(column))}>{escape(column.name)}</th>' for column in sheet.columns)
    last = len(sheet.rows) if sheet.total else 0
    rows = "".join(
        f"<tr{_class('total' if number == last else '')}>{_row(sheet.columns, row)}</tr>"
        for number, row in enumerate(sheet.rows, start=1)
    )
    return _wide(f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>")


def _comparison(sheet: Sheet) -> str:
    """The name of a strategy is a button that chooses it."""
    head = "".join(f'<th scope="col"{_class(_kind(column))}>{escape(column.name)}</th>' for column in sheet.columns)
    rows = "".join(
        f'<tr data-choose="{place}"><td class="name"><button>{escape(row[0].text)}</button></td>'
        f"{_row(sheet.columns[1:], row[1:])}</tr>"
        for place, row in enumerate(sheet.rows)
    )
    table = _wide(f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>")
    return f"<h2>{sheet.title}</h2>{table}"


def _row(columns: Sequence[Column], row: Sequence[Cell]) -> str:
    return "".join(_cell(cell, "td", _kind(column)) for column, cell in zip(columns, row, strict=True))


def _kind(column: Column) -> str:
    return "name" if column.wraps else "left" if column.left else ""


def _months(strategy: Document) -> str:
    """Years down, months across, the darker the more was won or lost."""
    head = "".join(f'<th scope="col">{name}</th>' for name in ("year", *NAMES, "total"))
    rows = "".join(
        f'<tr><th scope="row">{year}</th>{"".join(map(_shaded, months))}<td class="total">{percent(total)}</td></tr>'
        for year, months, total in layout.months(strategy)
    )
    table = f'<table class="months"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    return f"<h2>Monthly returns</h2>{_wide(table)}"


def _shaded(value: float | None) -> str:
    if not value:
        return f"<td>{percent(value) if value is not None else ''}</td>"
    shade = sum(abs(value) > limit for limit in SHADES)
    return f'<td class="{"u" if value > 0 else "d"}{shade}">{percent(value)}</td>'


def _charts(document: Document) -> str:
    symbols = document["symbols"]
    buttons = (("closer", "+"), ("wider", "&minus;"), ("earlier", "&lsaquo;"), ("later", "&rsaquo;"), ("whole", "all"))
    zoom = "".join(f'<button id="{name}" title="{name}" aria-label="{name}">{sign}</button>' for name, sign in buttons)
    chooser = _select("symbol", "price of", symbols) if len(symbols) > 1 else ""
    mouse = '<span class="mouse">Drag over a chart to look closer, double-click to see all of it.</span>'
    bar = _bar(f'{chooser}<p class="note">{mouse} Times are UTC.</p><span class="push">{zoom}</span>')
    others = '<small class="key other">other strategies</small>' if len(document["strategies"]) > 1 else ""
    keys = f'<small class="key mine">equity</small><small class="key hold">buy and hold</small>{others}'
    marks = '<small><span class="up">▲</span> buy <span class="down">▼</span> sell</small>'
    return (
        f"<h2>Charts</h2>{bar}"
        f"{_figure('price', '', marks)}"
        '<p class="note"><span id="thinned"></span> <span id="marked"></span></p>'
        f"{_figure('equity', 'Equity', keys)}{_figure('drawdown', 'Drawdown', '')}"
    )


def _figure(name: str, title: str, keys: str) -> str:
    return (
        f'<figure id="{name}" class="{name}"><figcaption><b id="{name}-name">{title}</b>{keys}'
        f'<span class="told"></span></figcaption><canvas role="img" aria-label="{name} over time"></canvas>'
        '<div class="tip" hidden></div></figure>'
    )


def _trades(document: Document) -> str:
    symbols = document["symbols"]
    head = "".join(
        f'<th scope="col" data-column="{name}"{_class("left" if name in {"symbol", "side", "reason"} else "")}>'
        f"<button>{told}</button></th>"
        for name, told in TRADES
    )
    chooser = _select("trades-of", "symbol", symbols, "all") if len(symbols) > 1 else ""
    turns = (("first", "&laquo;"), ("back", "&lsaquo;"), ("next", "&rsaquo;"), ("last", "&raquo;"))
    pager = "".join(f'<button id="{name}" aria-label="{name} page">{sign}</button>' for name, sign in turns)
    bar = _bar(f'{chooser}{pager}<span id="page"></span>')
    return f'<h2>Trades</h2><p class="note" id="left-out"></p>{bar}' + _wide(
        f'<table id="trades"><thead><tr>{head}</tr></thead><tbody></tbody></table>'
    )


def _select(name: str, label: str, options: Iterable[str], every: str = "") -> str:
    first = f'<option value="-1">{every}</option>' if every else ""
    rest = "".join(f'<option value="{place}">{escape(option)}</option>' for place, option in enumerate(options))
    return f'<label>{label} <select id="{name}" autocomplete="off">{first}{rest}</select></label>'


def _bar(inside: str) -> str:
    return f'<div class="bar">{inside}</div>'


def _wide(table: str) -> str:
    return f'<div class="wide">{table}</div>'


def _cell(cell: Cell, tag: str, kind: str = "") -> str:
    return f"<{tag}{_class(f'{kind} {GAIN.get(cell.sign, str())}'.strip())}>{escape(cell.text or NONE)}</{tag}>"


def _class(names: str) -> str:
    return f' class="{names}"' if names else ""
