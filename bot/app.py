"""The composition root: settings in, a daemon out. Whoever opens something here closes it here."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass

from structlog.typing import FilteringBoundLogger

from bot import __version__
from bot.clock import SystemClock, VirtualClock
from bot.compose import plans_of, recorded_config, trading_loop, tune_collector
from bot.domain import few, plain
from bot.engine import Plan
from bot.feeds import ReplayFeed
from bot.feeds.ccxt_ticker import CcxtTickerFeed
from bot.loop import BLOCK_TICKS, Pace, TradingLoop
from bot.ports import Clock, PriceFeed
from bot.repositories import (
    Database,
    LedgerAhead,
    LedgerBusy,
    LedgerError,
    Retention,
    RunRepository,
    StorageFull,
    TickRepository,
    open_database,
)
from bot.repositories.connect import Synchronous
from bot.service import inspect
from bot.service.http.errors import PortTaken
from bot.service.logs import Threshold, crashes_told, logging_to
from bot.service.plain import without
from bot.service.stop import StopSignals
from bot.settings import Settings, SettingsError
from bot.sources import check_source, feed_name, feed_of, ready
from bot.watch import Watch

POLL_TIMEOUT_S = 15.0
# Each request to an exchange has a deadline of its own; this one is for several of them.
EXCHANGE_TIMEOUT_S = 120.0
CLOCK_TOLERANCE_MS = 60_000


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the command line adds to the settings."""

    max_speed: bool = False
    polls: int | None = None
    until_poll: int | None = None
    # How the settings are read again; raises SettingsError.
    reread: Callable[[], Settings] | None = None
    # Not on the command line: less than FULL is for the proof that FULL is needed.
    synchronous: Synchronous = "FULL"


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run leaves behind; counts are of the whole ledger. ``failed``: it stopped, in good order, because
    something beside the loop had died."""

    reason: str
    ledger: str
    polls: int
    ticks: int
    signals: int
    trades: int
    equity: dict[str, float]
    digest: str
    failed: bool = False


async def run(settings: Settings, options: RunOptions, stop: StopSignals) -> Summary:
    """Runs the daemon until it is stopped, its feed ends or its polls are done."""
    system = SystemClock()
    virtual = options.max_speed or settings.feed.kind == "replay"
    if virtual:
        # Not where time passes by itself: what an exchange's client leaves behind must not stay for months.
        tune_collector()
    level, form = Threshold(settings.log.level), settings.log.format
    token = settings.http.secret()
    secrets = {*settings.secrets(), token} - {""}
    with (
        logging_to(sys.stderr, level, form, system.monotonic, secrets=secrets) as log,
        crashes_told(log, (SettingsError, LedgerError, PortTaken)),
        Watch(settings, system, log, level, without(secrets), token, virtual=virtual) as watch,
    ):
        return await _run(settings, options, stop, system, watch)


async def _run(
    settings: Settings, options: RunOptions, stop: StopSignals, system: SystemClock, watch: Watch
) -> Summary:
    log = watch.log
    plans = plans_of(settings, watch.journal.strategy_failed)
    async with AsyncExitStack() as stack:
        feed = await stack.enter_async_context(feed_of(settings, system, log, max_speed=options.max_speed))
        database = await stack.enter_async_context(
            open_database(settings.storage.path, synchronous=options.synchronous)
        )
        if watch.virtual:
            clock: Clock = await _virtual_clock(settings, feed)
        else:
            _check_clock(system, database)
            clock = system
        _wake_on_stop(stop, clock)
        # Last of all that is closed here, and before the event loop: it cannot be woken after that.
        stack.callback(stop.release)
        await check_source(settings, database)
        # What was recorded faster than time is a recording, to be replayed as a whole.
        retention = Retention(database, settings.storage.keep_ticks_days) if clock.waits else None
        side = await stack.enter_async_context(watch.beside(clock.stop, database.path, stop, options.reread, retention))
        if isinstance(feed, CcxtTickerFeed):
            watch.counts(feed.counts)
            # It may take as long as the exchange is down; what is in the ledger can be seen meanwhile.
            known = await inspect.status(database, system.now_ms(), watch.vitals.stale_after_s)
            watch.vitals.recovered(known, database.cursor.timestamp)
            if not await ready(feed, database, watch.waiting):
                return _summary(settings, log, side.died or "stopped", database, {}, failed=side.died is not None)
        ticks = TickRepository(database) if settings.storage.record_ticks else None
        pace = _pace(settings, options, clock, database.cursor.polls)
        loop = await trading_loop(settings, plans, database, ticks, feed, clock, pace, watch.observer, retention)
        runs = RunRepository(database)
        config = recorded_config(settings, plans, feed.markets, loop.window)
        number = await runs.start(system.now_ms(), __version__, config)
        _log_start(log, settings, database, plans)
        _log_left_alone(log, settings, loop)
        reason = "failed"
        try:
            reason = await loop.run()
            # What ended the loop from beside it is the reason.
            reason = side.died or reason
        finally:
            # What was reported is in the file; that the disk is full now must not turn a stop into a failure.
            with suppress(LedgerBusy, StorageFull):
                await runs.stop(number, system.now_ms(), reason)
        return _summary(settings, log, reason, database, loop.state.equity(), failed=side.died is not None)


def _pace(settings: Settings, options: RunOptions, clock: Clock, polls: int) -> Pace:
    ends = (options.until_poll, options.polls and polls + options.polls)
    until = min((end for end in ends if end is not None), default=None)
    if not clock.waits:
        return Pace(settings.feed.poll_interval_ms, until_poll=until)
    timeout_s = EXCHANGE_TIMEOUT_S if settings.feed.kind == "ccxt" else POLL_TIMEOUT_S
    return Pace(settings.feed.poll_interval_ms, timeout_s, until, settings.stale_after_ms)


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
        feed=feed_name(settings),
        symbols=few(settings.feed.symbols),
        strategies=few([plan.account for plan in plans]),
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


def _summary(
    settings: Settings,
    log: FilteringBoundLogger,
    reason: str,
    database: Database,
    equity: dict[str, float],
    *,
    failed: bool,
) -> Summary:
    cursor = database.cursor
    log.info("stopped", reason=reason, polls=cursor.polls)
    return Summary(
        reason,
        settings.storage.path,
        cursor.polls,
        cursor.ticks,
        cursor.signals,
        cursor.trades,
        {name: round(value, 8) for name, value in equity.items()},
        database.digest,
        failed,
    )
