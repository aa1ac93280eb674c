"""From an exchange to files: what is missing of a range, oldest first, page by page."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from bot.domain import iso8601
from bot.exchange.catalogue import Catalogue, Loading
from bot.exchange.client import Client
from bot.exchange.faults import ExchangeFault, Kind
from bot.feeds.ccxt_ticker import clock_offset_ms
from bot.history import store
from bot.history.errors import HistoryError, storage_error
from bot.history.pages import Candles, Journal, candles_of
from bot.history.ranges import Range, joined, without
from bot.history.store import Contents, Series
from bot.ports import Clock
from bot.settings.values import closest_symbol

# Where ccxt does not say how many candles an answer holds: what no exchange exceeds by much.
PAGE_ROWS = 500
# How far the exchange's clock may be from what was measured, one that tells whole seconds included.
CLOCK_MARGIN_MS = 1_000
# Some exchanges are late with their newest candles: that there are none is believed of what is older.
SETTLED_MS = 600_000
# Waits between tries double from the first to the longest; after so long without a page it is given up.
WAIT_S, WAIT_MAX_S = 1.0, 60.0
PATIENCE_S = 300.0
# Where the first candle of all is looked for, in case no beginning was asked for: coarse ones need few requests.
COARSE = ("1w", "1d")
BEGINNING_MS = 1_230_768_000_000  # 2009-01-01
_HOPELESS = frozenset({Kind.SYMBOL, Kind.REFUSED, Kind.SETTINGS, Kind.BLOCKED, Kind.CREDENTIALS, Kind.STOPPED})


class Progress(Protocol):
    """Hears how far it is."""

    def begun(self, name: str, missing_ms: int) -> None: ...
    def went_on(self, done_ms: int, at_ms: int, rows: int) -> None: ...
    def told(self, text: str) -> None:
        """Something that a user should know now."""

    def ended(self) -> None: ...


@dataclass(slots=True)
class File:
    """What came of one series. ``missing`` is what was asked for and cannot be had, ``problem`` why it ended early."""

    series: Series
    path: Path
    contents: Contents = field(default_factory=Contents)
    added: int = 0
    missing: list[Range] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problem: str | None = None

    @property
    def ok(self) -> bool:
        return self.problem is None and not self.missing


@dataclass(frozen=True, slots=True)
class Wanted:
    """``first`` None: from the first candle that there is. The end is left out."""

    symbols: tuple[str, ...]
    timeframe: str
    step_ms: int
    first: int | None
    end: int
    folder: Path


class Downloader:
    """Fetches candles through one client. ``patience_s`` is how long it goes on without a single page."""

    def __init__(self, client: Client, clock: Clock, progress: Progress, patience_s: float = PATIENCE_S) -> None:
        self._client, self._clock, self._progress, self._patience_s = client, clock, progress, patience_s
        self._closed_ms = 0
        self._is_ill = False

    async def all(self, wanted: Wanted, finished: Callable[[File], None]) -> None:
        """Each series in its turn; one that fails does not keep the others from being fetched. ``finished`` hears of
        each, of the one that was in hand too where this is cancelled. Raises HistoryError."""
        await self._prepare(wanted.symbols)
        for symbol in wanted.symbols:
            series = Series(self._client.access.exchange, symbol, wanted.timeframe, wanted.step_ms)
            file = File(series, series.path(wanted.folder))
            try:
                await self._one(file, wanted)
            except ExchangeFault as fault:
                file.problem = str(fault)
            except OSError as error:
                raise storage_error(error) from error
            finally:
                self._progress.ended()
                finished(file)

    async def _prepare(self, symbols: tuple[str, ...]) -> None:
        """The markets, and what time it is at the exchange."""
        try:
            catalogue: Catalogue = await self._tried(self._load)
            offset_ms = 0
            if self._client.has("fetchTime"):
                offset_ms = await self._tried(lambda: clock_offset_ms(self._client, self._clock))
        except ExchangeFault as fault:
            raise HistoryError(f"{self._client.access.exchange}: {fault}", 1) from None
        for symbol in symbols:
            if symbol not in catalogue.markets:
                near = closest_symbol(symbol, catalogue.listed)
                hint = f"; did you mean {near}?" if near else ""
                raise HistoryError(f'--symbol: {self._client.access.exchange} has no "{symbol}"{hint}')
        self._client.know(list(catalogue.markets.values()))
        self._closed_ms = self._clock.now_ms() + offset_ms - CLOCK_MARGIN_MS

    async def _load(self) -> Catalogue:
        result = await asyncio.shield(Loading(self._client.access, self._client.gate).future)
        if isinstance(result, ExchangeFault):
            raise result
        return result

    async def _one(self, file: File, wanted: Wanted) -> None:
        series = file.series
        with Journal(file.path.with_suffix(".pages")) as journal:
            # Not before the journal is held: another process may just have finished this file.
            known = store.covered(file.path, series)
            try:
                first = await self._oldest(series) if wanted.first is None else wanted.first
                # Later ones are not closed yet.
                end = min(wanted.end, self._closed_ms - series.step_ms + 1)
                missing = without((first, end), [*known, *journal.covered])
                self._progress.begun(f"{series.symbol} {series.timeframe}", sum(b - a for a, b in missing))
                for part in missing:
                    await self._part(file, journal, part)
            finally:
                # Cancelled or not: what came is kept.
                file.added = journal.rows
                if journal.covered:
                    asked = joined([*known, *journal.covered])
                    file.contents = store.write(file.path, series, asked, journal.pages())
                    journal.remove()
                else:
                    file.contents = store.read(file.path, series)
        begun = file.contents.first
        if not file.contents.rows:
            file.notes.append("the exchange has no candles of that time")
        elif wanted.first is not None and begun and begun >= wanted.first + series.step_ms and not file.missing:
            file.notes.append(f"the exchange has nothing before {iso8601(begun)}")

    async def _oldest(self, series: Series) -> int:
        """Some days before the first candle of all."""
        timeframe = next((name for name in COARSE if name in self._client.timeframes), series.timeframe)
        at_ms, step_ms = BEGINNING_MS, {"1w": 7, "1d": 1}.get(timeframe, 0) * 86_400_000 or series.step_ms
        while at_ms < self._closed_ms:
            candles = await self._page(series.symbol, timeframe, at_ms)
            if len(candles):
                # The coarse candle that the first one belongs to may be cut off.
                return int(candles["timestamp"][0]) - step_ms
            at_ms += self._page_rows(series.symbol) * step_ms
        return self._closed_ms

    def _page_rows(self, symbol: str) -> int:
        return self._client.candles_per_request(symbol) or PAGE_ROWS

    async def _part(self, file: File, journal: Journal, part: Range) -> None:
        """One range that is missing, from its beginning to its end."""
        series, (at, end) = file.series, part
        rows_max = self._page_rows(series.symbol)
        while at < end:
            candles = await self._page(series.symbol, series.timeframe, at)
            found = candles["timestamp"]
            if not len(candles):
                # An exchange may look at the time from ``at`` on only, as far as an answer reaches.
                reached = min(end, at + rows_max * series.step_ms)
                if reached > self._closed_ms - SETTLED_MS:
                    end = reached = max(at, self._closed_ms - SETTLED_MS)
            elif self._is_newest_only(found.tolist(), at, series.step_ms, rows_max):
                reached = at = self._skip(file, (at, min(end, int(found[0]))))
                reached = min(end, max(reached, int(found[-1]) + series.step_ms))
            else:
                reached = min(end, int(found[-1]) + series.step_ms)
            if reached > at:
                page = candles[(found >= at) & (found < reached)]
                journal.add((at, reached), page)
                self._progress.went_on(reached - at, reached, len(page))
            at = reached

    def _is_newest_only(self, found: list[int], at: int, step_ms: int, rows_max: int) -> bool:
        """Whether the answer is the newest that there are, as many as it holds, though older ones were asked for."""
        is_full = len(found) >= rows_max
        is_newest = found[-1] + 3 * step_ms > self._closed_ms
        return is_full and is_newest and found[0] > at + step_ms

    def _skip(self, file: File, part: Range) -> int:
        file.missing.append(part)
        self._progress.told(
            f"{file.series.symbol} {file.series.timeframe}: {file.series.exchange} gives the newest candles only;"
            f" {iso8601(part[0])} to {iso8601(part[1])} cannot be had from it"
        )
        self._progress.went_on(part[1] - part[0], part[1], 0)
        return part[1]

    async def _page(self, symbol: str, timeframe: str, at: int) -> Candles:
        """The candles from ``at`` on, as many as fit into an answer. None at all is believed when it is said twice."""

        async def ask() -> Candles:
            limit = self._client.candles_per_request(symbol)
            rows = await self._client.call("fetch_ohlcv", symbol, timeframe, at, limit)
            try:
                candles = candles_of(rows)
            except (ValueError, TypeError, LookupError, OverflowError) as error:
                raise ExchangeFault(Kind.MALFORMED, f"fetch_ohlcv: {error}") from None
            return candles[candles["timestamp"] >= at]

        candles: Candles = await self._tried(ask)
        if len(candles):
            return candles
        again: Candles = await self._tried(ask)
        return again

    async def _tried(self, ask: Callable[[], Any]) -> Any:
        """The answer, after as many tries as it takes; the first failure is told. Raises ExchangeFault."""
        started_s, wait_s = self._clock.monotonic(), WAIT_S
        while True:
            try:
                answer = await ask()
            except ExchangeFault as fault:
                pause_s = max(fault.retry_s or 0.0, wait_s)
                waited_s = self._clock.monotonic() - started_s
                if fault.kind in _HOPELESS or waited_s + pause_s > self._patience_s:
                    raise
                if not self._is_ill:
                    self._progress.told(f"{fault}; the next try is in {pause_s:.0f} s")
                self._is_ill = True
                wait_s = min(WAIT_MAX_S, 2 * wait_s)
                await self._clock.sleep(pause_s)
                continue
            if self._is_ill:
                self._is_ill = False
                self._progress.told("the exchange answers again")
            return answer


async def download(client: Client, clock: Clock, wanted: Wanted, progress: Progress, finished: list[File]) -> None:
    """Fetches all that is wanted; ``finished`` gets what came of each series. Raises HistoryError."""
    try:
        await Downloader(client, clock, progress).all(wanted, finished.append)
    finally:
        with suppress(asyncio.CancelledError):
            await client.close()


def document(file: File) -> dict[str, Any]:
    contents = file.contents
    return {
        **file.series.identity,
        "path": str(file.path),
        "ok": file.ok,
        "rows": contents.rows,
        "added": file.added,
        "from": contents.first,
        "to": contents.last,
        "from_datetime": _told(contents.first),
        "to_datetime": _told(contents.last),
        "gaps": contents.gaps,
        "candles_missing": contents.candles_missing,
        "first_gaps": [[iso8601(first), iso8601(end)] for first, end in contents.first_gaps],
        "not_downloaded": [[iso8601(first), iso8601(end)] for first, end in contents.holes],
        "not_to_be_had": [[iso8601(first), iso8601(end)] for first, end in file.missing],
        "notes": file.notes,
        "problem": file.problem,
    }


def _told(timestamp: int | None) -> str | None:
    return None if timestamp is None else iso8601(timestamp)
