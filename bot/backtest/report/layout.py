"""The tables of a report, in cells of text: what stands where, the same on a terminal and on a page."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from bot.backtest.report.document import Document
from bot.backtest.report.words import amount, count, duration, moment, money, number, percent, price


class Cell(NamedTuple):
    """``sign`` is that of a gain or a loss, 0 for anything else."""

    text: str
    sign: int = 0


class Column(NamedTuple):
    """``spare`` ones are left out where there is no room, the rightmost first; ``wraps``: it holds names."""

    name: str
    left: bool = False
    spare: bool = False
    wraps: bool = False


class Sheet(NamedTuple):
    """``total``: the last row is the sum of the others."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    total: bool = False


Rows = list[tuple[str, Cell]]
NAMED_MAX = 3
FILLS = {"next_open": "at the next open", "close": "at the close"}


def sheets(document: Document, strategy: Document) -> list[Sheet]:
    """All tables of one strategy but its summary."""
    currency = document["currency"]
    found = [
        Sheet("Symbols", _counted("symbol", currency), _counted_rows([*strategy["symbols"], strategy["total"]]), True)
    ]
    if strategy["exit_reasons"]:
        columns = _counted("exit reason", currency)
        found.append(Sheet("Exit reasons", columns, _counted_rows(strategy["exit_reasons"])))
    if strategy["open_trades"]:
        found.append(Sheet("Still open at the end", _open_columns(currency), _open_rows(strategy["open_trades"])))
    return found


def _counted(key: str, currency: str) -> list[Column]:
    return [
        Column(key, left=True, wraps=True),
        Column("trades"),
        Column("avg %"),
        Column(f"profit {currency}"),
        Column("profit %", spare=True),
        Column("avg time"),
        Column("win"),
        Column("draw"),
        Column("loss"),
        Column("win %", spare=True),
    ]


def _counted_rows(rows: Sequence[Document]) -> list[list[Cell]]:
    return [
        [
            Cell(row["name"]),
            Cell(count(row["trades"])),
            _signed(row["average_profit_ratio"], percent),
            _signed(row["total_profit"], money),
            _signed(row["total_profit_ratio"], percent),
            Cell(duration(row["average_duration_ms"])),
            *(Cell(count(row[kind])) for kind in ("wins", "draws", "losses")),
            Cell(percent(row["wins"] / row["trades"] if row["trades"] else None)),
        ]
        for row in rows
    ]


def _open_columns(currency: str) -> list[Column]:
    return [
        Column("symbol", left=True, wraps=True),
        Column("side", left=True, spare=True),
        Column("opened", left=True),
        Column("quantity"),
        Column("entry"),
        Column("last price", spare=True),
        Column(f"profit {currency}"),
        Column("profit %", spare=True),
    ]


def _open_rows(trades: Sequence[Document]) -> list[list[Cell]]:
    return [
        [
            Cell(trade["symbol"]),
            Cell(trade["side"]),
            Cell(moment(trade["opened"])[:16]),
            Cell(amount(abs(trade["held"]))),
            Cell(price(trade["entry_price"])),
            Cell(price(trade["exit_price"])),
            _signed(trade["profit"], money),
            _signed(trade["profit_ratio"], percent),
        ]
        for trade in trades
    ]


def comparison(document: Document) -> Sheet:
    """A row for each strategy."""
    columns = [
        Column("account", left=True, wraps=True),
        Column("trades"),
        Column(f"profit {document['currency']}"),
        Column("profit %"),
        Column("CAGR", spare=True),
        Column("drawdown"),
        Column("Sharpe"),
        Column("Sortino", spare=True),
        Column("Calmar", spare=True),
        Column("profit factor", spare=True),
        Column("win %"),
        Column("avg time", spare=True),
    ]
    return Sheet("Strategies", columns, [_compared(strategy) for strategy in document["strategies"]])


def _compared(strategy: Document) -> list[Cell]:
    metrics = strategy["metrics"]
    return [
        Cell(strategy["account"]),
        Cell(count(metrics["trades"])),
        _signed(metrics["total_profit"], money),
        _signed(metrics["total_profit_ratio"], percent),
        _signed(metrics["cagr"], percent),
        Cell(percent(_at(metrics, "drawdown", "ratio"))),
        *(Cell(number(metrics[name])) for name in ("sharpe", "sortino", "calmar", "profit_factor")),
        Cell(percent(metrics["win_rate"])),
        Cell(duration(metrics["average_duration_ms"])),
    ]


def months(strategy: Document) -> list[tuple[str, list[float | None], float | None]]:
    return [(str(row["year"]), row["months"], row["total"]) for row in strategy["monthly_returns"]]


class Line(NamedTuple):
    """A figure of the summary: its label, where it is in the metrics, how it is told, and whether it has a sign."""

    label: str
    path: tuple[str, ...]
    told: Callable[[Any], str]
    gain: bool = False


def _line(label: str, path: str, told: Callable[[Any], str], *, gain: bool = False) -> Line:
    return Line(label, tuple(path.split(".")), told, gain)


def _rejected(signals: Mapping[str, int]) -> str:
    reasons = ", ".join(f"{name} {count(number)}" for name, number in signals.items())
    return f"{count(sum(signals.values()))} ({reasons})" if reasons else "0"


