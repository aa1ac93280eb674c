"""Prices of a real exchange: one request of ccxt's public ticker a poll, for all symbols at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from structlog.typing import FilteringBoundLogger

from bot.domain import Block, Market
from bot.exchange.client import Access, Client
from bot.exchange.faults import ExchangeFault, Kind
from bot.feeds.listing import Listing, Waits
from bot.feeds.ohlcv import CandleHistory
from bot.feeds.refusals import Refusals
from bot.feeds.screen import JUMP, UNCONFIRMED, Quote, Screen
from bot.ports import Clock, FeedError, NotYet, Window
from bot.timeframes import MINUTE_MS

OFFSET_EVERY_S = 3600.0
OFFSET_AGAIN_S = 10.0
OFFSET_TOLD_MS = 2000
AHEAD_MAX_MS = 5000
CANDLE_SETTLES_MS = 2000


@dataclass(frozen=True, slots=True)
class Caution:
    """How prices are judged: see ``Screen``."""

    stale_after_ms: int
    jump_max: float = 0.1
    confirmations: int = 2
    frozen_after_ms: int | None = 300_000


class CcxtTickerFeed:
    """Implements ``ports.PriceFeed``. ``start`` before the first poll, ``close`` after the last."""

    def __init__(self, access: Access, clock: Clock, caution: Caution, kept: Path, log: FilteringBoundLogger) -> None:
        """``kept`` is the file in which the markets are kept. Raises LookupError for an unknown exchange."""
        self.symbols = access.symbols
        self.markets: Mapping[str, Market] = {}
        self._clock, self._caution, self._log = clock, caution, log
        self._client = Client(access, clock)
        self._refusals = Refusals(log, clock)
        self._screen = self._screened({})
        self._candles = CandleHistory(self._client, access.symbols, clock, log)
        self._waiting_since_s: float | None = None
        self._offset_ms = 0
        self._offset_due = (0.0, 0)  # when, and the clock's steps at the last one
        self._offset_at_s = 0.0
        self._offset_known = False
        self._faults: Counter[str] = Counter()
        self._listing = Listing(self._client, clock, kept, log, self._failed)

    @property
    def client(self) -> Client:
        return self._client

    def counts(self) -> dict[str, int]:
        """How often requests failed and quotes were refused, by kind and reason, and the client was made anew."""
        refused: Counter[str] = Counter()
        for (_, reason), count in self._screen.counts.items():
            refused[f"refused_{reason}"] += count
        failed = {f"failed_{kind}": count for kind, count in self._faults.items()}
        return {**failed, **refused, "clients_rebuilt": self._client.rebuilt}

    async def start(
        self,
        levels: Mapping[str, float],
        known: Mapping[str, Market] | None = None,
        waits: Waits = lambda text, retry_s: None,
    ) -> bool:
        """Learns the markets, from the exchange or from what was kept; False if stopped before that.

        ``levels`` are prices, and ``known`` markets, known beforehand. Raises what ``Listing.start`` raises.
        """
        self._screen = self._screened(levels)
        markets = await self._listing.start(known or {}, waits)
        self.markets = markets or {}
        return markets is not None

    async def history(self, before_ms: int, window: Window) -> Block | None:
        """Closed candles for the windows of bars; of ticks there are none: what a ticker said before, nobody knows."""
        if not window.bars:
            return None
        with self._counted():
            await self._look_after_clock()
            # A candle is closed by the exchange's clock, and has its place on the tape by this machine's. The exchange
            # has to have it, too: one that closed this very moment is waited for.
            end_ms = min(before_ms, before_ms + self._offset_ms)
            await self._clock.sleep(max(0, CANDLE_SETTLES_MS - end_ms % MINUTE_MS) / 1000)
            symbols = self._listing.traded()
            sure = self._offset_known or not self._client.has("fetchTime")
            block = await self._candles.before(end_ms, window, symbols, sure=sure)
        if block is not None:
            self._screen.know(block.last_prices())
        return block

    async def poll(self, beat_ms: int, polls: int) -> Block:
        """One column at ``beat_ms``. Raises FeedError, and NotYet where quotes wait to be confirmed."""
        with self._counted():
            await self._look_after_clock()
            symbols = self._listing.traded()
            try:
                tickers = await self._tickers(symbols)
            except ExchangeFault as fault:
                if fault.kind is not Kind.SYMBOL or not await self._suspend(symbols):
                    raise
                raise NotYet(str(fault)) from fault
        quotes = {symbol: quote_of(symbol, tickers.get(symbol), self._offset_ms) for symbol in symbols}
        block = self._screen.block(beat_ms, quotes, self._clock.now_ms())
        self._refusals.tell(symbols)
        if block.ticks:
            self._candles.forget()
            self._waiting_since_s = None
            return block
        reasons = self._screen.reasons(symbols)
        waits = not reasons.keys().isdisjoint({UNCONFIRMED, JUMP})
        if waits and not self._has_waited():
            # What waits to be confirmed is confirmed by the next beats, not by those after a back-off.
            raise NotYet("no price is confirmed yet")
        self._faults["no_good_quote"] += 1
        if not waits:
            self._waiting_since_s = None
        # It may be the exchange's time that was told wrong.
        due_s, steps = self._offset_due
        self._offset_due = (min(due_s, self._offset_at_s + OFFSET_AGAIN_S), steps)
        self._screen.distrust()
        told = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
        raise FeedError(f"the exchange answers, and no quote can be used: {told}", retry_s=0.0 if waits else None)

    async def close(self) -> None:
        await self._client.close()

    def _has_waited(self) -> bool:
        """Whether prices have waited to be confirmed for so long that it has to be told."""
        now_s = self._clock.monotonic()
        since_s = self._waiting_since_s = now_s if self._waiting_since_s is None else self._waiting_since_s
        return (now_s - since_s) * 1000 > self._caution.stale_after_ms

    def _failed(self, kind: Kind) -> None:
        self._faults[kind.value] += 1

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """A request that failed is counted, and begins an outage."""
        try:
            yield
        except ExchangeFault as fault:
            self._failed(fault.kind)
            self._screen.distrust()
            raise

    async def _suspend(self, symbols: Sequence[str]) -> bool:
        """Leaves out, for a while, the symbols that make the exchange refuse a request for all; False if none does."""
        # Asked before they are looked for: where there are many, time is up before they are found.
        self._listing.doubt()
        bad = await self._unknown(symbols)
        if bad:
            self._listing.suspend(bad)
        return bool(bad)

    async def _unknown(self, symbols: Sequence[str]) -> list[str]:
        if len(symbols) == 1:
            return list(symbols)
        found: list[str] = []
        middle = len(symbols) // 2
        for half in (symbols[:middle], symbols[middle:]):
            try:
                await self._tickers(half)
            except ExchangeFault as fault:
                if fault.kind is not Kind.SYMBOL:
                    raise
                found += await self._unknown(half)
        return found

    async def _tickers(self, symbols: Sequence[str]) -> dict[str, Any]:
        answer: dict[str, Any] = {}
        for part in self._listing.requests(symbols):
            found = await self._client.call("fetch_tickers", part)
            if not isinstance(found, Mapping):
                raise ExchangeFault(Kind.MALFORMED, f"fetch_tickers: {type(found).__name__}")
            answer |= found
        return answer

    def _screened(self, levels: Mapping[str, float]) -> Screen:
        caution = self._caution
        screen = Screen(
            self.symbols,
            stale_after_ms=caution.stale_after_ms,
            jump_max=caution.jump_max,
            confirmations=caution.confirmations,
            ahead_max_ms=AHEAD_MAX_MS,
            frozen_after_ms=caution.frozen_after_ms,
            levels=levels,
            refused=self._refusals.changed,
        )
        screen.distrust()
        return screen

    async def _look_after_clock(self) -> None:
        """Learns by how much the exchange's clock is ahead of this machine's: now and then, and when that was set."""
        due_s, steps = self._offset_due
        now_s = self._clock.monotonic()
        if (now_s < due_s and steps == self._clock.steps) or not self._client.has("fetchTime"):
            return
        self._offset_due, self._offset_at_s = (now_s + OFFSET_AGAIN_S, self._clock.steps), now_s
        try:
            offset_ms = await clock_offset_ms(self._client, self._clock)
        except ExchangeFault as fault:
            if fault.kind in (Kind.STOPPED, Kind.RATE_LIMIT):
                raise
            # Prices can do without; what keeps those away, too, their own request will tell.
            self._failed(fault.kind)
            return
        self._offset_due = (now_s + OFFSET_EVERY_S, self._clock.steps)
        if abs(offset_ms - self._offset_ms) > OFFSET_TOLD_MS:
            self._log.warning("this machine's clock differs from the exchange's", ahead_s=round(-offset_ms / 1000, 1))
        self._offset_ms, self._offset_known = offset_ms, True


def quote_of(symbol: str, ticker: Any, offset_ms: int) -> Quote | None:
    """A ticker of ccxt's as a quote, its time by a clock that the exchange's is ``offset_ms`` ahead of."""
    if not isinstance(ticker, Mapping) or ticker.get("symbol") != symbol:
        return None
    info, last = ticker.get("info"), ticker.get("last")
    if isinstance(info, Mapping) and "lastPrice" in info and not _is_positive(info["lastPrice"]):
        # ccxt makes one up, from the opening price and the change.
        last = None
    timestamp = ticker.get("timestamp")
    if isinstance(timestamp, int | float) and timestamp == timestamp:
        timestamp = round(timestamp) - offset_ms
    return Quote(ticker.get("bid"), ticker.get("ask"), last, timestamp)


async def clock_offset_ms(client: Client, clock: Clock) -> int:
    """How far the exchange's clock is ahead of this machine's, half of the way there and back taken off.

    Raises ExchangeFault.
    """
    # What is waited for at the gate is no travel.
    await client.gate.pass_through(0)
    sent_ms, sent_s = clock.now_ms(), clock.monotonic()
    theirs = await client.call("fetch_time")
    if not isinstance(theirs, int | float) or not 1e12 <= theirs < 1e14:
        raise ExchangeFault(Kind.MALFORMED, f"fetch_time: {theirs!r}")
    # To a thousandth where it is told to a thousandth; Kraken tells whole seconds, which is half a second late.
    theirs += 500 if theirs % 1000 == 0 else 0
    return round(theirs - sent_ms - (clock.monotonic() - sent_s) * 500)


def _is_positive(value: Any) -> bool:
    try:
        return float(value) > 0
    except (TypeError, ValueError):
        return False
