"""A market that needs no network: prices are a function of (seed, symbol, volatility, beat)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType

import numpy as np

from bot.domain import Block, FloatArray, IntArray, Market
from bot.feeds.walk import SEGMENT, Walk
from bot.ports import Window

_BASE_PRICES = {"BTC": 50_000, "ETH": 3_000}
_AMOUNT_STEPS = {"BTC": Decimal("0.00001"), "ETH": Decimal("0.0001")}
_PRICE_STEP = Decimal("0.01")
_STEPS_PER_UNIT = int(1 / _PRICE_STEP)


class SimulatedFeed:
    """Implements ``ports.PriceFeed``; never ends, never waits and never fails.

    ``volatility`` is the standard deviation of the log return from one beat to the next, above 0 and at most
    0.1 (else ValueError). The price at time t is that of step t // ``interval_ms``: restarts and block sizes
    cannot show in it. Memory: one segment of prices, 96 KiB a symbol, besides the block that is returned.
    """

    def __init__(self, symbols: Sequence[str], *, seed: int, volatility: float, interval_ms: int) -> None:
        if interval_ms < 1:
            raise ValueError(f"interval_ms must be at least 1, got {interval_ms}")
        self._interval_ms = interval_ms
        self._markets = {symbol: _market(symbol) for symbol in symbols}
        self._symbols = tuple(symbols)
        self._walks = [
            Walk.of(seed, symbol, base=_base_price(self._markets[symbol]), volatility=volatility)
            for symbol in self._symbols
        ]
        self._cached: FloatArray = np.empty((3, len(self._symbols), SEGMENT))
        self._cached_index: int | None = None

    @property
    def symbols(self) -> tuple[str, ...]:
        return self._symbols

    @property
    def markets(self) -> Mapping[str, Market]:
        return MappingProxyType(self._markets)

    async def poll(self, beat_ms: int, polls: int) -> Block:
        """Exactly ``polls`` rows, at ``beat_ms`` and the beats that follow."""
        return self._block(beat_ms, polls)

    async def history(self, before_ms: int, window: Window) -> Block | None:
        """The last beats before ``before_ms``, and before them four beats a bar; None if none are wanted."""
        count, last_step = window.ticks, (before_ms - 1) // self._interval_ms
        past = None
        if count > 0:
            past = self._block((last_step - count + 1) * self._interval_ms, count, warmup=count)
        beats = beats_of_bars(before_ms, self._interval_ms, window)
        beats = beats[beats < (before_ms if past is None else past.timestamp[0])]
        if not len(beats):
            return past
        prices = np.concatenate([self._prices(beat // self._interval_ms, 1) for beat in beats.tolist()], axis=2)
        older = Block(self._symbols, beats, prices[0], prices[1], prices[2], warmup=len(beats))
        return older if past is None else Block.joined([older, past])

    async def close(self) -> None:
        """Holds nothing that needs closing."""

    def _block(self, first_ms: int, rows: int, *, warmup: int = 0) -> Block:
        timestamp = first_ms + np.arange(rows, dtype=np.int64) * self._interval_ms
        bid, ask, last = self._prices(first_ms // self._interval_ms, rows)
        return Block(self._symbols, timestamp, bid, ask, last, warmup)

    def _prices(self, start: int, rows: int) -> FloatArray:
        """Bid, ask and last of steps [start, start + rows) in the quote currency; shape [3, S, rows]."""
        index, offset = divmod(start, SEGMENT)
        if offset + rows <= SEGMENT:
            return self._segment(index)[:, :, offset : offset + rows].copy()
        prices = np.empty((3, len(self._walks), rows))
        done = 0
        while done < rows:
            size = min(SEGMENT - offset, rows - done)
            part = prices[:, :, done : done + size]
            if size == SEGMENT:
                self._fill(part, index)
            else:
                part[...] = self._segment(index)[:, :, offset : offset + size]
            index, offset, done = index + 1, 0, done + size
        return prices

    def _segment(self, index: int) -> FloatArray:
        """The prices of a whole segment; shape [3, S, SEGMENT]. The last one asked for is kept."""
        if index != self._cached_index:
            self._cached_index = None  # an interrupted fill must not pass for a finished one
            self._fill(self._cached, index)
            self._cached_index = index
        return self._cached

    def _fill(self, prices: FloatArray, index: int) -> None:
        # Division rounds correctly: 5000012 / 100 is the very double that the text 50000.12 reads as.
        for column, walk in enumerate(self._walks):
            np.divide(walk.segment(index), _STEPS_PER_UNIT, out=prices[:, column])


def beats_of_bars(before_ms: int, interval_ms: int, window: Window) -> IntArray:
    """The beats before a moment, four a bar, that give a window its bars and the ones that are open."""
    beats: set[int] = set()
    for timeframe, count in window.bars:
        newest = timeframe.open_of(before_ms)
        for age in range(count, -1, -1):
            start, end = timeframe.back(newest, age), min(timeframe.back(newest, age - 1), before_ms)
            third = (end - start) // 3
            steps = (-(-start // interval_ms), (start + third) // interval_ms, (end - third) // interval_ms)
            wanted = [step * interval_ms for step in (*steps, (end - 1) // interval_ms)]
            beats.update(beat for beat in wanted if start <= beat < end and beat > max(0, window.after_ms))
    return np.array(sorted(beats), np.int64)


def _market(symbol: str) -> Market:
    base = symbol.partition("/")[0]
    amount_step = _AMOUNT_STEPS.get(base, Decimal("0.001"))
    return Market(symbol, _PRICE_STEP, amount_step, min_cost=Decimal(5))


def _base_price(market: Market) -> int:
    """In price steps."""
    return _BASE_PRICES.get(market.base, 100) * _STEPS_PER_UNIT
