"""The composition root: settings in, a daemon out. Whoever opens something here closes it here."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from bot import __version__
from bot.clock import SystemClock, VirtualClock
from bot.compose import markets_seen, plans_of, recorded_config, trading_loop, tune_collector
from bot.domain import Market, plain
from bot.engine import Plan
from bot.exchange.client import Access
from bot.exchange.faults import ExchangeFault
from bot.exchange.lookups import Lookups
from bot.feeds import ReplayFeed, SimulatedFeed
from bot.feeds.ccxt_ticker import Caution, CcxtTickerFeed
from bot.feeds.listing import UnknownSymbols
from bot.loop import BLOCK_TICKS, LoopStatus, Pace, TradingLoop
from bot.ports import Clock, PriceFeed
from bot.repositories import (
    Database,
    LedgerAhead,
    LedgerBusy,
    LedgerMissing,
    Retention,
    RunRepository,
    StorageFull,
    TickRepository,
    open_database,
    seals,
)
from bot.repositories.connect import Synchronous
from bot.repositories.cursor import Cursor
from bot.service.journal import Journal
from bot.service.logs import logging_to
from bot.service.stop import StopSignals
from bot.settings import Settings, SettingsError
from bot.settings.values import closest_symbol

HEARTBEAT_S = 60.0
POLL_TIMEOUT_S = 15.0
# Each request to an exchange has a deadline of its own; this one is for several of them.
EXCHANGE_TIMEOUT_S = 120.0
HEARTBEAT_MAX_SPEED_S = 5.0
CLOCK_TOLERANCE_MS = 60_000
NAMES_MAX = 8


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the command line adds to the settings."""

    max_speed: bool = False
    polls: int | None = None
    until_poll: int | None = None
    # Not on the command line: less than FULL is for the proof that FULL is needed.
    synchronous: Synchronous = "FULL"


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run leaves behind; counts are of the whole ledger."""

    reason: str
    ledger: str
    polls: int
    ticks: int
    signals: int
    trades: int
    equity: dict[str, float]
    digest: str


async def run(settings: Settings, options: RunOptions, stop: StopSignals) -> Summary:
    """Runs the daemon until it is stopped, its feed ends or its polls are done."""
    system = SystemClock()
    monotonic = system.monotonic
    with logging_to(sys.stderr, settings.log.level, settings.log.format, monotonic) as log:
        virtual = options.max_speed or settings.feed.kind == "replay"
        if virtual:
            # Not where time passes by itself: what an exchange's client leaves behind must not stay for months.
            tune_collector()
        heartbeat_s = HEARTBEAT_MAX_SPEED_S if virtual else HEARTBEAT_S
        journal = Journal(log, monotonic, heartbeat_s, quiet=virtual)
        plans = plans_of(settings, journal.strategy_failed)
        async with AsyncExitStack() as stack:
            feed = await stack.enter_async_context(_feed(settings, options, system, log))
            database = await stack.enter_async_context(
                open_database(settings.storage.path, synchronous=options.synchronous)
            )
            if virtual:
                clock: Clock = await _virtual_clock(settings, feed)
            else:
                _check_clock(system, database)
                clock = system
            _wake_on_stop(stop, clock)
            await _check_source(settings, database)
            ticks = TickRepository(database) if settings.storage.record_ticks else None
            if isinstance(feed, CcxtTickerFeed):
                journal.feed_counts = feed.counts
                if not await _ready(feed, database):
                    log.info("stopped", reason="stopped", polls=database.cursor.polls)
                    return _summary(settings, "stopped", database.cursor, {}, database.digest)
            # What was recorded faster than time is a recording, to be replayed as a whole.
            days = settings.storage.keep_ticks_days if clock.waits else 0
            retention = Retention(database, days) if days else None
            pace = _pace(settings, options, clock, database.cursor.polls)
            loop = await trading_loop(settings, plans, database, ticks, feed, clock, pace, journal, retention)
            runs = RunRepository(database)
            config = recorded_config(settings, plans, feed.markets, loop.window)
            number = await runs.start(system.now_ms(), __version__, config)
            _log_start(log, settings, database, plans)
            _log_left_alone(log, settings, loop)
            reason = "failed"
            try:
                reason = await loop.run()
            finally:
                stop.release()
                # What was reported is in the file; that the disk is full now must not turn a stop into a failure.
                with suppress(LedgerBusy, StorageFull):
                    await runs.stop(number, system.now_ms(), reason)
            log.info("stopped", reason=reason, polls=database.cursor.polls)
            return _summary(settings, reason, database.cursor, LoopStatus(loop).equity(), database.digest)


def _pace(settings: Settings, options: RunOptions, clock: Clock, polls: int) -> Pace:
    ends = (options.until_poll, options.polls and polls + options.polls)
    until = min((end for end in ends if end is not None), default=None)
    if not clock.waits:
        return Pace(settings.feed.poll_interval_ms, until_poll=until)
    timeout_s = EXCHANGE_TIMEOUT_S if settings.feed.kind == "ccxt" else POLL_TIMEOUT_S
    return Pace(settings.feed.poll_interval_ms, timeout_s, until, settings.stale_after_ms)


@asynccontextmanager
async def _feed(
    settings: Settings, options: RunOptions, clock: Clock, log: FilteringBoundLogger
) -> AsyncIterator[PriceFeed]:
    feed = settings.feed
    if feed.kind == "ccxt":
        if options.max_speed:
            raise SettingsError(['--max-speed is for simulated prices: with feed.kind = "ccxt" time passes by itself'])
        asyncio.get_running_loop().set_default_executor(Lookups())
        exchange = _exchange_feed(settings, clock, log)
        try:
            yield exchange
        finally:
            await exchange.close()
        return
    if feed.kind == "simulated":
        simulated = feed.simulated
        yield SimulatedFeed(
            feed.symbols, seed=simulated.seed, volatility=simulated.volatility, interval_ms=feed.poll_interval_ms
        )
        return
    path = feed.replay.path
    if _same_file(path, settings.storage.path):
        raise SettingsError([f"feed.replay.path = {path!r} is the ledger itself: set another storage.path"])
    try:
        async with open_database(path, read_only=True) as source:
            tape = TickRepository(source)
            known = {symbol for symbol, _ in (await tape.symbols()).values()}
            missing = [symbol for symbol in feed.symbols if symbol not in known]
            if missing:
                has = f"it has {', '.join(sorted(known))}" if known else "it has no prices"
                raise SettingsError([f"feed.symbols: {path} has no prices of {', '.join(missing)}; {has}"])
            markets = await markets_seen(source)
            wanted = {symbol: markets.get(symbol, Market(symbol, Decimal("1e-8"))) for symbol in feed.symbols}
            # Of a tape whose older part was deleted, only some ticks of that part are left.
            base = await source.run(seals.base)
            yield ReplayFeed(tape, feed.symbols, wanted, feed.poll_interval_ms, base.cursor.ticks)
    except LedgerMissing:
        raise SettingsError([f"feed.replay.path = {path!r}: there is no such file"]) from None


def _exchange_feed(settings: Settings, clock: Clock, log: FilteringBoundLogger) -> CcxtTickerFeed:
    given = settings.feed.ccxt
    access = Access(given.exchange, given.base_url, given.options, settings.feed.symbols)
    frozen_after_ms = round(given.frozen_after_s * 1000) or None
    caution = Caution(settings.stale_after_ms, given.jump_max, frozen_after_ms=frozen_after_ms)
    return CcxtTickerFeed(access, clock, caution, markets_file(settings), log)


async def _ready(feed: CcxtTickerFeed, database: Database) -> bool:
    """Learns the exchange's markets; False if stopped before that."""
    try:
        return await feed.start(await TickRepository(database).last_prices(), await markets_seen(database))
    except UnknownSymbols as error:
        problems = []
        for symbol in error.symbols:
            near = closest_symbol(symbol, error.listed)
            hint = f"; did you mean {near}?" if near else ""
            problems.append(f'feed.symbols: {feed.client.access.exchange} has no "{symbol}"{hint}')
        raise SettingsError(problems) from None
    except ExchangeFault as fault:
        raise SettingsError([f"feed.ccxt: {fault}"]) from None
    except ValueError as error:
        raise SettingsError([f"feed.symbols: {error}"]) from None


