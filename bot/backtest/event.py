"""The event-driven backtest: candles lived through by the trading loop itself, every fill durable in a ledger."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from bot import __version__
from bot.backtest.feed import CandleFeed
from bot.backtest.trades import Trades
from bot.clock import SystemClock, VirtualClock
from bot.compose import Failed, plans_of, recorded_config, trading_loop
from bot.domain import Account, Bars, Market
from bot.engine import Plan
from bot.loop import BLOCK_TICKS, Pace
from bot.ports import Silent, Status
from bot.repositories import (
    AccountRepository,
    Database,
    LedgerBusy,
    RunRepository,
    StorageFull,
    TickRepository,
    open_database,
)
from bot.repositories.errors import LedgerPath, PricesTooFine
from bot.settings import Settings, SettingsError
from bot.timeframes import TICK, TIMEFRAMES, Timeframe

# No feed of the daemon's has this name: it goes on with no ledger of a backtest.
FEED = "backtest"
ROWS_AT_ONCE = 8_192
_TRADES = "SELECT account, timestamp, symbol, side = 'buy', price, quantity, fee, pnl FROM trades ORDER BY id"
_REFUSED = "SELECT account, reason, count(*) FROM signals WHERE verdict = 'refused' GROUP BY account, reason"


@dataclass(frozen=True, slots=True, repr=False)
class Lived:
    """What a run left in its ledger, by account: its fills, how often a signal was refused for which reason, its money
    and positions at the end. ``reason`` is why the run ended, ``digest`` that of all its decisions."""

    trades: dict[str, Trades]
    refused: dict[str, dict[str, int]]
    accounts: dict[str, Account]
    polls: int
    digest: str
    reason: str


async def lived(
    settings: Settings,
    streams: Mapping[str, Iterable[Bars]],
    timeframe: Timeframe,
    markets: Mapping[str, Market],
    *,
    start_ms: int | None = None,
    persist: Path | None = None,
    plans: Sequence[Plan] | None = None,
    failed: Failed | None = None,
    progress: Callable[[int], None] | None = None,
) -> Lived:
    """Trades the strategies of the settings on candles of one timeframe, for the symbols of the settings.

    ``streams`` has the candles, see ``CandleFeed``; those before ``start_ms`` (None: none) are only looked back on. A
    strategy on ticks takes the candles' own timeframe. The ledger is a temporary file, or ``persist``, which must not
    exist yet and holds the prices too. ``failed`` hears of strategies that raise, ``progress`` which time is reached.

    Raises SettingsError, LedgerError, and ValueError for candles out of order.
    """
    settings = on_candles(settings, timeframe)
    storage = settings.storage.model_copy(update={"record_ticks": persist is not None})
    settings = settings.model_copy(update={"storage": storage})
    plans = plans or plans_of(settings, failed, polled=False)
    symbols = settings.feed.symbols
    streams = {symbol: streams[symbol] for symbol in symbols}
    markets = {symbol: markets[symbol] for symbol in symbols}
    feed = CandleFeed(streams, timeframe, markets, at_close=settings.execution.fill == "close")
    # Asked before there is a ledger: candles that cannot be read leave none behind.
    first_ms = feed.first_ms() or 0
    if start_ms is not None:
        # A candle that began before is history as a whole.
        first_ms = max(first_ms, timeframe.back(timeframe.open_of(start_ms - 1), -1))
    clock = VirtualClock(first_ms, max(1, BLOCK_TICKS // len(symbols)))
    async with _ledger(persist) as database:
        ticks = TickRepository(database) if settings.storage.record_ticks else None
        observer = _Progress(progress) if progress else Silent()
        # A beat a millisecond: the next tick is the next poll, however soon it is.
        loop = await trading_loop(settings, plans, database, ticks, feed, clock, Pace(1), observer)
        config = recorded_config(settings, plans, markets, loop.window)
        config["settings"]["feed"]["kind"] = FEED
        runs, wall = RunRepository(database), SystemClock()
        number = await runs.start(wall.now_ms(), __version__, config)
        reason = "failed"
        try:
            reason = await loop.run()
        except PricesTooFine as error:
            raise SettingsError([f"{error}, and a ledger keeps its prices exactly: round the candles"]) from None
        finally:
            with suppress(LedgerBusy, StorageFull):
                await runs.stop(number, wall.now_ms(), reason)
        return await _read(database, settings, reason)


def on_candles(settings: Settings, timeframe: Timeframe) -> Settings:
    """The settings with a strategy on ticks put on candles of this timeframe. Raises SettingsError for bars that the
    candles do not add up to."""
    entries, problems = [], []
    for number, entry in enumerate(settings.strategy, start=1):
        name = timeframe.name if entry.timeframe == TICK else entry.timeframe
        if not timeframe.makes(TIMEFRAMES[name]):
            problems.append(
                f'strategy#{number}.timeframe = "{name}": candles of {timeframe.name} do not add up to that'
            )
        entries.append(entry.model_copy(update={"timeframe": name}))
    if problems:
        raise SettingsError(problems)
    return settings.model_copy(update={"strategy": tuple(entries)})


@asynccontextmanager
async def _ledger(persist: Path | None) -> AsyncIterator[Database]:
    if persist is not None:
        _check_new(persist)
        async with open_database(persist) as database:
            yield database
        return
    with TemporaryDirectory(prefix="paperloop-") as folder:
        async with open_database(Path(folder, "backtest.db")) as database:
            yield database


def _check_new(path: Path) -> None:
    if os.path.lexists(path):
        raise LedgerPath(f"{path} exists already: a backtest is kept in a ledger of its own, name a new file")


class _Progress(Silent):
    def __init__(self, told: Callable[[int], None]) -> None:
        self._told = told

    def stepped(self, status: Status) -> None:
        self._told(status.timestamp)


async def _read(database: Database, settings: Settings, reason: str) -> Lived:
    names = [entry.account for entry in settings.strategy]
    refused: dict[str, dict[str, int]] = {name: {} for name in names}
    for name, why, count in await database.fetch(_REFUSED):
        refused[name][why] = count
    trades = await _trades(database, names, settings.feed.symbols)
    accounts = await AccountRepository(database).load()
    return Lived(trades, refused, accounts, database.cursor.polls, database.digest, reason)


async def _trades(database: Database, names: Sequence[str], symbols: tuple[str, ...]) -> dict[str, Trades]:
    """All fills by account, read once and part by part: as rows they are many times as large."""
    account_of = {name: number for number, name in enumerate(names)}
    symbol_of = {symbol: number for number, symbol in enumerate(symbols)}
    kinds = (np.int64, np.int64, np.int64, np.bool_, *(np.float64,) * 4)
    columns: list[npt.NDArray[Any]] = [np.empty(database.cursor.trades, kind) for kind in kinds]
    start = 0
    async for rows in database.stream(_TRADES, ROWS_AT_ONCE):
        part = slice(start, start + len(rows))
        account, timestamp, symbol, buy, *amounts = zip(*rows, strict=True)
        values = [[account_of[name] for name in account], timestamp, [symbol_of[name] for name in symbol], buy]
        for column, found in zip(columns, [*values, *([*map(float, each)] for each in amounts)], strict=True):
            column[part] = found
        start = part.stop
    owner, *fills = columns
    if len(names) == 1:
        return {names[0]: Trades(symbols, *fills)}
    mine = {name: owner == number for name, number in account_of.items()}
    return {name: Trades(symbols, *(column[chosen] for column in fills)) for name, chosen in mine.items()}
