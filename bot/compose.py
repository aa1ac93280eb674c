"""From settings to a trading loop: the same for a daemon, and for a replay that proves what the daemon did."""

from __future__ import annotations

import gc
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from decimal import Decimal
from hashlib import blake2b
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bot import strategies
from bot.domain import Account, Market, quote_currency
from bot.engine import Engine, LoopState, Plan, Sizing, SizingKind, lookbacks_of
from bot.exchange import library
from bot.execution import MockExecutor
from bot.fills import Terms
from bot.loop import Ledger, Pace, TradingLoop
from bot.ports import Clock, Observer, PriceFeed, Strategy
from bot.repositories import (
    AccountRepository,
    Database,
    LedgerError,
    Retention,
    RunRepository,
    SignalRepository,
    TickRepository,
    TradeRepository,
)
from bot.repositories.books import STANDALONE
from bot.settings import FeedSettings, Settings, SettingsError, StorageSettings, StrategySettings
from bot.settings.problems import showable
from bot.settings.strategies import built
from bot.timeframes import timeframe_of

Failed = Callable[[str, Exception | SystemExit], None]


def tune_collector() -> None:
    """What lives as long as the process is left out of the garbage collector's rounds, and those are made rarer: a
    block's rows are many small objects without cycles, and looking through them for some costs a tenth of a replay."""
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


def plans_of(settings: Settings, failed: Failed | None = None, *, polled: bool = True) -> list[Plan]:
    """The configured strategies; raises SettingsError with all that is wrong with their names and parameters.

    ``failed`` hears the name of a strategy that raised, and what. ``polled``: what is wrong with the feed counts too; a
    tape that is replayed, or candles, take its place.
    """
    entries = ((number, entry.name, entry.params) for number, entry in enumerate(settings.strategy, start=1))
    strategies, problems = built(entries, settings.strategy_folder)
    quotes = {quote_currency(symbol) for symbol in settings.feed.symbols}
    if len(quotes) > 1:
        problems.append(
            f"feed.symbols: an account has one currency, and these are quoted in {', '.join(sorted(quotes))}:"
            " keep to symbols with one quote currency"
        )
    if any(entry.account == STANDALONE for entry in settings.strategy):
        problems.append(f"strategy.account: {STANDALONE!r} is kept for orders made from Python; choose another name")
    if polled:
        problems += _feed_problems(settings)
    if problems:
        raise SettingsError(problems)
    return [_plan(*pair, failed) for pair in zip(settings.strategy, strategies, strict=True)]


def _feed_problems(settings: Settings) -> list[str]:
    problems, feed = [], settings.feed
    for number, entry in enumerate(settings.strategy, start=1):
        timeframe = timeframe_of(entry.timeframe)
        if timeframe is not None and feed.poll_interval_ms > timeframe.ms:
            problems.append(
                f'strategy#{number}.timeframe = "{timeframe.name}" is shorter than feed.poll_interval_s ='
                f" {feed.poll_interval_s:g}: every bar needs a poll at least"
            )
    if settings.execution.fill == "close" and feed.kind != "replay":
        problems.append(
            f'execution.fill = "close" is for candles and their replay: of {feed.kind} prices, which are polled, nobody'
            ' knows that one is the last of its bar before the next bar has begun; use "next_open"'
        )
    if feed.kind == "replay" and not os.path.isfile(feed.replay.path):
        problems.append(f"feed.replay.path = {feed.replay.path!r}: there is no such file")
    if feed.kind == "ccxt":
        problems += library.problems_of(feed.ccxt.exchange, feed.ccxt.options)
    return problems


def _plan(entry: StrategySettings, strategy: Strategy, failed: Failed | None) -> Plan:
    sizes = {kind: getattr(entry, kind) for kind in SizingKind}
    kind, value = next((kind, value) for kind, value in sizes.items() if value is not None)
    plan = Plan(strategy, entry.account, Sizing(kind, value), timeframe=timeframe_of(entry.timeframe))
    if failed is None:
        return plan
    return replace(plan, on_error=lambda error: failed(entry.name, error))


def code_of(plans: Sequence[Plan]) -> dict[str, str]:
    """A hash of the file of each strategy that is not Paperloop's own, by the strategy's name."""
    found = {}
    for plan in plans:
        kind = type(plan.strategy)
        if not kind.__module__.startswith(f"{strategies.__name__}."):
            with suppress(OSError, TypeError):
                content = Path(inspect.getfile(kind)).read_bytes()
                found[plan.strategy.name] = blake2b(content, digest_size=16).hexdigest()
    return found


