"""The tape of a recorded ledger, by symbol. Read-only: a daemon that writes to it meanwhile does not notice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import numpy as np

from bot.backtest.data.errors import EXIT_USAGE, DataError
from bot.backtest.data.marketdata import TickSeries
from bot.backtest.data.rows import BoolArray
from bot.compose import markets_seen
from bot.domain import FloatArray, IntArray, Market
from bot.repositories import Database, LedgerError, TickRepository, open_database, seals
from bot.repositories.ticks import AT_ONCE, ID
from bot.repositories.worker import InlineWorker

# Of a market that no run has recorded: what a price of the tape may be at most.
_SMALLEST_STEP = Decimal("1e-8")
_SYMBOL, _TIME, _BID, _ASK, _LAST, _WARMUP = range(1, 7)


async def read_ticks(path: Path, symbols: Sequence[str], start_ms: int, end_ms: int) -> dict[str, TickSeries]:
    """Each symbol's ticks before ``end_ms``, of all symbols of the tape where none is named.

    Raises LedgerError, and DataError for a symbol that is not on the tape or has nothing to decide on in the range.
    """
    async with open_database(path, read_only=True, worker=InlineWorker) as source, source.snapshot():
        known = (await TickRepository(source).symbols()).values()
        wanted = _wanted(path, symbols, list(dict.fromkeys(symbol for symbol, _ in known)))
        found = await ticks_of(source, wanted)
    for symbol, whole in found.items():
        series = found[symbol] = whole.before(end_ms)
        series.history[series.timestamp < start_ms] = True
        if series.history.all():
            raise DataError(f"--timerange: {path} has no prices of {symbol} in it that were traded on", EXIT_USAGE)
    return found


async def ticks_of(source: Database, symbols: Sequence[str]) -> dict[str, TickSeries]:
    """All ticks of these symbols that a ledger has, of a symbol that it does not know none. Raises LedgerError."""
    tape = TickRepository(source)
    try:
        # What retention has left of the tape before this tick is full of holes.
        whole_after = (await source.run(seals.base)).cursor.ticks
        columns = await _read(tape, symbols, await tape.symbols(), whole_after)
        markets = await markets_seen(source)
    except (ArithmeticError, LookupError, TypeError, ValueError) as damage:
        # A damaged row may hold anything.
        raise LedgerError(f"{source.path} is damaged: {damage!r}") from damage
    return {
        symbol: each.series(symbol, markets.get(symbol) or Market(symbol, _SMALLEST_STEP))
        for symbol, each in zip(symbols, columns, strict=True)
    }


def _wanted(path: Path, symbols: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    if not known:
        raise DataError(f"{path} has no prices", EXIT_USAGE)
    if missing := [symbol for symbol in symbols if symbol not in known]:
        raise DataError(f"{path} has no prices of {', '.join(missing)}; it has {', '.join(known)}", EXIT_USAGE)
    return tuple(symbols) or tuple(known)


async def _read(
    tape: TickRepository, wanted: Sequence[str], known: Mapping[int, tuple[str, int]], whole_after: int
) -> list[_Ticks]:
    """The ticks of each wanted symbol."""
    columns = [_Ticks() for _ in wanted]
    place_of, scale_of = np.full(max(known, default=0) + 1, len(wanted)), np.ones(max(known, default=0) + 1)
    for number, (symbol, decimals) in known.items():
        scale_of[number] = 10.0**decimals
        if symbol in wanted:
            place_of[number] = wanted.index(symbol)
    after = 0
    while len(rows := await tape.read(after, AT_ONCE)):
        after = int(rows[-1, ID])
        places = place_of[rows[:, _SYMBOL]]
        order = np.argsort(places, kind="stable")
        edges = np.searchsorted(places[order], np.arange(len(wanted) + 1))
        for place, each in enumerate(columns):
            mine = rows[order[edges[place] : edges[place + 1]]]
            each.add(mine, scale_of[mine[:, _SYMBOL]], whole_after)
    return columns


@dataclass(slots=True)
class _Ticks:
    """One symbol's ticks, part by part."""

    times: list[IntArray] = field(default_factory=list)
    prices: list[FloatArray] = field(default_factory=list)
    history: list[BoolArray] = field(default_factory=list)

    def add(self, rows: IntArray, scales: FloatArray, whole_after: int) -> None:
        self.times.append(rows[:, _TIME].copy())
        self.prices.append(np.stack([rows[:, column] / scales for column in (_BID, _ASK, _LAST)]))
        self.history.append((rows[:, _WARMUP] == 1) | (rows[:, ID] <= whole_after))

    def series(self, symbol: str, market: Market) -> TickSeries:
        times = np.concatenate([np.zeros(0, np.int64), *self.times])
        bid, ask, last = np.concatenate([np.zeros((3, 0)), *self.prices], axis=1)
        history = np.concatenate([np.zeros(0, np.bool_), *self.history])
        return TickSeries(symbol, market, times, bid, ask, last, history)