SUMMARY: dict[str, tuple[Line, ...]] = {
    "Balance": (
        _line("starting balance", "starting_balance", money),
        _line("final balance", "final_balance", money),
        _line("total profit", "total_profit", money, gain=True),
        _line("total profit %", "total_profit_ratio", percent, gain=True),
        _line("CAGR", "cagr", percent, gain=True),
        _line("buy and hold", "buy_and_hold", percent, gain=True),
        _line("fees paid", "fees_paid", money),
        _line("volume", "volume", money),
        _line("open trades", "open_trades", count),
        _line("open profit", "open_profit", money, gain=True),
        _line("rejected signals", "rejected_signals", _rejected),
    ),
    "Trades": (
        _line("trades", "trades", count),
        _line("trades per day", "trades_per_day", number),
        _line("win rate", "win_rate", percent),
        _line("average trade", "average_profit_ratio", percent, gain=True),
        _line("median trade", "median_profit_ratio", percent, gain=True),
        _line("best trade", "best.profit_ratio", percent, gain=True),
        _line("worst trade", "worst.profit_ratio", percent, gain=True),
        _line("average time", "average_duration_ms", duration),
        _line("time of winners", "average_winner_duration_ms", duration),
        _line("time of losers", "average_loser_duration_ms", duration),
        _line("longest winning run", "longest_winning_run", count),
        _line("longest losing run", "longest_losing_run", count),
        _line("exposure", "exposure", percent),
    ),
    "Risk": (
        _line("Sharpe", "sharpe", number),
        _line("Sortino", "sortino", number),
        _line("Calmar", "calmar", number),
        _line("SQN", "sqn", number),
        _line("profit factor", "profit_factor", number),
        _line("expectancy", "expectancy", money, gain=True),
        _line("expectancy ratio", "expectancy_ratio", number, gain=True),
        _line("max drawdown %", "drawdown.ratio", percent),
        _line("max drawdown", "drawdown_absolute.absolute", money),
        _line("drawdown start", "drawdown.peak", moment),
        _line("drawdown end", "drawdown.trough", moment),
        _line("recovered", "drawdown.recovered", moment),
        _line("longest under water", "longest_under_water_ms", duration),
    ),
}


def summary(document: Document, strategy: Document) -> list[tuple[str, Rows]]:
    """Name and value of every figure, in groups. All times are UTC."""
    metrics, currency = strategy["metrics"], document["currency"]
    groups = []
    for title, lines in SUMMARY.items():
        rows = []
        for line in lines:
            value = _at(metrics, *line.path)
            unit = f" {currency}" if line.told is money and value is not None else ""
            cell = _signed(value, line.told) if line.gain else Cell(line.told(value))
            rows.append((line.label, Cell(cell.text + unit, cell.sign)))
        groups.append((title, rows))
    return groups


def facts(document: Document) -> Rows:
    """What was run, for all strategies alike."""
    fee, slippage = document["fee_rate"], document["slippage_bps"]
    told = [
        ("data", ", ".join(document["data"])),
        ("symbols", ", ".join(document["symbols"])),
        ("ticks", count(document["bars"]))
        if document["timeframe"] == "tick"
        else ("candles", f"{document['bars']:,} of {document['timeframe']}"),
        ("from", f"{moment(document['start'])} UTC"),
        ("to", f"{moment(document['end'])} UTC"),
        ("fills", FILLS[document["fill"]]),
        ("fee", "each market's own" if fee is None else f"{amount(fee * 100)}%"),
        *([("slippage", f"{amount(slippage)} bps")] if slippage else []),
        ("engine", document["engine"]),
        ("version", document["version"]),
    ]
    return [(name, Cell(text)) for name, text in told]


def named(strategy: Document) -> str:
    """A strategy with its parameters: sma_cross fast=10 slow=30."""
    params = [
        f"{key}={json.dumps(value, ensure_ascii=False, default=str)}" for key, value in strategy["params"].items()
    ]
    return " ".join((strategy["strategy"], *params))


def title(document: Document) -> str:
    names = [strategy["account"] for strategy in document["strategies"]]
    return f"Backtest of {', '.join(names) if len(names) <= NAMED_MAX else f'{len(names)} strategies'}"


def headline(strategy: Document) -> Rows:
    """The figures that are looked at first."""
    metrics = strategy["metrics"]
    return [
        ("total profit", _signed(metrics["total_profit_ratio"], percent)),
        ("buy and hold", _signed(metrics["buy_and_hold"], percent)),
        ("CAGR", _signed(metrics["cagr"], percent)),
        ("max drawdown", Cell(percent(_at(metrics, "drawdown", "ratio")))),
        ("Sharpe", Cell(number(metrics["sharpe"]))),
        ("profit factor", Cell(number(metrics["profit_factor"]))),
        ("win rate", Cell(percent(metrics["win_rate"]))),
        ("trades", Cell(count(metrics["trades"]))),
    ]


def _at(values: Document, *path: str) -> Any:
    """A value inside others; None where one on the way to it is."""
    found: Any = values
    for name in path:
        found = None if found is None else found[name]
    return found


def _signed(value: float | None, told: Callable[[float | None], str]) -> Cell:
    return Cell(told(value), 0 if not value else 1 if value > 0 else -1)