def recorded_config(
    settings: Settings, plans: Sequence[Plan], markets: Mapping[str, Market], window: int
) -> dict[str, Any]:
    """What a replay needs to decide alike: the settings, the code of own strategies (to tell that it has changed), what
    the venue said of its markets, and how many ticks and bars of each symbol the strategies look back on."""
    shown = settings.masked()
    # A parameter may be called key or token without being one, and a replay needs its value.
    shown["strategy"] = showable(settings.strategy, mask=False)
    if shown["strategy_folder"]:
        shown["strategy_folder"] = os.path.abspath(shown["strategy_folder"])
    return {
        "settings": shown,
        "markets": [
            {key: None if value is None else str(value) for key, value in asdict(market).items()}
            for market in markets.values()
        ],
        "window": window,
        "bars": {timeframe.name: count for timeframe, count in lookbacks_of(plans)},
        "code": code_of(plans),
    }


def recorded_settings(config: Mapping[str, Any]) -> Settings:
    """The settings of a recorded run, as far as its decisions depend on them. Raises LedgerError."""
    try:
        stored = config["settings"]
        return Settings(
            strategy_folder=stored["strategy_folder"],
            feed=FeedSettings.model_validate({key: stored["feed"][key] for key in ("symbols", "poll_interval_s")}),
            strategy=stored["strategy"],
            execution=stored["execution"],
            storage=StorageSettings(record_ticks=stored["storage"]["record_ticks"]),
        )
    except ValidationError as error:
        told = [f"{'.'.join(map(str, each['loc']))} = {each['input']!r}: {each['msg']}" for each in error.errors()]
        raise LedgerError(f"a run was recorded with settings that cannot be used now: {'; '.join(told)}") from None
    except (LookupError, TypeError) as error:
        raise LedgerError(f"a run's configuration was altered: {error!r}") from None


def recorded_markets(config: Mapping[str, Any]) -> dict[str, Market]:
    """What the venue said when the run was recorded; of what was not asked then, nothing was said."""
    markets = {}
    for entry in config["markets"]:
        numbers: dict[str, Any] = {key: value and Decimal(value) for key, value in entry.items() if key != "symbol"}
        markets[entry["symbol"]] = Market(entry["symbol"], **numbers)
    return markets


async def markets_seen(database: Database) -> dict[str, Market]:
    """The newest word on each symbol of a ledger, which may be from a run before the last one."""
    markets: dict[str, Market] = {}
    for run in await RunRepository(database).all():
        markets |= recorded_markets(RunRepository.config_of(run))
    return markets


async def trading_loop(
    settings: Settings,
    plans: Sequence[Plan],
    database: Database,
    ticks: TickRepository | None,
    feed: PriceFeed,
    clock: Clock,
    pace: Pace,
    observer: Observer,
    retention: Retention | None = None,
) -> TradingLoop:
    """The loop for a feed and a ledger, with the state that the ledger holds. Without ``ticks`` it has no tape."""
    accounts = AccountRepository(database)
    currency = next(iter(feed.markets.values())).quote
    wanted = [Account(entry.account, currency, entry.capital, entry.capital) for entry in settings.strategy]
    at_close = settings.execution.fill == "close"
    state = LoopState.empty(feed.symbols, plans, await accounts.open(wanted), at_close=at_close)
    state.restore_targets(plans, await accounts.targets())
    if ticks is not None:
        await ticks.register({symbol: _decimals_of(market) for symbol, market in feed.markets.items()})
    trades, signals = TradeRepository(database), SignalRepository(database)
    terms = Terms(settings.execution.fee_rate, settings.execution.slippage_bps)
    executors = {
        account.name: MockExecutor(
            trades, signals, account=account, terms=terms, markets=feed.markets, last_prices=state.last_prices
        )
        for account in state.accounts.values()
    }
    ledger = Ledger(database, signals, accounts, ticks, retention)
    return TradingLoop(
        feed,
        Engine(plans, feed.markets, terms),
        executors,
        state,
        ledger,
        clock,
        pace,
        observer,
    )


def _decimals_of(market: Market) -> int:
    """How many decimals a market's prices have."""
    exponent = market.price_step.normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0
