"""Which of the wanted symbols an exchange trades: by its list of markets, which changes, and by what it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from bot.domain import Market, few
from bot.exchange.catalogue import Catalogue, Loading, read_catalogue, write_catalogue
from bot.exchange.client import Client
from bot.exchange.faults import Kind
from bot.exchange.markets import market_of
from bot.ports import Clock, FeedError

RELOAD_S = 12 * 3600.0
RELOAD_FAILED_S = 600.0
# As long as a symbol is not traded: it may be again.
RELOAD_HALTED_S = 1800.0
# Markets that were read so recently are as good as new: a daemon that restarts often must not ask each time.
FRESH_MS = 6 * 3600_000
SUSPENDED_S = 600.0
NONE_TRADED_S = 60.0

# What keeps a start waiting, and for how many seconds.
Waits = Callable[[str, float], object]


class UnknownSymbols(Exception):
    """Symbols that the exchange does not list; ``listed`` are those that it does."""

    def __init__(self, symbols: Sequence[str], listed: Sequence[str]) -> None:
        super().__init__(f"no such symbols: {', '.join(symbols)}")
        self.symbols, self.listed = tuple(symbols), tuple(listed)


class Listing:
    """Keeps the markets up to date beside the polls, and on disk for the next start.

    Steps, limits and fees are those of the start: a run keeps the rules that it was recorded with. ``failed`` hears of
    each time that the markets could not be read.
    """

    def __init__(
        self, client: Client, clock: Clock, kept: Path, log: FilteringBoundLogger, failed: Callable[[Kind], None]
    ) -> None:
        self._client, self._clock, self._kept, self._log, self._failed = client, clock, kept, log, failed
        self._symbols = client.access.symbols
        self._catalogue = Catalogue({})
        self._loading: Loading | None = None
        self._reload_at_s = 0.0
        self._asked_at_s = -RELOAD_FAILED_S
        self._suspended: dict[str, float] = {}  # symbol -> until when
        self._untradable: tuple[str, ...] = ()

    async def start(
        self, known: Mapping[str, Market], waits: Waits = lambda text, retry_s: None
    ) -> dict[str, Market] | None:
        """The markets, from the exchange or from what was kept; None if stopped before that.

        A symbol that is only in ``known`` has been traded here before and is gone. Raises UnknownSymbols for others,
        ExchangeFault where waiting cannot help, and ValueError for a market that cannot be traded on paper.
        """
        kept = self._catalogue = read_catalogue(self._kept, self._client.access) or Catalogue({})
        whole = len(kept.markets) == len(self._symbols)
        age_ms = self._clock.now_ms() - kept.saved_ms
        if whole and 0 <= age_ms < FRESH_MS:
            self._reload_at_s = self._clock.monotonic() + (FRESH_MS - age_ms) / 1000
            catalogue: Catalogue | None = kept
        else:
            catalogue = await self._first(kept if whole else None, waits)
        if catalogue is None:
            return None
        unknown = [symbol for symbol in self._symbols if symbol not in catalogue.markets and symbol not in known]
        if unknown:
            raise UnknownSymbols(unknown, catalogue.listed)
        self._adopt(catalogue)
        mode = self._client.precision_mode
        listed = {symbol: market_of(market, mode) for symbol, market in catalogue.markets.items()}
        return {symbol: listed.get(symbol) or known[symbol] for symbol in self._symbols}

    async def _first(self, kept: Catalogue | None, waits: Waits) -> Catalogue | None:
        """The exchange's, else the kept one; without one the exchange is asked until it answers. None once stopped."""
        failures = 0
        while True:
            loading = Loading(self._client.access, self._client.gate)
            try:
                async with self._clock.limit(None):
                    result = await asyncio.shield(loading.future)
            except TimeoutError:
                return None
            if isinstance(result, Catalogue):
                return self._saved(result)
            if result.kind is Kind.SETTINGS:
                raise result
            self._reload_at_s = self._clock.monotonic() + RELOAD_FAILED_S
            if kept is not None:
                self._log.warning("markets are those kept on disk", error=str(result), saved_ms=kept.saved_ms)
                return kept
            failures += 1
            retry_s = max(result.retry_s or 0.0, min(60.0, 2.0 ** min(failures, 6)))
            if failures == 1:
                self._log.warning("waiting for the exchange's markets", error=str(result), retry_s=round(retry_s, 1))
            waits(str(result), retry_s)
            if await self._clock.sleep(retry_s):
                return None

    def traded(self) -> tuple[str, ...]:
        """The symbols to ask for, by what is known by now. Raises FeedError if there is none."""
        self._look_after()
        now = self._clock.monotonic()
        self._suspended = {symbol: until for symbol, until in self._suspended.items() if now < until}
        symbols = tuple(s for s in self._catalogue.tradable(self._symbols) if s not in self._suspended)
        if not symbols:
            raise FeedError("none of the symbols is traded on the exchange now", retry_s=NONE_TRADED_S)
        return symbols

    def requests(self, symbols: Sequence[str]) -> Iterator[list[str]]:
        """The symbols of each request."""
        return self._catalogue.requests(symbols)

    def doubt(self) -> None:
        """Something is wrong with a symbol: the list of markets says more, if it was not asked for just now."""
        again_s = max(self._clock.monotonic(), self._asked_at_s + RELOAD_FAILED_S)
        self._reload_at_s = min(self._reload_at_s, again_s)
        self._look_after()

    def suspend(self, symbols: Sequence[str]) -> None:
        """Leaves symbols out for a while: they make the exchange refuse a request for all."""
        self._log.warning("the exchange does not know it any more", symbols=few(symbols), retry_s=SUSPENDED_S)
        self._suspended.update(dict.fromkeys(symbols, self._clock.monotonic() + SUSPENDED_S))

    def _look_after(self) -> None:
        """Takes over markets that have been read meanwhile, and has them read anew where it is time."""
        if self._loading is not None:
            if not self._loading.future.done():
                return
            result, self._loading = self._loading.future.result(), None
            if isinstance(result, Catalogue):
                self._adopt(self._saved(result))
            else:
                self._failed(result.kind)
                self._reload_at_s = self._clock.monotonic() + RELOAD_FAILED_S
                self._log.debug("markets not read", error=str(result))
        elif self._clock.monotonic() >= self._reload_at_s and not self._client.gate.closed_s:
            self._asked_at_s = self._clock.monotonic()
            self._loading = Loading(self._client.access, self._client.gate)

    def _saved(self, fresh: Catalogue) -> Catalogue:
        """What is known now, kept on disk. A symbol that is gone stays known: a position may be left in it."""
        self._reload_at_s = self._clock.monotonic() + RELOAD_S
        gone = {symbol: {**market, "active": False} for symbol, market in self._catalogue.markets.items()}
        known = Catalogue(gone | fresh.markets, fresh.listed, self._clock.now_ms())
        try:
            write_catalogue(self._kept, self._client.access, known.markets, known.saved_ms)
        except (OSError, TypeError) as error:
            self._log.warning("the markets cannot be kept on disk", path=str(self._kept), error=str(error))
        return known

    def _adopt(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._client.know(list(catalogue.markets.values()))
        before, tradable = self._untradable, catalogue.tradable(self._symbols)
        now = self._untradable = tuple(symbol for symbol in self._symbols if symbol not in tradable)
        if stopped := [symbol for symbol in now if symbol not in before]:
            self._log.warning("no longer traded on the exchange", symbols=few(stopped))
        if back := [symbol for symbol in before if symbol not in now]:
            self._log.info("traded on the exchange again", symbols=few(back))
        if now:
            self._reload_at_s = min(self._reload_at_s, self._clock.monotonic() + RELOAD_HALTED_S)
