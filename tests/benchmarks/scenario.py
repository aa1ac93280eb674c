"""What the benchmarks run: the tape that every published figure is about, and a loop over it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bot.clock import VirtualClock
from bot.domain import Account, Bars, Block, FloatArray, Market
from bot.engine import Engine, LoopState, Plan, Sizing, SizingKind
from bot.execution import MockExecutor, Terms
from bot.feeds import ArrayFeed
from bot.loop import Ledger, Pace, TradingLoop
from bot.ports import Silent, Strategy
from bot.repositories import (
    AccountRepository,
    Database,
    SignalRepository,
    TickRepository,
    TradeRepository,
    open_database,
)

START_MS = 1_735_689_600_000
INTERVAL_MS = 60_000
BLOCK_TICKS = 65_536


class Line(NamedTuple):
    """``ratio`` is the figure over the reference's, or None where there is nothing to compare with."""

    what: str
    figure: str
    reference: str
    ratio: float | None
    bar: str


def prices(count: int, seed: int = 7) -> FloatArray:
    """A random walk of one-minute prices, sigma 0.001, from 50,000, in cents."""
    steps = np.random.default_rng(seed).normal(0, 0.001, count)
    return np.round(50_000 * np.exp(np.cumsum(steps)), 2)


def tape(symbols: int, count: int) -> Block:
    """``count`` polls of so many symbols, each its own walk; bid = ask = last."""
    table = np.stack([prices(count, 7 + row) for row in range(symbols)])
    times = START_MS + np.arange(count, dtype=np.int64) * INTERVAL_MS
    return Block(tuple(f"C{row}/USDT" for row in range(symbols)), times, table, table, table)


@dataclass(frozen=True, slots=True)
class Flip:
    """In and out again at every tick: the most trades a tape can make."""

    name: str = "flip"
    lookback: int = 1
    batch: bool = True

    def targets(self, bars: Bars) -> FloatArray:
        turns = (bars.timestamp // INTERVAL_MS % 2).astype(np.float64)
        return np.broadcast_to(turns, bars.close.shape).copy()


@asynccontextmanager
async def loop_over(
    block: Block,
    strategies: Sequence[Strategy],
    ledger: Path,
    *,
    polls_ahead: int = 1,
    one_by_one: bool = False,
    record: bool = False,
) -> AsyncIterator[tuple[TradingLoop, Database]]:
    """A loop on the virtual clock, one unit a position, 0.1 % fee, durable commits."""
    async with open_database(ledger) as database:
        markets = {symbol: Market(symbol, Decimal("0.01"), Decimal("0.001")) for symbol in block.symbols}
        plans = [
            Plan(strategy, f"a{number}", Sizing(SizingKind.QUANTITY, Decimal(1)))
            for number, strategy in enumerate(strategies)
        ]
        capital = Decimal(10**10)
        accounts = AccountRepository(database)
        opened = await accounts.open([Account(plan.account, "USDT", capital, capital) for plan in plans])
        trades, signals = TradeRepository(database), SignalRepository(database)
        executors = {
            name: MockExecutor(trades, signals, account=account, terms=Terms(Decimal("0.001")), markets=markets)
            for name, account in opened.items()
        }
        yield (
            TradingLoop(
                ArrayFeed(block, markets, one_by_one=one_by_one),
                Engine(plans, markets),
                executors,
                LoopState.empty(block.symbols, plans, opened),
                Ledger(database, signals, accounts, TickRepository(database) if record else None),
                VirtualClock(START_MS, polls_ahead),
                Pace(INTERVAL_MS),
                Silent(),
            ),
            database,
        )
