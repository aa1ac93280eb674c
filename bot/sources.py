"""Where prices come from: the configured feed, and what has to be right with it before the first poll."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from bot.compose import markets_seen
from bot.domain import Market
from bot.exchange.client import Access
from bot.exchange.faults import ExchangeFault
from bot.exchange.lookups import Lookups
from bot.feeds import ReplayFeed, SimulatedFeed
from bot.feeds.ccxt_ticker import Caution, CcxtTickerFeed
from bot.feeds.listing import UnknownSymbols, Waits
from bot.ports import Clock, PriceFeed
from bot.repositories import Database, LedgerMissing, RunRepository, TickRepository, open_database, seals
from bot.settings import Settings, SettingsError
from bot.settings.values import closest_symbol


@asynccontextmanager
async def feed_of(
    settings: Settings, clock: Clock, log: FilteringBoundLogger, *, max_speed: bool
) -> AsyncIterator[PriceFeed]:
    feed = settings.feed
    if feed.kind == "ccxt":
        if max_speed:
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


async def ready(feed: CcxtTickerFeed, database: Database, waits: Waits) -> bool:
    """Learns the exchange's markets; False if stopped before that. ``waits`` hears why that takes long."""
    try:
        levels, known = await TickRepository(database).last_prices(), await markets_seen(database)
        return await feed.start(levels, known, waits)
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


async def check_source(settings: Settings, database: Database) -> None:
    """Raises SettingsError for a ledger whose last prices are somebody else's: a position that was bought at one
    market's prices and sold at another's makes a profit that nobody made."""
    run = await RunRepository(database).of_poll(database.cursor.polls)
    if run is None:
        return
    feed = RunRepository.config_of(run)["settings"]["feed"]
    source = feed["ccxt"]["exchange"] if feed["kind"] == "ccxt" else feed["kind"]
    if source != feed_name(settings):
        told = f"{database.path} has prices of {source}, and these would be of {feed_name(settings)}"
        raise SettingsError([f"{told}: set another storage.path"])


def feed_name(settings: Settings) -> str:
    return settings.feed.ccxt.exchange if settings.feed.kind == "ccxt" else settings.feed.kind
