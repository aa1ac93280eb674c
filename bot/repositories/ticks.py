"""The tape: prices as they were seen, stored as whole numbers of each symbol's smallest step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from bot.bars import Lookback, bars_in, needed
from bot.domain import Block, FloatArray, IntArray
from bot.repositories.database import Database, Row
from bot.repositories.errors import PricesTooFine
from bot.repositories.insert import Insert

_INSERT = Insert("INSERT INTO ticks (poll, symbol_id, timestamp, bid, ask, last, warmup) VALUES", 7)
_INSERT_SYMBOLS = Insert("INSERT INTO symbols (symbol, decimals, first_tick) VALUES", 3)
_SELECT = "SELECT poll, symbol_id, timestamp, bid, ask, last, warmup, id FROM ticks"
_SELECT_THESE = f"{_SELECT} WHERE id IN (SELECT value FROM json_each(?))"  # noqa: S608 # nosec B608 # a constant
PRICE_DECIMALS_MAX = 15
ID = 7
# How many rows are read, or cells of a block made, at once; and of how many for each symbol bars are first looked for.
AT_ONCE = 65_536
FIRST_OF_A_SYMBOL = 2_048


class TickRepository:
    """Writes blocks to the tape and reads them back, bit for bit."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rows = database.buffer(_INSERT)
        self._scales: dict[str, tuple[int, int]] = {}  # symbol -> id on the tape, decimals

    async def register(self, decimals: Mapping[str, int]) -> None:
        """Gives every symbol an id on the tape, at no fewer than the given decimals."""
        finest = await self._finest()
        first = self._database.cursor.ticks + 1
        wanted = [
            (symbol, places, first) for symbol, places in decimals.items() if finest.get(symbol, (0, -1))[1] < places
        ]
        if wanted:
            # One commit for all of them: a start with hundreds of symbols must not wait for as many flushes.
            await self._database.insert(_INSERT_SYMBOLS, list(chain.from_iterable(wanted)))
            finest = await self._finest()
        self._scales.update({symbol: finest[symbol] for symbol in decimals})

    async def _finest(self) -> dict[str, tuple[int, int]]:
        """Symbol -> its newest id on the tape, which is the one with the most decimals, and these."""
        known = sorted((await self.symbols()).items(), key=lambda entry: entry[1][1])
        return {symbol: (number, places) for number, (symbol, places) in known}

    async def add(self, block: Block, first_poll: int) -> None:
        """Appends a block; its history carries the number of the poll that follows it."""
        prices = np.array((block.bid, block.ask, block.last))
        ids, units = await self._units(block.symbols, prices)
        symbols, count = block.last.shape
        column = np.arange(count)
        rows = np.empty((count, symbols, 7), np.int64)
        rows[:, :, 0] = (np.maximum(column - block.warmup, 0) + first_poll)[:, None]
        rows[:, :, 1] = ids
        rows[:, :, 2] = block.timestamp[:, None]
        rows[:, :, 3:6] = units.transpose(2, 1, 0)
        rows[:, :, 6] = (column < block.warmup)[:, None]
        seen = (block.last == block.last).T
        flat = rows.reshape(-1) if seen.all() else rows[seen].reshape(-1)
        self._rows.extend(flat.tolist())
        self._database.ticks.append(flat)
        self._database.cursor.ticks += len(flat) // 7

    async def _units(self, symbols: tuple[str, ...], prices: FloatArray) -> tuple[IntArray, IntArray]:
        """Ids, and prices (shape [3, S, N]) in whole steps, which get finer where a price has more decimals."""
        known = [self._scales.get(symbol, (0, 0)) for symbol in symbols]
        decimals = [places for _, places in known]
        while True:
            scales = np.array([10.0**places for places in decimals])[:, None]
            units = np.rint(prices * scales)
            exact = (units / scales == prices) | (prices != prices)
            if exact.all():
                break
            coarse = (~exact).any(axis=(0, 2)).tolist()
            decimals = [places + more for places, more in zip(decimals, coarse, strict=True)]
            if max(decimals) > PRICE_DECIMALS_MAX:
                raise PricesTooFine(
                    f"a price of {symbols[coarse.index(True)]} has more than {PRICE_DECIMALS_MAX} decimals"
                )
        # What SQLite holds as a whole number.
        if (np.abs(units) >= 2**63).any():
            raise PricesTooFine(f"the prices of {', '.join(symbols)} span too many decimals to be stored exactly")
        if decimals != [places if identity else -1 for identity, places in known]:
            await self.register(dict(zip(symbols, decimals, strict=True)))
            known = [self._scales[symbol] for symbol in symbols]
            if decimals != [places for _, places in known]:
                # The tape has had finer steps of one of them than this session knew.
                return await self._units(symbols, prices)
        return np.array([identity for identity, _ in known]), _whole(units)

    async def tail(
        self,
        symbols: tuple[str, ...],
        count: int,
        before_ms: int | None = None,
        lookbacks: Sequence[Lookback] = (),
    ) -> Block | None:
        """The last ``count`` ticks of each symbol (before a moment) and those that its last bars are made of, all as
        history; None if there are none."""
        parts = list(await self.lookback(symbols, count, lookbacks, before_ms))
        if not parts:
            return None
        whole = Block.joined([replace(part, warmup=0) for part in parts])
        return replace(whole, warmup=len(whole))

    async def lookback(
        self,
        symbols: tuple[str, ...],
        count: int,
        lookbacks: Sequence[Lookback] = (),
        before_ms: int | None = None,
    ) -> Iterator[Block]:
        """The same in blocks that follow each other, none larger than it has to be."""
        end = self._database.cursor.ticks + 1 if before_ms is None else await self.first_at_or_after(before_ms)
        known = await self.symbols()
        firsts: dict[int, int] = dict(await self._database.fetch("SELECT id, first_tick FROM symbols"))
        rows: dict[int, Row] = {}
        for symbol in symbols:
            ids = [number for number, (name, _) in known.items() if name == symbol]
            marks = ", ".join("?" * len(ids))
            oldest = min((firsts[number] for number in ids), default=end)
            query = f"{_SELECT} WHERE symbol_id IN ({marks}) AND id >= ? AND id < ? ORDER BY id DESC LIMIT ?"
            found = await self._database.fetch(query, (*ids, oldest, end, count))
            rows.update((row[ID], row) for row in found)
        if lookbacks and known:
            made_of = [number for made in await self._made_of(symbols, lookbacks, end) for number in made.tolist()]
            for start in range(0, len(made_of), AT_ONCE):
                part = made_of[start : start + AT_ONCE]
                rows.update((row[ID], row) for row in await self._database.fetch(_SELECT_THESE, (str(part),)))
        return _blocks(_matrix(sorted(rows.values(), key=itemgetter(ID))), symbols, known)

    async def _made_of(self, symbols: tuple[str, ...], lookbacks: Sequence[Lookback], end: int) -> list[IntArray]:
        """For each symbol the ticks before ``end`` that its last bars can be made of. Read backwards in growing parts,
        in bounded memory, until every symbol has them all."""
        known = await self.symbols()
        firsts: dict[int, int] = dict(await self._database.fetch("SELECT id, first_tick FROM symbols"))
        place_of, scale_of = np.zeros(max(known) + 1, np.int64), np.ones(max(known) + 1)
        ids_of: list[list[int]] = [[] for _ in symbols]
        for number, (symbol, decimals) in known.items():
            if symbol in symbols:
                place_of[number], scale_of[number] = symbols.index(symbol), 10.0**decimals
                ids_of[symbols.index(symbol)].append(number)
        made = [_Made.empty() for _ in symbols]
        first_of = {place: min(firsts[number] for number in ids) for place, ids in enumerate(ids_of) if ids}
        limit = FIRST_OF_A_SYMBOL * len(symbols)
        while first_of := {place: first for place, first in first_of.items() if first < end}:
            ids = [number for place in first_of for number in ids_of[place]]
            query = (
                "SELECT symbol_id, timestamp, last, id FROM ticks WHERE id >= ? AND id < ? AND symbol_id IN"  # noqa: S608 # nosec B608 # constants, and as many ? as there are values
                f" ({', '.join('?' * len(ids))}) ORDER BY id DESC LIMIT ?"
            )
            limit = min(limit, AT_ONCE)
            found = await self._database.fetch(query, (min(first_of.values()), end, *ids, limit))
            limit *= 2
            if not found:
                break
            rows = np.fromiter(chain.from_iterable(found), np.int64, len(found) * 4).reshape(-1, 4)[::-1]
            end = int(rows[0, 3])
            rows = rows[np.argsort(place_of[rows[:, 0]], kind="stable")]
            places = place_of[rows[:, 0]]
            for place in list(first_of):
                mine = rows[slice(*np.searchsorted(places, (place, place + 1)))]
                prices = mine[:, 2] / scale_of[mine[:, 0]]
                made[place] = made[place].behind(mine[:, 3], mine[:, 1], prices, lookbacks)
                if bars_in(made[place].times, lookbacks):
                    del first_of[place]
        return [each.ids for each in made]

    async def last_timestamp(self) -> int:
        """The time of the newest tick, 0 if there is none."""
        rows = await self.read(self._database.cursor.ticks - 1, 1)
        return int(rows[0, 2]) if len(rows) else 0

    async def last_price(self, symbol: str) -> float | None:
        """The newest price of a symbol on the tape."""
        tail = await self.tail((symbol,), 1)
        return None if tail is None else float(tail.last[0, -1])

    async def symbols(self) -> dict[int, tuple[str, int]]:
        """Id on the tape -> symbol and decimals."""
        rows = await self._database.fetch("SELECT id, symbol, decimals FROM symbols")
        return {row[0]: (row[1], row[2]) for row in rows}

    async def last_prices(self, until: int = 2**63 - 1) -> dict[str, float]:
        """The last recorded price of each symbol that is among the latest on the tape, or among those up to a tick."""
        known = await self.symbols()
        query = f"{_SELECT} WHERE id <= ? ORDER BY id DESC LIMIT ?"
        newest = {row[1]: row[5] for row in reversed(await self._database.fetch(query, (until, 8 * len(known))))}
        return {known[number][0]: units / 10.0 ** known[number][1] for number, units in sorted(newest.items())}

    async def read(self, after: int, limit: int, until: int = 2**63 - 1) -> IntArray:
        """Up to ``limit`` rows after one tick and up to another, shape [rows, 8]: the table's columns, the id last."""
        query = f"{_SELECT} WHERE id > ? AND id <= ? ORDER BY id LIMIT ?"
        return _matrix(await self._database.fetch(query, (after, until, limit)))

    async def first_poll_after(self, poll: int) -> int:
        """The first tick of a later poll than this one."""
        return await self._search("poll", poll + 1)

    async def around(self, symbol: str, timestamp: int, each_side: int = 3) -> list[Row]:
        """``timestamp, bid, ask, last`` of a symbol's quotes nearest to a moment, oldest first."""
        tick = await self.first_at_or_after(timestamp)
        query = "SELECT timestamp, bid, ask, last FROM quotes WHERE symbol = ? AND id {} ? ORDER BY id {} LIMIT ?"
        before = await self._database.fetch(query.format("<", "DESC"), (symbol, tick, each_side))
        after = await self._database.fetch(query.format(">=", "ASC"), (symbol, tick, each_side + 1))
        return before[::-1] + after

    async def first_at_or_after(self, timestamp: int) -> int:
        """The first tick that is not before a moment."""
        return await self._search("timestamp", timestamp)

    async def _search(self, column: str, value: int) -> int:
        # The tape is in order of time, so a search by halves needs no index (which every tick would pay for).
        low, high = 1, self._database.cursor.ticks + 1
        # Retention leaves holes: what is not there any more is older than what is.
        query = f"SELECT id, {column} FROM ticks WHERE id >= ? ORDER BY id LIMIT 1"  # noqa: S608 # nosec B608 # the callers' two constants
        while low < high:
            middle = (low + high) // 2
            found = await self._database.fetch(query, (middle,))
            if found and found[0][1] < value:
                low = int(found[0][0]) + 1
            else:
                high = middle
        return low


