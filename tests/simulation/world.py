"""The whole daemon in a world made of chance: real loop, engine, executor, repositories and ledger file; simulated
time, venue, disk and fate."""

from __future__ import annotations

import gc
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from hashlib import blake2b
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bot.domain import Block
from bot.proof import audited, verified
from bot.settings import Settings
from tests.simulation.chance import QUIET, Chance, Rates
from tests.simulation.checks import Checks, Violation, require
from tests.simulation.daemon import Parts
from tests.simulation.eventloop import SimulatedLoop, passed, simulate
from tests.simulation.life import Life
from tests.simulation.venue import SYMBOLS, Venue

START_S = 1_735_689_600.0
INTERVAL_S = 5.0
HOUR_S = 3600.0
# So long nothing goes wrong at the end: it must be trading again well before that is over.
QUIET_S, ALIVE_WITHIN_S = 600.0, 60.0
CHECK_EVERY_POLLS = 500
STRATEGIES: tuple[dict[str, Any], ...] = (
    {"name": "sma_cross", "params": {"fast": 3, "slow": 9, "short": True}, "account": "trend", "quote_amount": 900},
    {"name": "sma_cross", "params": {"fast": 2, "slow": 12}, "account": "trend", "quote_amount": 900},
    {"name": "donchian_breakout", "params": {"period": 8}, "account": "turtle", "equity_fraction": "0.45"},
    {"name": "rsi_reversion", "params": {"period": 5}, "account": "swing", "equity_fraction": "0.9"},
    {"name": "bollinger_breakout", "params": {"period": 9, "deviations": 1.5}, "account": "bands", "quote_amount": 450},
)
# Of the second strategy; the first one decides at every tick.
TIMEFRAMES = ("tick", "tick", "1m", "1m", "3m", "15m", "1h")


@dataclass(frozen=True)
class Outcome:
    """What a world came to. ``trace`` is a hash of all that happened in it, in order."""

    trace: str
    seconds: float
    polls: int
    trades: int
    events: Counter[str] = field(repr=False, compare=False)
    log: str = field(repr=False, compare=False)


def lived(seed: int, hours: float, parts: Parts | None = None, *, calmer: float = 1.0) -> Outcome:
    """Simulates one world, checks it and returns its outcome; raises Violation with what went wrong."""
    # As the daemon sets it; looking for cycles in the test runner's own objects takes a tenth of a day.
    gc.set_threshold(100_000, 20, 20)
    memory = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it
    with TemporaryDirectory(prefix="paperloop-", dir=memory if memory.is_dir() else None) as folder:
        world = World(seed, Path(folder), hours, parts or Parts(), calmer)
        try:
            simulate(world.live(), world.loop)
            simulate(proven(world.path))
        except Exception as error:
            last = "\n".join(f"  {event}" for event in world.last)
            # The first violation counts, whatever followed from it.
            what = world.violation or (error if isinstance(error, Violation) else f"{type(error).__name__}: {error}")
            raise Violation(f"seed {seed}: {what}\nthe last events:\n{last}") from error
        return Outcome(
            world.trace, world.loop.time(), world.checks.polls, world.checks.trades, world.events, world.log.getvalue()
        )


async def proven(path: Path) -> None:
    """The books add up, and the tape leads to every row of them."""
    for proof in (await audited(path), await verified(path)):
        require(proof["ok"], f"{proof}")


