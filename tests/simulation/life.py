"""One process of the daemon, from its start to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from bot.app import CLOCK_TOLERANCE_MS, POLL_TIMEOUT_S
from bot.clock import SystemClock
from bot.compose import plans_of, recorded_config
from bot.domain import Account, OrderSide, OrderType, Signal
from bot.engine import Plan
from bot.loop import Pace
from bot.ports import Executor, Observer, Silent, Status
from bot.repositories import LedgerAhead, LedgerBusy, RunRepository, StorageFull, TickRepository, open_database
from bot.repositories.errors import StorageFailed
from bot.service.journal import Journal
from bot.service.logs import logging_to
from bot.settings import Settings
from bot.watch import HEARTBEAT_S
from tests.simulation.chance import QUIET, Rates
from tests.simulation.checks import Told
from tests.simulation.disk import Left, SlowWorker
from tests.simulation.eventloop import passed
from tests.simulation.venue import ScreenedFeed

if TYPE_CHECKING:
    from tests.simulation.world import World


class Life:
    """One process of the daemon, from its start to its end. Implements what the disk (``Host``) sees of it, and is
    the loop's observer."""

    def __init__(self, world: World, settings: Settings) -> None:
        self.world, self.settings = world, settings
        self.path, self.chance = world.path, world.chance
        self.dead = False
        self.told_polls = world.checks.polls
        # When the prices came that are traded on next, and when that began.
        self.answered_ms = self.began_ms = 0
        self._left: asyncio.Future[Left] = world.loop.create_future()
        self._clock: SystemClock | None = None
        self._task: asyncio.Task[str] | None = None
        self.accounts: Mapping[str, Account] | None = None
        self.journal: Observer = Silent()

    @property
    def rates(self) -> Rates:
        return QUIET if self.dead else self.world.rates

    async def live(self) -> str:
        """Returns how it ended."""
        self._task = asyncio.create_task(self._run())
        either: set[asyncio.Future[Any]] = {self._task, self._left}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not self.dead:
            return self._ended(self._task)
        # What it still does while it is taken apart is done to files that are thrown away.
        self._task.cancel()
        await asyncio.wait({self._task})
        self._left.result().restore()
        return "killed"

    def _ended(self, task: asyncio.Task[str]) -> str:
        self.dead = True
        if task.cancelled():
            return "cancelled"
        error = task.exception()
        if error is None:
            return task.result()
        if isinstance(error, LedgerBusy | LedgerAhead | StorageFull | StorageFailed):
            return type(error).__name__
        raise error

    def meet(self, fate: str) -> None:
        if self.dead or self._task is None or self._task.done():
            return
        self.note(fate)
        match fate:
            case "kill":
                self.killed(Left(self.path))
            case "stop" if self._clock is not None:
                self._clock.stop()
            case "stop" | "cancel":
                self._task.cancel()
            case "pause":
                self.world.pause(self.chance.between(1, 600))

    def killed(self, left: Left) -> None:
        self.note("killed")
        self.dead = True
        self._left.set_result(left)

    def note(self, *event: object) -> None:
        if not self.dead:
            self.world.note(*event)

    def befall(self, seconds: float, rate: float) -> None:
        self.world.befall(seconds, rate)

    async def _run(self) -> str:
        with logging_to(self.world.log, "info", "json", self.world.loop.time) as log:
            journal = self.journal = Journal(log, self.world.loop.time, HEARTBEAT_S)
            return await self._trade(plans_of(self.settings, journal.strategy_failed))

    async def _trade(self, plans: list[Plan]) -> str:
        world, settings, parts = self.world, self.settings, self.world.parts
        symbols = settings.feed.symbols
        async with open_database(self.path, worker=SlowWorker.on(self), synchronous="OFF") as database:
            world.opened = True
            if database.cursor.polls != world.checks.polls:
                world.violated(f"{world.checks.polls} polls were in the file, it begins after {database.cursor.polls}")
            clock = self._clock = SystemClock(world.wall, world.loop.time)
            if database.cursor.timestamp > clock.now_ms() + CLOCK_TOLERANCE_MS:
                raise LedgerAhead("the clock is not set yet")
            levels = await TickRepository(database).last_prices()
            screen = parts.screen(symbols, stale_after_ms=settings.stale_after_ms, levels=levels)
            feed = ScreenedFeed(world.venue, symbols, screen, world)
            pace = Pace(settings.feed.poll_interval_ms, POLL_TIMEOUT_S, None, settings.stale_after_ms)
            loop = await parts.composed(
                settings, plans, database, feed, clock, pace, self, lambda executor: Watched(executor, self)
            )
            self.accounts = loop.state.accounts
            runs = RunRepository(database)
            config = recorded_config(settings, plans, feed.markets, loop.window)
            number = await runs.start(clock.now_ms(), "simulated", config)
            reason = "failed"
            try:
                reason = await loop.run()
            finally:
                with suppress(LedgerBusy, StorageFull):
                    await runs.stop(number, clock.now_ms(), reason)
            return reason

    # What the loop reports.

    def filled(self, signal: Signal, order: Mapping[str, Any]) -> None:
        self.note("filled", *signal, order["price"], order["amount"])
        self._told(Told(signal, order["id"], order["price"], None))
        self.journal.filled(signal, order)

    def refused(self, signal: Signal, reason: str) -> None:
        self.note("refused", *signal, reason)
        self._told(Told(signal, None, None, reason))
        self.journal.refused(signal, reason)

    def interrupted(self, error: Exception, retry_s: float) -> None:
        self.note("interrupted", type(error).__name__, retry_s)
        self.journal.interrupted(error, retry_s)

    def resumed(self, outage_s: float, failures: int) -> None:
        self.note("resumed", outage_s, failures)
        self.journal.resumed(outage_s, failures)

    def stepped(self, status: Status) -> None:
        if self.dead:
            return
        self.told_polls += 1
        if status.polls != self.told_polls:
            self.world.violated(f"poll {status.polls} is reported after {self.told_polls - 1}")
        self.note("stepped", status.polls, status.timestamp, status.digest)
        self.journal.stepped(status)

    def _told(self, told: Told) -> None:
        if not self.dead:
            self.world.checks.told.append(told)


class Watched:
    """An executor that takes its time now and then, and whose orders are looked at: nobody trades on old prices."""

    def __init__(self, executor: Executor, life: Life) -> None:
        self._executor, self._life = executor, life
        self.get_position, self.reset_position_cache = executor.get_position, executor.reset_position_cache

    async def execute_order(
        self,
        symbol: str,
        side: OrderSide,
        quantity: float | Decimal,
        order_type: OrderType = OrderType.MARKET,
        price: float | Decimal | None = None,
        *,
        signal: Signal | None = None,
        told: bool = True,
    ) -> dict[str, Any]:
        life, world = self._life, self._life.world
        # One block is one step: who is held up in the middle of it still trades at its prices.
        life.began_ms = life.began_ms or world.true_ms()
        age_ms = life.began_ms - life.answered_ms
        if age_ms > life.settings.stale_after_ms and not life.dead:
            world.violated(f"{symbol} is traded on a price that came {age_ms / 1000:.1f} s ago")
        order = await self._executor.execute_order(symbol, side, quantity, order_type, price, signal=signal, told=told)
        if life.chance.hits(life.rates.slow_order):
            seconds = life.chance.between(0.01, 0.5)
            life.befall(seconds, life.rates.disturbed_write)
            await passed(seconds)
        return order