def beats_of(rows: IntArray) -> IntArray:
    """The number of its beat, from 0, for each row of the tape: a beat's ticks share their time."""
    times = rows[:, 2]
    return np.concatenate(([0], np.cumsum(times[1:] != times[:-1])))


def block_of(rows: IntArray, symbols: tuple[str, ...], known: Mapping[int, tuple[str, int]]) -> Block:
    """A block from rows of the tape, history first, for those symbols that are wanted."""
    beat, ids = beats_of(rows), rows[:, 1]
    place = {symbol: row for row, symbol in enumerate(symbols)}
    row_of, scale_of = np.full(max(known) + 1, -1), np.ones(max(known) + 1)
    for number, (symbol, decimals) in known.items():
        row_of[number], scale_of[number] = place.get(symbol, -1), 10.0**decimals
    count = int(beat[-1]) + 1
    wanted = np.nonzero(row_of[ids] >= 0)[0]
    cells = (row_of[ids[wanted]], beat[wanted])
    prices = np.full((3, len(symbols), count), np.nan)
    for array, column in zip(prices, rows.T[3:6], strict=True):
        array[cells] = column[wanted] / scale_of[ids[wanted]]
    times = np.empty(count, np.int64)
    times[beat] = rows[:, 2]
    warmup = int(beat[rows[:, 6] == 1].max(initial=-1)) + 1
    return Block(symbols, times, prices[0], prices[1], prices[2], warmup)