def markets_file(settings: Settings) -> Path:
    """Where an exchange's markets are kept: beside the ledger."""
    return Path(f"{settings.storage.path}.markets.json")


def _same_file(one: str, other: str) -> bool:
    # By what they are: a hard link gives one file two names.
    return os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other)


async def _check_source(settings: Settings, database: Database) -> None:
    """Raises SettingsError for a ledger whose last prices are somebody else's: a position that was bought at one
    market's prices and sold at another's makes a profit that nobody made."""
    run = await RunRepository(database).of_poll(database.cursor.polls)
    if run is None:
        return
    feed = RunRepository.config_of(run)["settings"]["feed"]
    source = feed["ccxt"]["exchange"] if feed["kind"] == "ccxt" else feed["kind"]
    if source != _feed_name(settings):
        told = f"{database.path} has prices of {source}, and these would be of {_feed_name(settings)}"
        raise SettingsError([f"{told}: set another storage.path"])


def _check_clock(clock: Clock, database: Database) -> None:
    if database.cursor.timestamp > clock.now_ms() + CLOCK_TOLERANCE_MS:
        raise LedgerAhead(
            f"{database.path} ends in the future of this machine's clock: the clock is not set yet, or the ledger"
            " was written with --max-speed and another storage.path is needed"
        )


