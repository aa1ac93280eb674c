"""The composition root: settings in, a daemon out. Whoever opens something here closes it here."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal

from structlog.typing import FilteringBoundLogger

from bot import __version__
from bot.clock import SystemClock, VirtualClock
from bot.compose import plans_of, recorded_config, recorded_markets, trading_loop
from bot.domain import Market
from bot.engine import Plan
from bot.feeds import ReplayFeed, SimulatedFeed
from bot.loop import BLOCK_TICKS, LoopStatus, Pace
from bot.ports import Clock, PriceFeed, Status
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
from bot.service.journal import Journal
from bot.service.logs import logging_to
from bot.service.stop import StopSignals
from bot.settings import Settings, SettingsError

HEARTBEAT_S = 60.0
POLL_TIMEOUT_S = 15.0
HEARTBEAT_MAX_SPEED_S = 5.0
CLOCK_TOLERANCE_MS = 60_000


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


def tune_collector() -> None:
    """What lives as long as the process is left out of the garbage collector's rounds, and those are made rarer: a
    block's rows are many small objects without cycles, and looking through them for some costs a tenth of a replay."""
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


async def run(settings: Settings, options: RunOptions, stop: StopSignals) -> Summary:
    """Runs the daemon until it is stopped, its feed ends or its polls are done."""
    tune_collector()
    system = SystemClock()
    monotonic = system.monotonic
    with logging_to(sys.stderr, settings.log.level, settings.log.format, monotonic) as log:
        virtual = options.max_speed or settings.feed.kind == "replay"
        heartbeat_s = HEARTBEAT_MAX_SPEED_S if virtual else HEARTBEAT_S
        journal = Journal(log, monotonic, heartbeat_s, quiet=virtual)
        plans = plans_of(settings, journal.strategy_failed)
        async with AsyncExitStack() as stack:
            feed = await stack.enter_async_context(_feed(settings))
            database = await stack.enter_async_context(
                open_database(settings.storage.path, synchronous=options.synchronous)
            )
            if virtual:
                clock: Clock = await _virtual_clock(settings, feed)
            else:
                _check_clock(system, database)
                clock = system
            ticks = TickRepository(database) if settings.storage.record_ticks else None
            # What was recorded faster than time is a recording, to be replayed as a whole.
            days = settings.storage.keep_ticks_days if clock.waits else 0
            retention = Retention(database, days) if days else None
            pace = _pace(settings, options, clock, database.cursor.polls)
            loop = await trading_loop(settings, plans, database, ticks, feed, clock, pace, journal, retention)
            runs = RunRepository(database)
            config = recorded_config(settings, plans, feed.markets, loop.window)
            number = await runs.start(system.now_ms(), __version__, config)
            _log_start(log, settings, database, plans)
            _wake_on_stop(stop, clock)
            reason = "failed"
            try:
                reason = await loop.run()
            finally:
                stop.release()
                # What was reported is in the file; that the disk is full now must not turn a stop into a failure.
                with suppress(LedgerBusy, StorageFull):
                    await runs.stop(number, system.now_ms(), reason)
            log.info("stopped", reason=reason, polls=database.cursor.polls)
            return _summary(settings, reason, LoopStatus(loop))


def _pace(settings: Settings, options: RunOptions, clock: Clock, polls: int) -> Pace:
    ends = (options.until_poll, options.polls and polls + options.polls)
    until = min((end for end in ends if end is not None), default=None)
    if not clock.waits:
        return Pace(settings.feed.poll_interval_ms, until_poll=until)
    return Pace(settings.feed.poll_interval_ms, POLL_TIMEOUT_S, until, settings.stale_after_ms)


@asynccontextmanager
async def _feed(settings: Settings) -> AsyncIterator[PriceFeed]:
    feed = settings.feed
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
            # The newest word on each symbol, which may be from a run before the last one.
            markets: dict[str, Market] = {}
            for run in await RunRepository(source).all():
                markets |= recorded_markets(RunRepository.config_of(run))
            wanted = {symbol: markets.get(symbol, Market(symbol, Decimal("1e-8"))) for symbol in feed.symbols}
            # Of a tape whose older part was deleted, only some ticks of that part are left.
            base = await source.run(seals.base)
            yield ReplayFeed(tape, feed.symbols, wanted, feed.poll_interval_ms, base.cursor.ticks)
    except LedgerMissing:
        raise SettingsError([f"feed.replay.path = {path!r}: there is no such file"]) from None


def _same_file(one: str, other: str) -> bool:
    # By what they are: a hard link gives one file two names.
    return os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other)


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
        feed=settings.feed.kind,
        symbols=", ".join(settings.feed.symbols),
        strategies=", ".join(plan.strategy.name for plan in plans),
        ledger=str(database.path),
        polls=database.cursor.polls,
    )


def _summary(settings: Settings, reason: str, status: Status) -> Summary:
    equity = {name: round(value, 8) for name, value in status.equity().items()}
    return Summary(
        reason,
        settings.storage.path,
        status.polls,
        status.ticks,
        status.signals,
        status.trades,
        equity,
        status.digest,
    )