class _Made(NamedTuple):
    """Those ticks of one symbol that its bars are made of, oldest first."""

    ids: IntArray
    times: IntArray
    prices: FloatArray

    @classmethod
    def empty(cls) -> _Made:
        return cls(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))

    def behind(self, ids: IntArray, times: IntArray, prices: FloatArray, lookbacks: Sequence[Lookback]) -> _Made:
        """With older ticks before them. One bar more is kept than is wanted: the oldest may not be whole yet."""
        ids, times = np.concatenate((ids, self.ids)), np.concatenate((times, self.times))
        prices = np.concatenate((prices, self.prices))
        kept = needed(times, prices, 0, [(timeframe, count + 1) for timeframe, count in lookbacks])
        return _Made(ids[kept], times[kept], prices[kept])


def _blocks(rows: IntArray, symbols: tuple[str, ...], known: Mapping[int, tuple[str, int]]) -> Iterator[Block]:
    """Rows of the tape as blocks of history."""
    beats = beats_of(rows) if len(rows) else rows[:, 0]
    columns = max(1, AT_ONCE // len(symbols))
    for first in range(0, int(beats[-1]) + 1 if len(beats) else 0, columns):
        start, end = np.searchsorted(beats, (first, first + columns))
        part = block_of(rows[start:end], symbols, known)
        yield replace(part, warmup=len(part))


def _whole(units: FloatArray) -> IntArray:
    units[units != units] = 0
    return units.astype(np.int64)


def _matrix(rows: list[Row]) -> IntArray:
    return np.fromiter(chain.from_iterable(rows), np.int64, len(rows) * 8).reshape(-1, 8)
