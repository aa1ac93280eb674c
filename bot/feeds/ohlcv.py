"""An exchange's candles as the history that a tape lacks: closed ones only, asked for once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from structlog.typing import FilteringBoundLogger

from bot.domain import Block
from bot.exchange.client import Client
from bot.exchange.faults import ExchangeFault, Kind
from bot.feeds.candles import Candle, Segment, block_of_candles, ladder
from bot.feeds.screen import storable
from bot.ports import Clock, Window
from bot.timeframes import TIMEFRAMES

CANDLES_MAX = 1000
# Where ccxt does not say how many an answer holds.
CANDLES_UNKNOWN = 500
# So many symbols of which the candles cannot be read leave the others theirs; more are no matter of a symbol.
FAILING_MAX = 3
_OF_ONE_ANSWER = frozenset({Kind.MALFORMED, Kind.REFUSED})
# After so many failures in a row the daemon goes on without, until there are prices: its windows fill with what comes.
TRIES_MAX = 5
# No answer takes longer to page through than this; an exchange that keeps no history ends before.
PAGES_MAX = 500
TOLD_S = 5.0
PROGRESS_S = 10.0


class CandleHistory:
    """Fills windows of bars from ``fetch_ohlcv``. What was fetched is kept until a history is complete."""

    def __init__(self, client: Client, symbols: Sequence[str], clock: Clock, log: FilteringBoundLogger) -> None:
        self._client, self._symbols, self._clock, self._log = client, tuple(symbols), clock, log
        self._kept: dict[tuple[str, str], tuple[int, int, list[Candle]]] = {}  # symbol, timeframe -> from, to, candles
        self._failures = 0
        self._given_up: ExchangeFault | None = None

    async def before(self, end_ms: int, window: Window, symbols: Sequence[str], *, sure: bool = True) -> Block | None:
        """The closed candles up to a moment (of the exchange's clock) that a window lacks, as ticks. Raises FeedError.

        A symbol of which the exchange knows no candles has none. Where nobody is ``sure`` of the exchange's time, the
        newest candle of each may still be open, and is left out.
        """
        segments = ladder(window.after_ms, end_ms, window.bars, self._client.timeframes)
        if not segments:
            return None
        began_s = self._clock.monotonic()
        candles, failed = await self._of_all(symbols, segments)
        self._failures = 0 if failed is None else self._failures + 1
        if failed is not None and (self._failures < TRIES_MAX or failed.kind in (Kind.STOPPED, Kind.RATE_LIMIT)):
            raise failed
        self._given_up = failed
        if not sure:
            candles = {symbol: found[:-1] for symbol, found in candles.items()}
        block = block_of_candles(self._symbols, candles)
        took_s = self._clock.monotonic() - began_s
        if took_s > TOLD_S and block is not None:
            self._log.info("history filled", candles=sum(map(len, candles.values())), took_s=round(took_s, 1))
        return block

    def forget(self) -> None:
        """There are prices, and what was fetched goes on the tape with them."""
        self._kept.clear()
        self._failures = 0
        if self._given_up is not None:
            self._log.warning("no history: bars begin with what is polled from now on", error=str(self._given_up))
            self._given_up = None

    async def _of_all(
        self, symbols: Sequence[str], segments: Sequence[Segment]
    ) -> tuple[dict[str, list[Candle]], ExchangeFault | None]:
        """The candles as far as there are any, and what went wrong last."""
        candles: defaultdict[str, list[Candle]] = defaultdict(list)
        failed, failures = None, 0
        told_s = self._clock.monotonic()
        for number, symbol in enumerate(symbols):
            if self._clock.monotonic() - told_s > PROGRESS_S:
                told_s = self._clock.monotonic()
                self._log.info("fetching history", symbols=f"{number} of {len(symbols)}")
            try:
                for segment in segments:
                    candles[symbol] += await self._segment(symbol, segment)
            except ExchangeFault as fault:
                failed, failures = fault, failures + 1
                if fault.kind not in _OF_ONE_ANSWER or failures == FAILING_MAX:
                    break
        return candles, failed

    async def _segment(self, symbol: str, segment: Segment) -> list[Candle]:
        key = symbol, segment.timeframe
        start, end, found = self._kept.get(key, (segment.start_ms, segment.start_ms, []))
        if not start <= segment.start_ms <= end:
            start, end, found = segment.start_ms, segment.start_ms, []
        if end < segment.end_ms:
            try:
                found = found + await self._pages(symbol, segment._replace(start_ms=end))
            except ExchangeFault as fault:
                if fault.kind is not Kind.SYMBOL:
                    raise
            self._kept[key] = start, segment.end_ms, found
        return [candle for candle in found if segment.start_ms <= candle[0] < segment.end_ms]

    async def _pages(self, symbol: str, segment: Segment) -> list[Candle]:
        length_ms = TIMEFRAMES[segment.timeframe].ms
        found: dict[int, Candle] = {}
        since = segment.start_ms
        for _ in range(PAGES_MAX):
            wanted = min(CANDLES_MAX, (segment.end_ms - since) // length_ms)
            rows = await self._client.call("fetch_ohlcv", symbol, segment.timeframe, since, wanted)
            page = [candle for row in _rows(rows) if (candle := _candle(row, length_ms)) is not None]
            fresh = [candle for candle in page if since <= candle[0] < segment.end_ms]
            found.update((candle[0], candle) for candle in fresh)
            # An exchange may look at the time from ``since`` on only, as far as an answer reaches.
            reached = min(wanted, self._client.candles_per_request(symbol) or CANDLES_UNKNOWN) * length_ms
            since = max((candle[0] + length_ms for candle in fresh), default=since + reached)
            if since >= segment.end_ms:
                break
        return [found[time] for time in sorted(found)]


def _rows(answer: Any) -> list[Any]:
    if not isinstance(answer, list):
        raise ExchangeFault(Kind.MALFORMED, f"fetch_ohlcv: {type(answer).__name__}")
    return answer


def _candle(row: Any, length_ms: int) -> Candle | None:
    """A row of ccxt's, or None for one that is no candle: without a price, or not where one can begin."""
    if not isinstance(row, Sequence) or len(row) < 5 or not all(isinstance(each, int | float) for each in row[:5]):
        return None
    timestamp, prices = int(row[0]), [float(price) for price in row[1:5]]
    if timestamp % length_ms or not all(price > 0 and storable(price) for price in prices):
        return None
    return timestamp, prices[0], prices[1], prices[2], prices[3], length_ms
