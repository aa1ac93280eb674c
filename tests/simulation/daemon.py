"""The daemon as ``bot.app`` and ``bot.compose`` put it together, of parts that a test may exchange."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bot.domain import Account
from bot.engine import Engine, LoopState, Plan
from bot.execution import MockExecutor, Terms
from bot.feeds.screen import Screen
from bot.loop import Ledger, Pace, TradingLoop
from bot.ports import Clock, Executor, Observer, PriceFeed
from bot.repositories import AccountRepository, Database, SignalRepository, TickRepository, TradeRepository
from bot.settings import Settings

PRICE_DECIMALS = 2


@dataclass(frozen=True)
class Parts:
    """A planted bug is another class in one of these places."""

    loop: type[TradingLoop] = TradingLoop
    engine: type[Engine] = Engine
    state: type[LoopState] = LoopState
    executor: type[MockExecutor] = MockExecutor
    signals: type[SignalRepository] = SignalRepository
    ticks: type[TickRepository] = TickRepository
    trades: type[TradeRepository] = TradeRepository
    screen: type[Screen] = Screen

    async def composed(
        self,
        settings: Settings,
        plans: list[Plan],
        database: Database,
        feed: PriceFeed,
        clock: Clock,
        pace: Pace,
        observer: Observer,
        watched: Callable[[Executor], Executor],
    ) -> TradingLoop:
        """``watched`` stands between the loop and each of its executors."""
        accounts = AccountRepository(database)
        wanted = [Account(entry.account, "USDT", entry.capital, entry.capital) for entry in settings.strategy]
        state = self.state.empty(feed.symbols, plans, await accounts.open(wanted))
        state.restore_targets(plans, await accounts.targets())
        ticks, trades, signals = self.ticks(database), self.trades(database), self.signals(database)
        await ticks.register(dict.fromkeys(feed.symbols, PRICE_DECIMALS))
        terms = Terms(settings.execution.fee_rate, settings.execution.slippage_bps)
        executors = {
            account.name: watched(
                self.executor(
                    trades, signals, account=account, terms=terms, markets=feed.markets, last_prices=state.last_prices
                )
            )
            for account in state.accounts.values()
        }
        engine, ledger = self.engine(plans, feed.markets, terms), Ledger(database, signals, accounts, ticks)
        return self.loop(feed, engine, executors, state, ledger, clock, pace, observer)