class World:
    """One seed's world. Implements what the venue (``Around``) sees of it."""

    def __init__(self, seed: int, folder: Path, hours: float, parts: Parts, calmer: float = 1.0) -> None:
        self.seed, self.path, self.hours, self.parts = seed, folder / "ledger.db", hours, parts
        self.chance = Chance(seed, "world")
        self.rates = Rates.of(Chance(seed, "rates"), calmer)
        self.loop = SimulatedLoop(Chance(seed, "order"))
        # What trades cost for days on end must leave something to trade with.
        fees, slippages = (("0.001", "0.0002", "0"), ("0", "2.5")) if hours < 12 else (("0.00001",), ("0",))
        self._execution = {"fee_rate": self.chance.one_of(fees), "slippage_bps": self.chance.one_of(slippages)}
        self.settings = self._configured()
        self.stale_after_ms, self.interval_ms = self.settings.stale_after_ms, self.settings.feed.poll_interval_ms
        self.venue = Venue(seed, self)
        self.checks = Checks(Decimal(self._execution["fee_rate"]), self.settings.execution.slippage_bps)
        self.wall_offset_s = 0.0
        self.opened = False
        self.life: Life | None = None
        self.violation: Violation | None = None
        self.last: deque[str] = deque(maxlen=40)
        self.events: Counter[str] = Counter()
        self.log = StringIO()
        self._hash = blake2b(digest_size=16)

    @property
    def trace(self) -> str:
        return self._hash.hexdigest()

    # What the venue and the daemon see.

    def true_ms(self) -> int:
        return int((START_S + self.loop.time()) * 1000)

    def wall(self) -> float:
        return START_S + self.loop.time() + self.wall_offset_s

    def note(self, *event: object) -> None:
        line = f"{self.loop.time():.6f} {event!r}"
        self._hash.update(line.encode())
        self.last.append(line)
        self.events[str(event[0])] += 1

    def violated(self, what: str) -> None:
        """Noted where it is found, which may be inside of code that swallows errors."""
        if self.violation is None:
            self.violation = Violation(what)
        raise self.violation

    def handed(self, block: Block, answered_ms: int | None) -> None:
        life, checks = self.life, self.checks
        if life and answered_ms and not life.dead:
            if life.told_polls - checks.polls >= CHECK_EVERY_POLLS and life.accounts:
                checks.catch_up(self.path, life.told_polls, life.accounts)
            life.answered_ms, life.began_ms = answered_ms, 0
        prices = [block.bid.T.tolist(), block.ask.T.tolist(), block.last.T.tolist()]
        for time, *quotes in zip(block.timestamp.tolist(), *prices, strict=True):
            rows = zip(block.symbols, *quotes, strict=True)
            checks.handed[time].append({name: (bid, ask, last) for name, bid, ask, last in rows if last == last})

    def befall(self, seconds: float, rate: float) -> None:
        """Somebody waits for so long: the moment to stop or to kill the process, or to hold it up."""
        if self.life and self.chance.hits(rate):
            self.loop.call_later(seconds * self.chance.number(), self.life.meet, self._fate())

    def pause(self, seconds: float) -> None:
        self.note("pause", seconds)
        self.loop.advance(seconds)

    def _fate(self) -> str:
        return self.chance.one_of(("kill", "kill", "stop", "cancel", "pause"))

    # What happens in it.

    async def live(self) -> None:
        """Lives follow one another, as a service manager sees to it; the last one is left in peace."""
        end_s = self.hours * HOUR_S
        self._later(self._step_clock, self.rates.clock_steps)
        while self.loop.time() < end_s:
            await self._one_life(end_s)
            await passed(self.chance.between(0.1, 30) if self.chance.hits(0.9) else self.chance.between(30, 1800))
            if self.chance.hits(0.25):
                self.settings = self._configured()
        self.rates, self.wall_offset_s = QUIET, 0.0
        self.venue.recover()
        await self._one_life(self.loop.time() + QUIET_S)
        late_s = START_S + self.loop.time() - self.checks.timestamp / 1000
        require(late_s < ALIVE_WITHIN_S, f"{QUIET_S:g} s without a fault, and the last price is {late_s:.1f} s old")

    async def _one_life(self, end_s: float) -> None:
        life = self.life = Life(self, self.settings)
        ending = self.loop.call_at(end_s, life.meet, "stop")
        if self.rates.ends:
            self.loop.call_later(self.chance.between(0, 2 * HOUR_S / self.rates.ends), life.meet, self._fate())
        self.note("start", self.checks.polls)
        reason = await life.live()
        ending.cancel()
        self.note("end", reason)
        if self.violation is not None:
            raise self.violation
        if self.opened:
            self.checks.catch_up(self.path, life.told_polls)

    def _later(self, what: Callable[[], None], rate: float) -> None:
        if rate:
            self.loop.call_later(self.chance.between(0, 2 * HOUR_S / rate), what)

    def _step_clock(self) -> None:
        """Somebody sets the wall clock wrong by an hour, and right again some time later."""
        if self.rates is QUIET:
            return
        if not self.wall_offset_s:
            self.wall_offset_s = self.chance.one_of((-HOUR_S, HOUR_S))
            self.loop.call_later(self.chance.between(10, HOUR_S), self._step_clock)
        else:
            self.wall_offset_s = 0.0
            self._later(self._step_clock, self.rates.clock_steps)
        self.note("clock step", self.wall_offset_s)

    def _configured(self) -> Settings:
        chance = self.chance
        first = chance.one_of(STRATEGIES)
        second = chance.one_of([entry for entry in STRATEGIES if entry["account"] != first["account"]])
        second = second | {"timeframe": chance.one_of(TIMEFRAMES)}
        feed = {"symbols": chance.shuffled(list(SYMBOLS))[:3], "poll_interval_s": INTERVAL_S}
        return Settings.model_validate({"feed": feed, "strategy": [first, second], "execution": self._execution})