async def _virtual_clock(settings: Settings, feed: PriceFeed) -> VirtualClock:
    start_ms = await feed.first_ms() if isinstance(feed, ReplayFeed) else settings.feed.simulated.start_ms
    return VirtualClock(start_ms, max(1, BLOCK_TICKS // len(feed.symbols)))


def _wake_on_stop(stop: StopSignals, clock: Clock) -> None:
    running = asyncio.get_running_loop()
    stop.listen(lambda: running.call_soon_threadsafe(clock.stop))


def _log_start(log: FilteringBoundLogger, settings: Settings, database: Database, plans: list[Plan]) -> None:
    log.info(
        "paperloop",
        version=__version__,
        feed=_feed_name(settings),
        symbols=_few(settings.feed.symbols),
        strategies=_few([plan.account for plan in plans]),
        ledger=str(database.path),
        polls=database.cursor.polls,
    )


def _log_left_alone(log: FilteringBoundLogger, settings: Settings, loop: TradingLoop) -> None:
    """Positions of symbols that were taken out of the settings: nobody closes them, and their price stands still."""
    for account in loop.state.accounts.values():
        for position in account.positions.values():
            if position.quantity and position.symbol not in settings.feed.symbols:
                held = {"account": account.name, "symbol": position.symbol, "quantity": plain(position.quantity)}
                log.warning("holds what is no longer watched", **held)


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMES_MAX} more" if len(names) > NAMES_MAX else ""
    return ", ".join(names[:NAMES_MAX]) + more


def _feed_name(settings: Settings) -> str:
    return settings.feed.ccxt.exchange if settings.feed.kind == "ccxt" else settings.feed.kind


def _summary(settings: Settings, reason: str, cursor: Cursor, equity: dict[str, float], digest: str) -> Summary:
    equity = {name: round(value, 8) for name, value in equity.items()}
    return Summary(
        reason,
        settings.storage.path,
        cursor.polls,
        cursor.ticks,
        cursor.signals,
        cursor.trades,
        equity,
        digest,
    )
