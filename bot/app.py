"""The composition root: settings in, a daemon out. Whoever opens something here closes it here."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from typing import Any

from structlog.typing import FilteringBoundLogger

from bot import __version__
from bot.clock import SystemClock, VirtualClock
from bot.domain import Account, Market, quote_currency
from bot.engine import Engine, LoopState, Plan, Sizing, SizingKind
from bot.execution import MockExecutor, Terms
from bot.feeds import ReplayFeed, SimulatedFeed
from bot.loop import Ledger, LoopStatus, Pace, TradingLoop
from bot.ports import Clock, PriceFeed, Status, Strategy
from bot.repositories import (
    AccountRepository,
    Database,
    LedgerAhead,
    LedgerBusy,
    LedgerMissing,
    RunRepository,
    SignalRepository,
    TickRepository,
    TradeRepository,
    open_database,
)
from bot.repositories.connect import Synchronous
from bot.service.journal import Journal
from bot.service.logs import logging_to
from bot.service.stop import StopSignals
from bot.settings import Settings, SettingsError, StrategySettings
from bot.settings.strategies import built

# Enough rows to make numpy's overhead vanish, few enough to keep a block's memory and its commit small.
BLOCK_TICKS = 65_536
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
        plans = plans_of(settings, journal)
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
            loop = await _loop(settings, options, plans, database, feed, clock, journal)
            runs = RunRepository(database)
            number = await runs.start(system.now_ms(), __version__, recorded_config(settings, feed.markets))
            _log_start(log, settings, database, plans)
            _wake_on_stop(stop, clock)
            reason = "failed"
            try:
                reason = await loop.run()
            finally:
                stop.release()
                with suppress(LedgerBusy):
                    await runs.stop(number, system.now_ms(), reason)
            log.info("stopped", reason=reason, polls=database.cursor.polls)
            return _summary(settings, reason, LoopStatus(loop))


def plans_of(settings: Settings, journal: Journal | None = None) -> list[Plan]:
    """The configured strategies; raises SettingsError with all that is wrong with their names and parameters."""
    entries = ((number, entry.name, entry.params) for number, entry in enumerate(settings.strategy, start=1))
    strategies, problems = built(entries, settings.strategy_folder)
    quotes = {quote_currency(symbol) for symbol in settings.feed.symbols}
    if len(quotes) > 1:
        problems.append(
            f"feed.symbols: an account has one currency, and these are quoted in {', '.join(sorted(quotes))}:"
            " keep to symbols with one quote currency"
        )
    replay = settings.feed.replay.path
    if settings.feed.kind == "replay" and not os.path.isfile(replay):
        problems.append(f"feed.replay.path = {replay!r}: there is no such file")
    if problems:
        raise SettingsError(problems)
    return [_plan(*pair, journal) for pair in zip(settings.strategy, strategies, strict=True)]


def _plan(entry: StrategySettings, strategy: Strategy, journal: Journal | None) -> Plan:
    sizes = {kind: getattr(entry, kind) for kind in SizingKind}
    kind, value = next((kind, value) for kind, value in sizes.items() if value is not None)
    plan = Plan(strategy, entry.account, Sizing(kind, value))
    if journal is None:
        return plan
    return replace(plan, on_error=lambda error: journal.strategy_failed(entry.name, error))


def recorded_config(settings: Settings, markets: Mapping[str, Market]) -> dict[str, Any]:
    """What a replay needs to decide alike: the settings and what the venue said of its markets."""
    return {
        "settings": settings.masked(),
        "markets": [
            {key: None if value is None else str(value) for key, value in asdict(market).items()}
            for market in markets.values()
        ],
    }


def recorded_markets(config: Mapping[str, Any]) -> dict[str, Market]:
    markets = {}
    for entry in config["markets"]:
        numbers: dict[str, Any] = {key: value and Decimal(value) for key, value in entry.items() if key != "symbol"}
        markets[entry["symbol"]] = Market(entry["symbol"], **numbers)
    return markets


async def _loop(
    settings: Settings,
    options: RunOptions,
    plans: list[Plan],
    database: Database,
    feed: PriceFeed,
    clock: Clock,
    journal: Journal,
) -> TradingLoop:
    accounts = AccountRepository(database)
    currency = next(iter(feed.markets.values())).quote
    wanted = [Account(entry.account, currency, entry.capital, entry.capital) for entry in settings.strategy]
    state = LoopState.empty(feed.symbols, plans, await accounts.open(wanted))
    state.restore_targets(plans, await accounts.targets())
    ticks = None
    if settings.storage.record_ticks:
        ticks = TickRepository(database)
        await ticks.register({symbol: decimals_of(market) for symbol, market in feed.markets.items()})
    trades, signals = TradeRepository(database), SignalRepository(database)
    terms = Terms(settings.execution.fee_rate, settings.execution.slippage_bps)
    executors = {
        account.name: MockExecutor(
            trades, signals, account=account, terms=terms, markets=feed.markets, last_prices=state.last_prices
        )
        for account in state.accounts.values()
    }
    # What a position costs beyond its price, so that a fraction of 1 can be paid for.
    costs = settings.execution.fee_rate + settings.execution.slippage_bps / 10_000
    ends = (options.until_poll, options.polls and database.cursor.polls + options.polls)
    until = min((end for end in ends if end is not None), default=None)
    pace = Pace(settings.feed.poll_interval_ms, POLL_TIMEOUT_S if clock.waits else None, until)
    ledger = Ledger(database, signals, accounts, ticks)
    return TradingLoop(feed, Engine(plans, feed.markets, costs), executors, state, ledger, clock, pace, journal)


def decimals_of(market: Market) -> int:
    """How many decimals a market's prices have."""
    exponent = market.price_step.normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


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
            yield ReplayFeed(tape, feed.symbols, wanted, feed.poll_interval_ms)
    except LedgerMissing:
        raise SettingsError([f"feed.replay.path = {path!r}: there is no such file"]) from None


def _same_file(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


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
