"""The trading loop: beat, poll, decide, execute, commit. Live, accelerated and replayed runs are this one loop."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from decimal import setcontext
from hashlib import blake2b
from typing import Any

from bot.domain import MONEY, Account, Block, OrderType, Signal
from bot.engine import Decision, Engine, LoopState
from bot.ports import Clock, Executor, FeedError, NotYet, Observer, OrderRefused, PriceFeed, Window
from bot.repositories import (
    AccountRepository,
    Database,
    LedgerBusy,
    Retention,
    SignalRepository,
    StorageFull,
    TickRepository,
)

BACKOFF_MAX_S = 60.0
# A disk is no exchange: nobody minds being asked often.
STORAGE_BACKOFF_MAX_S = 10.0
# Enough rows to make numpy's overhead vanish, few enough to keep a block's memory and its commit small.
BLOCK_TICKS = 65_536


@dataclass(frozen=True, slots=True)
class Ledger:
    """The repositories that a block is written to. Without ``ticks`` prices are not recorded, without ``retention``
    they are kept for good."""

    database: Database
    signals: SignalRepository
    accounts: AccountRepository
    ticks: TickRepository | None
    retention: Retention | None = None


@dataclass(frozen=True, slots=True)
class Pace:
    """Time between polls, how long one may take (None: feeds that cannot hang), when to stop, and the age from which on
    prices are not traded on (None: where time does not pass by itself)."""

    interval_ms: int
    poll_timeout_s: float | None = None
    until_poll: int | None = None
    stale_after_ms: int | None = None


class TradingLoop:
    """Owns the state. ``run`` ends when the clock is stopped, the feed has ended or the polls are done."""

    def __init__(
        self,
        feed: PriceFeed,
        engine: Engine,
        executors: Mapping[str, Executor],
        state: LoopState,
        ledger: Ledger,
        clock: Clock,
        pace: Pace,
        observer: Observer,
    ) -> None:
        self._feed, self._engine, self._executors = feed, engine, executors
        self.state, self._ledger, self._clock, self._pace = state, ledger, clock, pace
        self._observer = observer
        self._database = ledger.database
        self._cursor = ledger.database.cursor
        self._failures, self._failing_since = 0, 0.0
        self._held: Block | None = None
        self._must_reload = False

    @property
    def window(self) -> int:
        """How many ticks of each symbol decisions look back on."""
        return int(self.state.prices.shape[1])

    async def run(self) -> str:
        """Trades until the end and returns the reason for it."""
        await self._read_tape()
        missed = True
        while (polls := self._polls_wanted()) > 0:
            beat = await self._clock.next_beat(self._pace.interval_ms, self._cursor.timestamp)
            if beat is None:
                return "stopped"
            try:
                asked_s = self._clock.monotonic()
                past = await self._missing(beat) if missed else None
                if (self._clock.monotonic() - asked_s) * 1000 > self._pace.interval_ms:
                    # The beat is long over, and its prices are to be of its time.
                    beat = await self._clock.next_beat(self._pace.interval_ms, self._cursor.timestamp)
                    if beat is None:
                        return "stopped"
                began_ms, began_s = self._clock.now_ms(), self._clock.monotonic()
                block = await self._collect(beat, polls, past)
                self._check_age(began_ms, began_s)
            except FeedError as error:
                if isinstance(error, NotYet):
                    continue
                if await self._back_off(error):
                    return "stopped"
                # What was missed meanwhile is asked for, as after a restart.
                missed = True
                continue
            if block is None:
                return "the feed has ended"
            # What a block that was given up would have told is asked for again, too.
            missed = not await self._step_in_time(block)
            if self._ledger.retention is not None:
                await self._ledger.retention.tidy()
        return "the polls are done"

    def _check_age(self, began_ms: int, began_s: float) -> None:
        """A process that was stopped or suspended between its poll and its step has prices of another time.

        Two clocks: the wall clock may have been set back, and the other one stands still in a suspended machine.
        """
        if self._pace.stale_after_ms is None:
            return
        age_ms = max(self._clock.now_ms() - began_ms, (self._clock.monotonic() - began_s) * 1000)
        if age_ms > self._pace.stale_after_ms:
            raise FeedError(f"the prices are {age_ms / 1000:.1f} s old")

    async def _step_in_time(self, block: Block) -> bool:
        """Steps, and where the ledger is locked or the disk full waits until it is not; True if the block is written.

        Where time goes by meanwhile, the block is given up: its prices would be old by the time they are traded on.
        """
        while True:
            try:
                await self.step(block)
            except (LedgerBusy, StorageFull) as error:
                if isinstance(error, StorageFull) and not self._clock.waits:
                    raise
                if await self._back_off(error, STORAGE_BACKOFF_MAX_S) or self._clock.waits:
                    return False
            else:
                self._recovered()
                return True

    async def step(self, block: Block) -> None:
        """Decides and executes one block, all of it or nothing."""
        setcontext(MONEY)
        began_s = self._clock.monotonic()
        if self._must_reload:
            await self._reload()
        cursor, polls = self._cursor, self._cursor.polls
        decision = self._engine.decide(self.state, block, polls + 1, cursor.decisions + 1)
        try:
            async with self._database.transaction():
                if self._ledger.ticks is not None:
                    await self._ledger.ticks.add(block, polls + 1)
                outcomes = await self._execute(decision)
                cursor.polls += block.polls
                cursor.timestamp = int(block.timestamp[-1])
        except BaseException:
            if cursor.polls == polls + block.polls:
                # Cancelled while it was being written: the file has it, so the state follows.
                self.state.advance(decision)
            # Until they are read again, which may fail too, nothing is decided by them.
            self._must_reload = True
            await self._reload()
            raise
        self.state.advance(decision)
        self._report(LoopStatus(self, self._clock.monotonic() - began_s, decision.last_prices), outcomes)

    async def _execute(self, decision: Decision) -> list[tuple[Signal, dict[str, Any] | str]]:
        """Every signal of a block in order, each with its order or the reason why there is none."""
        accounts, signals = self.state.accounts, decision.signals
        order_for, refuse = self._engine.order_for, self._ledger.signals.add_refused
        outcomes: list[tuple[Signal, dict[str, Any] | str]] = []
        # A block of many polls is a run without waiting: nobody reads thousands of outcomes a second, and to make and
        # keep them all would take a fifth of the time.
        told = decision.polls == 1
        for signal in signals:
            outcome: dict[str, Any] | str
            account = signal.account
            request = order_for(signal, accounts[account], decision.marks)
            if isinstance(request, str):
                outcome = request
                refuse(signal, request)
            else:
                try:
                    outcome = await self._executors[account].execute_order(
                        signal.symbol, request.side, request.quantity, OrderType.MARKET, signal=signal, told=told
                    )
                except OrderRefused as refusal:
                    outcome = refusal.reason
                    refuse(signal, outcome)
            if told:
                outcomes.append((signal, outcome))
        self._cursor.decisions += len(signals)
        targets = {(signal.account, signal.symbol): signal.target for signal in signals}
        for (name, symbol), target in targets.items():
            self._ledger.accounts.save_position(name, accounts[name].position(symbol), target)
        for name in dict.fromkeys(name for name, _ in targets):
            self._ledger.accounts.save(accounts[name])
        return outcomes

    async def _collect(self, beat: int, polls: int, past: Block | None) -> Block | None:
        """The next block: one poll where waiting is real, as many as wanted where it is not."""
        blocks = [past] if past else []
        collected = 0
        while collected < polls:
            try:
                block = self._held or await self._poll(beat, polls - collected)
            except FeedError:
                if not collected:
                    raise
                break
            self._held = None
            if block is None:
                break
            if block.warmup and collected:
                # History belongs before the polls that follow it, at the head of a block.
                self._held = block
                break
            blocks.append(block)
            collected += block.polls
            if collected < polls:
                following = await self._clock.next_beat(self._pace.interval_ms, int(block.timestamp[-1]))
                if following is None:
                    break
                beat = following
        if not collected:
            return None
        # A beat at which no symbol had a price is no poll: nothing of it could be replayed.
        whole = Block.joined(blocks).without_gaps()
        if not whole.polls:
            raise FeedError("no symbol has a price")
        return whole

    async def _poll(self, beat: int, polls: int) -> Block | None:
        if self._pace.poll_timeout_s is None:
            return await self._feed.poll(beat, polls)
        try:
            async with self._clock.limit(self._pace.poll_timeout_s):
                return await self._feed.poll(beat, polls)
        except TimeoutError:
            raise FeedError(f"no answer within {self._pace.poll_timeout_s:g} s") from None

    async def _read_tape(self) -> None:
        """Fills the windows and the last prices from the tape."""
        ticks = self._ledger.ticks
        if ticks is not None:
            for part in await ticks.lookback(self.state.symbols, max(self.window, 1), self.state.lookbacks):
                self.state.advance(self._engine.decide(self.state, part, 0, 0))
        for account in self.state.accounts.values():
            for position in account.positions.values():
                if position.quantity and position.symbol not in self.state.last_prices:
                    seen = None if ticks is None else await ticks.last_price(position.symbol)
                    # Never seen, or not recorded: what it cost is the best that is known until the next price.
                    cost = float(position.basis / position.quantity)
                    self.state.last_prices[position.symbol] = cost if seen is None else seen

    async def _missing(self, beat: int) -> Block | None:
        """The history before a beat that the tape does not hold yet; the tape stays in the order of time."""
        newest = self.state.newest_ms
        if (ticks := self._ledger.ticks) is not None:
            newest = max(newest, await ticks.last_timestamp())
        window = Window(self.window, self.state.lookbacks, newest)
        past = await self._feed.history(beat, window) if window else None
        return None if past is None else past.after(newest)

    def _polls_wanted(self) -> int:
        ahead = self._clock.polls_ahead
        until = self._pace.until_poll
        return ahead if until is None else min(ahead, until - self._cursor.polls)

    async def _reload(self) -> None:
        """Memory follows the file: after a block that was not written, the accounts are what the ledger says."""
        stored = await self._ledger.accounts.load()
        for name, account in self.state.accounts.items():
            account.restore(stored[name])
        self._must_reload = False

    async def _back_off(self, error: Exception, max_s: float = BACKOFF_MAX_S) -> bool:
        if await self._clock.sleep(0):
            # Stopped while it was waited for: that is no failure.
            return True
        if not self._failures:
            self._failing_since = self._clock.monotonic()
        self._failures += 1
        asked_s = error.retry_s if isinstance(error, FeedError) else None
        # Spread over half of the delay, so that many daemons do not come back in step; never sooner than was asked for,
        # and after a ban of a day not hours later.
        seed = blake2b(f"{self.state.symbols}{self._failing_since}{self._failures}".encode(), digest_size=2).digest()
        part = int.from_bytes(seed) / 131072
        if asked_s is None:
            delay = min(max_s, self._pace.interval_ms / 1000 * 2 ** min(self._failures, 16)) * (0.5 + part)
        else:
            delay = asked_s + min(max_s, asked_s) * part
        self._observer.interrupted(error, delay)
        return await self._clock.sleep(delay)

    def _recovered(self) -> None:
        if self._failures:
            self._observer.resumed(self._clock.monotonic() - self._failing_since, self._failures)
            self._failures = 0

    def _report(self, status: LoopStatus, outcomes: list[tuple[Signal, dict[str, Any] | str]]) -> None:
        # It is in the ledger; whoever fails to hear of it cannot take it back or stop what follows.
        with suppress(Exception):
            self._tell(status, outcomes)

    def _tell(self, status: LoopStatus, outcomes: list[tuple[Signal, dict[str, Any] | str]]) -> None:
        self._observer.stepped(status)
        for signal, outcome in outcomes:
            if isinstance(outcome, str):
                self._observer.refused(signal, outcome)
            else:
                self._observer.filled(signal, outcome)


class LoopStatus:
    """A view of the loop for those who watch it: see ``ports.Status``."""

    __slots__ = ("_clock", "_cursor", "_database", "_state", "quoted", "step_s")

    def __init__(self, loop: TradingLoop, step_s: float, quoted: Mapping[str, float]) -> None:
        self.step_s, self.quoted = step_s, quoted
        self._cursor, self._database, self._state = loop._cursor, loop._database, loop.state
        self._clock = loop._clock

    @property
    def polls(self) -> int:
        return self._cursor.polls

    @property
    def ticks(self) -> int:
        return self._cursor.ticks

    @property
    def signals(self) -> int:
        return self._cursor.signals

    @property
    def trades(self) -> int:
        return self._cursor.trades

    @property
    def timestamp(self) -> int:
        return self._cursor.timestamp

    @property
    def digest(self) -> str:
        return self._database.digest

    @property
    def log_bytes(self) -> int:
        return self._database.log_bytes

    @property
    def prices(self) -> Mapping[str, float]:
        return self._state.last_prices

    @property
    def accounts(self) -> Mapping[str, Account]:
        return self._state.accounts

    def clock_events(self) -> dict[str, int]:
        return {"missed_beats": self._clock.missed_beats, "clock_steps": self._clock.steps}

    def equity(self) -> dict[str, float]:
        return self._state.equity()
