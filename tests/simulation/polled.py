"""The daemon as it runs for months: one poll after the other, its log and its old prices looked after; time is a
number, and nothing else about it is simulated."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

import numpy as np

from bot.app import POLL_TIMEOUT_S
from bot.clock import SystemClock
from bot.compose import plans_of, recorded_config, trading_loop
from bot.domain import Bars, Block, FloatArray
from bot.feeds import SimulatedFeed
from bot.loop import Pace
from bot.ports import FeedError
from bot.repositories import Retention, RunRepository, TickRepository, open_database
from bot.repositories.worker import InlineWorker
from bot.service.journal import Journal
from bot.service.logs import logging_to
from bot.settings import Settings
from bot.watch import HEARTBEAT_S
from tests.simulation.chance import Chance
from tests.simulation.eventloop import SimulatedLoop, simulate

START_MS = 1_735_689_600_000


class Moody:
    """A strategy that changes its mind every few ticks, and fails at some prices, each time with other words."""

    name, lookback = "moody", 1

    def targets(self, bars: Bars) -> FloatArray:
        cents = np.rint(bars.close * 100).astype(np.int64)
        if (cents % 10 == 3).any():
            raise RuntimeError(f"not at {bars.close[-1]}")
        return np.where(cents % 2, 1.0, 0.0)


class UnsteadyFeed(SimulatedFeed):
    """Fails now and then, for a while, and words it in another way each time."""

    def __init__(self, settings: Settings, failures: float) -> None:
        feed = settings.feed
        seed, volatility = feed.simulated.seed, feed.simulated.volatility
        super().__init__(feed.symbols, seed=seed, volatility=volatility, interval_ms=feed.poll_interval_ms)
        self._chance, self._failures = Chance(seed, "unsteady"), failures
        self._requests = 0

    async def poll(self, beat_ms: int, polls: int) -> Block:
        self._requests += 1
        if self._chance.hits(self._failures):
            raise FeedError(f"request {self._requests} was answered with 503 Service Unavailable: {'<br>' * 200}")
        return await super().poll(beat_ms, polls)


def polled(settings: Settings, polls: int, log: TextIO, failures: float = 0.0) -> float:
    """One life of the daemon, from its start to its end after so many polls; it begins where the ledger ends. Returns
    the seconds that it took on its own clock."""
    loop = SimulatedLoop()
    simulate(_life(settings, polls, log, failures, loop), loop)
    return loop.time()


async def _life(settings: Settings, polls: int, stream: TextIO, failures: float, loop: SimulatedLoop) -> None:
    with logging_to(stream, settings.log.level, "json", loop.time) as log:
        journal = Journal(log, loop.time, HEARTBEAT_S)
        plans = plans_of(settings, journal.strategy_failed)
        path = Path(settings.storage.path)
        async with open_database(path, worker=InlineWorker, synchronous="OFF") as database:
            start_s = max(START_MS, database.cursor.timestamp) / 1000
            clock = SystemClock(lambda: start_s + loop.time(), loop.time)
            feed = UnsteadyFeed(settings, failures)
            until = database.cursor.polls + polls
            pace = Pace(settings.feed.poll_interval_ms, POLL_TIMEOUT_S, until, settings.stale_after_ms)
            retention = Retention(database, settings.storage.keep_ticks_days)
            ticks = TickRepository(database)
            trading = await trading_loop(settings, plans, database, ticks, feed, clock, pace, journal, retention)
            runs = RunRepository(database)
            config = recorded_config(settings, plans, feed.markets, trading.window)
            number = await runs.start(clock.now_ms(), "simulated", config)
            await runs.stop(number, clock.now_ms(), await trading.run())
