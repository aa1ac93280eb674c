"""A venue that now and then says nothing, too late, or nonsense, and the feed that stands between it and the loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from bot.domain import Block, Market
from bot.feeds import SimulatedFeed
from bot.feeds.candles import Candle, block_of_candles, ladder
from bot.feeds.screen import Quote, Screen
from bot.ports import FeedError, Window
from bot.timeframes import TIMEFRAMES
from tests.simulation.chance import Chance, Rates
from tests.simulation.eventloop import passed

SYMBOLS = ("BTC/USDT", "ETH/USDT", "SOL/USDT", "DOGE/USDT")
STEP_MS = 1000
CANDLES = ("1m", "5m", "1h", "1d")
CHUNK = 4096
# So old may a quote be that is served.
OLDEST_MS = 30 * 60_000
# How far a beat may be from the moment of its answer: beyond, the wall clock is wrong, and a wrong time of a quote may
# look right.
CLOCK_OFF_MS = 25_000


class Served(NamedTuple):
    """One quote as it was sent; ``fault`` is what is wrong with it, ``as_of_ms`` when its price was the price."""

    quote: Quote
    as_of_ms: int
    fault: str = ""


class Around(Protocol):
    """What a venue sees of the world around it."""

    rates: Rates
    stale_after_ms: int
    interval_ms: int

    def true_ms(self) -> int: ...
    def note(self, *event: object) -> None: ...
    def violated(self, what: str) -> None: ...
    def befall(self, seconds: float, rate: float) -> None: ...
    def pause(self, seconds: float) -> None: ...
    def handed(self, block: Block, answered_ms: int | None) -> None: ...


class Venue:
    """Prices are a function of the seed and the time; what goes wrong on the way is a function of the seed."""

    def __init__(self, seed: int, around: Around) -> None:
        self._around, self._chance = around, Chance(seed, "venue")
        self._feed = SimulatedFeed(SYMBOLS, seed=seed, volatility=0.0004, interval_ms=STEP_MS)
        self._chunks: dict[int, dict[str, list[tuple[float, float, float]]]] = {}
        self._down_until_ms = self.answered_ms = 0
        self._absurd: set[str] = set()  # whose last quote was absurd
        self._frozen: dict[str, tuple[int, int]] = {}  # symbol -> until when, as of when

    def markets_of(self, symbols: tuple[str, ...]) -> dict[str, Market]:
        return {symbol: self._feed.markets[symbol] for symbol in symbols}

    def recover(self) -> None:
        self._down_until_ms = 0
        self._frozen.clear()

    async def quotes(self, symbols: tuple[str, ...]) -> dict[str, Served]:
        around, chance, rates = self._around, self._chance, self._around.rates
        if chance.hits(rates.outage):
            self._down_until_ms = around.true_ms() + int(chance.between(60, 7200) * 1000)
            around.note("outage", self._down_until_ms)
        seconds = chance.between(0.02, 0.3)
        if chance.hits(rates.hang):
            seconds = chance.between(15, 60)
        elif chance.hits(rates.slow):
            seconds = chance.between(0.3, 15)
        around.befall(seconds, rates.disturbed)
        await passed(seconds)
        now_ms = self.answered_ms = around.true_ms()
        if now_ms < self._down_until_ms or chance.hits(rates.error):
            raise FeedError("the venue is down")
        for time_ms in (now_ms, now_ms - OLDEST_MS):
            await self._load(time_ms)
        answer = {symbol: self._honest(symbol, now_ms) for symbol in symbols}
        if chance.hits(rates.bad_quote):
            symbol = chance.one_of(symbols)
            kind = chance.one_of(FAULTS)
            self._spoil(answer, symbol, kind, now_ms)
            around.note("bad quote", symbol, kind)
        self._absurd -= {symbol for symbol, served in answer.items() if not served.fault}
        if chance.hits(rates.pause):
            # The answer is here, and the process is stopped before it can look at it.
            around.pause(chance.between(1, 600))
        return answer

    async def history(self, symbols: tuple[str, ...], before_ms: int, window: Window) -> Block | None:
        """What a window needs before a moment, up to now at the latest: candles, then the last beats."""
        if self._chance.hits(self._around.rates.no_history):
            if self._chance.hits(0.5):
                raise FeedError("the venue has no history")
            return None
        await passed(0.1)
        end_ms = min(before_ms, self._around.true_ms())
        candles = await self._candles(symbols, end_ms, window)
        ticks = await self._beats(symbols, end_ms, window.ticks) if window.ticks else None
        if candles is None or ticks is None:
            return candles or ticks
        first = int(np.searchsorted(candles.timestamp, ticks.timestamp[0]))
        return Block.joined([candles.columns(slice(0, first), warmup=first), ticks]) if first else ticks

    async def _candles(self, symbols: tuple[str, ...], end_ms: int, window: Window) -> Block | None:
        found: dict[str, list[Candle]] = {symbol: [] for symbol in symbols}
        for name, start_ms, stop_ms in ladder(window.after_ms, end_ms, window.bars, CANDLES):
            length_ms = TIMEFRAMES[name].ms
            block = await self._feed.poll(start_ms, (stop_ms - start_ms) // STEP_MS)
            for symbol in symbols:
                last = block.last[SYMBOLS.index(symbol)].reshape(-1, length_ms // STEP_MS)
                rows = zip(
                    last[:, 0].tolist(), last.max(1).tolist(), last.min(1).tolist(), last[:, -1].tolist(), strict=True
                )
                found[symbol] += [(start_ms + n * length_ms, *row, length_ms) for n, row in enumerate(rows)]
        return block_of_candles(symbols, found)

    async def _beats(self, symbols: tuple[str, ...], end_ms: int, count: int) -> Block:
        interval_ms = self._around.interval_ms
        end_ms = end_ms // interval_ms * interval_ms
        times = np.arange(end_ms - count * interval_ms, end_ms, interval_ms)
        for time in (int(times[0]), int(times[-1])):
            await self._load(time)
        rows = [[self._price(symbol, int(time)) for time in times] for symbol in symbols]
        bid, ask, last = np.array(rows).transpose(2, 0, 1)
        return Block(symbols, times, bid.copy(), ask.copy(), last.copy(), warmup=count)

    async def _load(self, time_ms: int) -> None:
        """The prices of an hour and some minutes, as numbers that need no array any more."""
        chunk = time_ms // STEP_MS // CHUNK
        if chunk not in self._chunks:
            block = await self._feed.poll(chunk * CHUNK * STEP_MS, CHUNK)
            prices = np.array((block.bid, block.ask, block.last)).transpose(1, 2, 0).tolist()
            self._chunks[chunk] = dict(zip(SYMBOLS, ([tuple(row) for row in rows] for rows in prices), strict=True))
            while len(self._chunks) > 3:
                del self._chunks[min(self._chunks)]

    def _price(self, symbol: str, time_ms: int) -> tuple[float, float, float]:
        chunk, row = divmod(time_ms // STEP_MS, CHUNK)
        return self._chunks[chunk][symbol][row]

    def _honest(self, symbol: str, time_ms: int) -> Served:
        until_ms, frozen_ms = self._frozen.get(symbol, (0, 0))
        if frozen_ms < time_ms < until_ms:
            time_ms = frozen_ms
        stamp = time_ms // STEP_MS * STEP_MS
        return Served(Quote(*self._price(symbol, time_ms), stamp), stamp)

    def _spoil(self, answer: dict[str, Served], symbol: str, kind: str, now_ms: int) -> None:
        """Makes one symbol's quote a bad one, or one that only looks unusual."""
        chance, minute_ms = self._chance, 60_000
        quote, as_of_ms, _ = answer.pop(symbol)
        bid, ask, last, _ = quote
        stale_ms = self._around.stale_after_ms
        if kind == "thousandfold":
            # Twice in a row it would be the price.
            kind = "null" if symbol in self._absurd else kind
            self._absurd.add(symbol)
        if kind == "missing":
            return
        if kind == "frozen":
            # The same quote again and again, with the time that it is from.
            self._frozen[symbol] = (now_ms + int(chance.between(0.1, 5) * minute_ms), now_ms)
            kind = "no last"
        changed: dict[str, dict[str, Any]] = {
            "null": {chance.one_of(("bid", "ask")): None},
            "nan": {chance.one_of(("bid", "ask", "last")): float("nan")},
            "negative": {chance.one_of(("bid", "ask", "last")): -bid},
            "zero": {chance.one_of(("bid", "ask", "last")): 0.0},
            "text": {"bid": f"{bid}"},
            "thousandfold": {"bid": bid * 1000, "ask": ask * 1000, "last": last * 1000},
            "crossed": {"bid": ask * 1.01, "ask": bid},
            "backward": {"timestamp": as_of_ms - int(chance.between(7, 50) * minute_ms)},
            "future": {"timestamp": as_of_ms + int(chance.between(7, 50) * minute_ms)},
            "no last": {"last": None},
            "no time": {"timestamp": None if as_of_ms // STEP_MS == now_ms // STEP_MS else as_of_ms},
        }
        if kind in ("stale", "late"):
            old = (stale_ms, OLDEST_MS) if kind == "stale" else (1000, 9000)
            age_ms = chance.between(*old)
            answer[symbol] = self._honest(symbol, now_ms - int(age_ms))._replace(fault=kind)
        else:
            fault = "" if kind in ("no last", "no time") else kind
            answer[symbol] = Served(quote._replace(**changed[kind]), as_of_ms, fault)


FAULTS = (
    "missing", "null", "nan", "negative", "zero", "text", "thousandfold", "crossed", "backward", "future", "stale",
    "frozen", "late", "no last", "no time",
)  # fmt: skip


class ScreenedFeed:
    """venue -> screen -> block, and a look at every block: nothing may be in it that the venue did not mean."""

    def __init__(self, venue: Venue, symbols: tuple[str, ...], screen: Screen, around: Around) -> None:
        self.symbols = symbols
        self.markets: Mapping[str, Market] = venue.markets_of(symbols)
        self._venue, self._screen, self._around = venue, screen, around
        self._newest: dict[str, int] = {}

    async def history(self, before_ms: int, window: Window) -> Block | None:
        past = await self._venue.history(self.symbols, before_ms, window)
        if past is not None:
            self._around.handed(past, None)
        return past

    async def poll(self, beat_ms: int, polls: int) -> Block | None:
        served = await self._venue.quotes(self.symbols)
        block = self._screen.block(beat_ms, {symbol: answer.quote for symbol, answer in served.items()})
        self._around.note("answer", beat_ms, block.bid.ravel().tolist())
        self._around.handed(block, self._venue.answered_ms)
        for symbol, bid, ask, last in zip(self.symbols, *_columns(block), strict=True):
            if last == last:
                self._check(beat_ms, symbol, served[symbol], (bid, ask, last))
        return block

    def _check(self, beat_ms: int, symbol: str, served: Served, taken: tuple[float, float, float]) -> None:
        quote, around = served.quote, self._around
        if taken[:2] != quote[:2] or quote.last not in (taken[2], None):
            around.violated(f"the price of {symbol}, {taken}, was not served: {quote}")
        if quote.timestamp == served.as_of_ms < beat_ms - around.stale_after_ms:
            around.violated(f"an old quote of {symbol} was taken at {beat_ms}: {quote}")
        fooled = abs(beat_ms - self._venue.answered_ms) > CLOCK_OFF_MS
        if served.fault not in ("", "stale", "late") and not fooled:
            around.violated(f"a {served.fault} quote of {symbol} was taken: {quote}")
        if quote.timestamp is not None:
            if quote.timestamp < self._newest.get(symbol, 0):
                around.violated(f"a quote of {symbol} was taken that is older than the one before: {quote}")
            self._newest[symbol] = quote.timestamp

    async def close(self) -> None:
        """Nothing is held open."""


def _columns(block: Block) -> tuple[list[float], list[float], list[float]]:
    return block.bid[:, -1].tolist(), block.ask[:, -1].tolist(), block.last[:, -1].tolist()
