"""A crash, a cancellation and an error at every single point of a step: what was reported is what is in the file.

A step is run once undisturbed, which shows how many points it has: awaits at which it suspends, and statements that
SQLite executes. Then it is run again from the same files once for every point, and something happens there.
"""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator, Mapping
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from decimal import Decimal
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from types import CodeType, FrameType, coroutine
from typing import Any, Final, NamedTuple, TypeVar, cast

import numpy as np
import pytest

from bot.clock import VirtualClock
from bot.compose import plans_of, recorded_config, trading_loop
from bot.domain import Block, Market, Signal
from bot.feeds import ArrayFeed
from bot.loop import Pace, TradingLoop
from bot.ports import Status
from bot.proof import audited, verified
from bot.repositories import (
    Database,
    LedgerBusy,
    LedgerError,
    Retention,
    RunRepository,
    StorageFull,
    TickRepository,
    open_database,
)
from bot.repositories.errors import StorageFailed
from bot.repositories.seals import SEAL_DECISIONS
from bot.repositories.standing import Standing
from bot.repositories.worker import InlineWorker, ThreadWorker, Work, Worker
from bot.settings import FeedSettings, Settings, StrategySettings
from tests.integration.old import of_first_version

T = TypeVar("T")
Files = dict[str, bytes]
Rows = tuple[tuple[Any, ...], ...]

SYMBOLS = ("A/USDT", "B/USDT", "C/USDT")
START_MS, INTERVAL_MS, DAY_MS = 1_735_689_600_000, 1000, 86_400_000
# Enough ticks that there is something to delete, and then a day later.
OLD_POLLS, POLLS = 1400, 1440
SETTINGS = Settings(
    feed=FeedSettings(symbols=SYMBOLS, poll_interval_s=1.0),
    strategy=(
        StrategySettings(
            name="sma_cross", params={"fast": 2, "slow": 4, "short": True}, account="trend", quantity=Decimal(3)
        ),
        StrategySettings(
            name="sma_cross", params={"fast": 1, "slow": 3}, account="all-in", equity_fraction=Decimal("0.6")
        ),
        StrategySettings(
            name="sma_cross", params={"fast": 1, "slow": 5}, account="poor", capital=Decimal(150), quantity=Decimal(1)
        ),
    ),
)

PLANS = plans_of(SETTINGS)
# One of them is quoted in finer steps than its venue says, so that the tape has to learn them in the middle of a step.
STEPS = dict(zip(SYMBOLS, ("0.01", "0.01", "0.1"), strict=True))
MARKETS = {symbol: Market(symbol, Decimal(step), Decimal("0.001")) for symbol, step in STEPS.items()}


def _tape() -> Block:
    rng = np.random.default_rng(5)
    last = np.round(100 + np.cumsum(rng.integers(-30, 31, (3, POLLS)), axis=1) / 100, 2)
    # Nothing happens for long: what is there to be deleted need not be traded on.
    last[:, 100 : OLD_POLLS - 20] = last[:, 100:101]
    times = START_MS + np.arange(POLLS, dtype=np.int64) * INTERVAL_MS
    times[OLD_POLLS:] += DAY_MS
    return Block(SYMBOLS, times, np.round(last - 0.01, 2), np.round(last + 0.01, 2), last)


TAPE: Final = _tape()
CONFIG = recorded_config(SETTINGS, PLANS, MARKETS, max(plan.strategy.lookback for plan in PLANS) - 1)


class Venue(ArrayFeed):
    """Has the same prices whenever it is asked for a beat, and takes a turn of the event loop to answer."""

    asked = False

    async def poll(self, beat_ms: int, polls: int) -> Block | None:
        self.asked = True
        await turn()
        return await ArrayFeed(TAPE, MARKETS).poll(beat_ms, polls)


class Patient(VirtualClock):
    """Waits for a full disk as the daemon's does, but no time goes by: what was given up is asked for again."""

    waits = True

    async def sleep(self, seconds: float) -> bool:
        await turn()
        return False


async def turn() -> None:
    turned = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(turned.set_result, None)
    await turned


# What is in the file


class Looking(sqlite3.Connection):
    """A connection of the test's: its statements are no points of the step."""


class Content(NamedTuple):
    """The rows of a ledger: ``step`` those that steps and deletions write, ``aside`` those of starts."""

    step: Rows
    aside: Rows
    polls: int = 0
    decisions: int = 0

    @property
    def signed(self) -> bool:
        """Neither of the first version nor killed before it was taken over from there: there is something to audit."""
        return len(self.aside) > 0 and len(self.aside[0]) > SIGNATURE and bool(self.aside[0][SIGNATURE])


NOTHING = Content((), ())
# The column of the table cursor that the first version did not have.
SIGNATURE = 14
_STEP = {
    "cursor": "polls, timestamp, ticks, decisions, signals, orders, trades, digest, seed",
    "ticks": "poll, symbol_id, timestamp, bid, ask, last, warmup",
}
_STEP |= dict.fromkeys(("signals", "orders", "trades", "accounts", "positions"), "*")
_STEP |= dict.fromkeys(("seals", "sealed_accounts", "sealed_positions"), "*")


def looked_up(ledger: Path, query: str, *parameters: Any) -> Rows:
    with closing(sqlite3.connect(ledger, factory=Looking)) as connection:
        return tuple(connection.execute(query, parameters))


def content_of(ledger: Path) -> Content:
    if not ledger.exists():
        return NOTHING
    with closing(sqlite3.connect(ledger, factory=Looking)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        if not tables:
            return NOTHING
        step = {
            name: tuple(connection.execute(f"SELECT {columns} FROM {name}"))  # noqa: S608
            for name, columns in _STEP.items()
            if name in tables
        }
        aside = [row for name in ("cursor", "runs", "symbols") for row in connection.execute(f"SELECT * FROM {name}")]  # noqa: S608
    cursor = step["cursor"][0]
    return Content(tuple((name, *rows) for name, rows in step.items() if rows), tuple(aside), cursor[0], cursor[3])


def files_in(folder: Path) -> Files:
    return {file.name: file.read_bytes() for file in folder.iterdir() if not file.name.endswith(".lock")}


def put(files: Files, folder: Path) -> Path:
    for old in folder.iterdir():
        old.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder / "ledger.db"


def memory_of(loop: TradingLoop, database: Database) -> list[Any]:
    """All that the next step depends on."""
    state = loop.state
    accounts = {
        name: (account.capital, account.cash, account.short_basis, {
            symbol: (held.quantity, held.basis, held.total_buys, held.total_sells)
            for symbol, held in account.positions.items() if held.total_buys or held.total_sells
        })
        for name, account in state.accounts.items()
    }  # fmt: skip
    windows = [state.targets.tolist(), state.times.tolist(), str(state.prices.tolist()), state.last_prices]
    return [accounts, windows, database.cursor.values(), database.digest]


# The daemon


@dataclass
class Heard:
    """What the daemon said, each word held against the file when it is said, and what it then had in mind."""

    ledger: Path
    told: list[tuple[int, str]] = field(default_factory=list)
    polls: int = 0
    interruptions: int = 0
    lies: list[str] = field(default_factory=list)
    # After each end of a run: where the file was, and what was in memory.
    minds: list[tuple[Content, list[Any]]] = field(default_factory=list)
    # Whether it is beyond its start.
    running: bool = False

    def filled(self, signal: Signal, order: Mapping[str, Any]) -> None:
        query = "SELECT order_id, CAST(price AS REAL), CAST(quantity AS REAL) FROM trades WHERE id = ?"
        self._check(query, signal.id, (order["id"], order["price"], order["amount"]))
        self.told.append((signal.id, order["id"]))

    def refused(self, signal: Signal, reason: str) -> None:
        self._check("SELECT verdict, reason FROM signals WHERE id = ?", signal.id, ("refused", reason))
        self.told.append((signal.id, reason))

    def stepped(self, status: Status) -> None:
        self._check("SELECT polls, digest FROM cursor WHERE id = ?", 1, (status.polls, status.digest))
        self.polls = status.polls

    def interrupted(self, error: Exception, retry_s: float) -> None:
        self.interruptions += 1

    def resumed(self, outage_s: float, failures: int) -> None: ...

    def _check(self, query: str, number: int, said: tuple[Any, ...]) -> None:
        if (found := looked_up(self.ledger, query, number)) != (said,):
            self.lies.append(f"said {said}, the file has {found}")


async def lived(heard: Heard, worker: type[Worker], until: int, ahead: int, *, keep: bool = False) -> None:
    """One life of the daemon, put together as ``bot.app`` does it; ``keep`` deletes no ticks."""
    async with open_database(heard.ledger, worker=worker) as database:
        ticks, retention = TickRepository(database), None if keep else Retention(database, 1)
        feed, pace = Venue(TAPE, MARKETS), Pace(INTERVAL_MS, until_poll=until)
        clock = Patient(START_MS, ahead)
        loop = await trading_loop(SETTINGS, PLANS, database, ticks, feed, clock, pace, heard, retention)
        runs = RunRepository(database)
        run = await runs.start(START_MS, "1", CONFIG)
        reason = "failed"
        heard.running = True
        try:
            async with minded(heard, feed, loop, database):
                reason = await loop.run()
        finally:
            with suppress(LedgerBusy, StorageFull):
                await runs.stop(run, START_MS, reason)


@asynccontextmanager
async def minded(heard: Heard, venue: Venue, loop: TradingLoop, database: Database) -> AsyncIterator[None]:
    """Notes what a loop has in mind after it, where that matters: not while it is still reading the tape, nor where it
    has to end because the disk fails."""
    error: BaseException | None = None
    try:
        yield
    except BaseException as raised:
        error = raised
        raise
    finally:
        if error is None or (venue.asked and not isinstance(error, StorageFailed)):
            heard.minds.append((content_of(heard.ledger), memory_of(loop, database)))


# What happens to it


def after(turns: int, do: Callable[[], object]) -> None:
    """Does it so many turns of the event loop later."""
    asyncio.get_running_loop().call_soon(*((after, turns - 1, do) if turns > 1 else (do,)))


class TurningWorker(InlineWorker):
    """Work begins two turns of the event loop after it was handed in, and its answer is there after two more."""

    def call(self, work: Work[T]) -> asyncio.Future[T]:
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def begin() -> None:
            done = InlineWorker.call(self, work)
            after(2, lambda: end(done))

        def end(done: asyncio.Future[T]) -> None:
            if answer.done():
                done.exception()
            elif error := done.exception():
                answer.set_exception(error)
            else:
                answer.set_result(done.result())

        after(2, begin)
        return answer

    async def close(self) -> None:
        await self.call(lambda connection: connection.close())


class Sealing:
    """A start that takes its last seal for so old that the next step has to set one."""

    def call(self, work: Work[Any]) -> asyncio.Future[Any]:
        def due(connection: sqlite3.Connection) -> Any:
            found = work(connection)
            return replace(found, sealed=(-SEAL_DECISIONS, 0)) if isinstance(found, Standing) else found

        return cast("asyncio.Future[Any]", super().call(due))  # type: ignore[misc]


@coroutine
def driven(main: Coroutine[Any, Any, T], suspended: Callable[[], None]) -> Generator[Any, Any, T]:
    """Runs a coroutine to its end; ``suspended`` is called whenever it waits for something."""
    error: BaseException | None = None
    while True:
        try:
            waiting = main.send(None) if error is None else main.throw(error)
        except StopIteration as end:
            return cast(T, end.value)
        suspended()
        error = None
        try:
            yield waiting
        except BaseException as thrown:  # noqa: BLE001 - it is handed on
            error = thrown


@dataclass
class Cancel:
    """Cancels at the await ``at`` and the ``times - 1`` that follow, each so many turns of the event loop later;
    without ``whole`` those of the start are not counted."""

    heard: Heard
    at: int
    turns: int
    times: int
    whole: bool
    awaits: int = 0

    def __call__(self) -> None:
        self.awaits += self.whole or self.heard.running
        task = asyncio.current_task()
        assert task is not None
        if self.at <= self.awaits < self.at + self.times and (self.whole or self.heard.running):
            if self.turns:
                after(self.turns, task.cancel)
            else:
                task.cancel()


Hook = Callable[[sqlite3.Connection, FrameType], None]


class Statements:
    """A profiler: the one place from which every statement can be seen, those of a start and its migrations included.

    One that raises is taken off by the interpreter, so that its error happens once.
    """

    def __init__(self, before: Hook, after: Hook) -> None:
        self._hooks = {"c_call": before, "c_return": after}
        self.count = 0

    def __call__(self, frame: FrameType, event: str, function: Any) -> None:
        hook = self._hooks.get(event)
        if hook is None or type(getattr(function, "__self__", None)) is not sqlite3.Connection:
            return
        if function.__name__ in ("execute", "executemany"):
            self.count += event == "c_call"
            hook(function.__self__, frame)


def callers(frame: FrameType | None) -> Iterator[str]:
    """Through which of the product's functions it came to a statement."""
    while frame is not None:
        if "/bot/" in frame.f_code.co_filename:
            yield f"{frame.f_code.co_qualname}:{frame.f_lineno}"
        frame = frame.f_back


def nothing(connection: sqlite3.Connection, frame: FrameType) -> None: ...


@contextmanager
def profiled(statements: Statements) -> Iterator[Statements]:
    before = sys.getprofile()
    sys.setprofile(statements)
    try:
        yield statements
    finally:
        sys.setprofile(before)


def _callers(frame: FrameType | None) -> Iterator[str]:
    while frame is not None:
        code: CodeType = frame.f_code
        if "/bot/" in code.co_filename:
            yield f"{code.co_qualname}:{frame.f_lineno}"
        frame = frame.f_back


@dataclass(frozen=True)
class Kind:
    """What SQLite calls an error. ``late``: it is raised though the statement was executed. ``lasting``: so does the
    first statement of all work that follows, until the daemon has said that it waits."""

    name: str
    late: bool = False
    lasting: bool = False

    @property
    def stops(self) -> bool:
        return self.name == "SQLITE_IOERR_FSYNC"

    def __str__(self) -> str:
        return self.name.removeprefix("SQLITE_") + " late" * self.late + " lasting" * self.lasting


KINDS = (
    Kind("SQLITE_BUSY"),
    Kind("SQLITE_BUSY", lasting=True),
    Kind("SQLITE_FULL"),
    Kind("SQLITE_IOERR_WRITE", lasting=True),
    Kind("SQLITE_IOERR_FSYNC"),
    Kind("SQLITE_IOERR_FSYNC", late=True),
)


class Fault:
    """Statement ``at`` raises; without ``whole`` those of the start are not counted."""

    def __init__(self, heard: Heard, at: int, kind: Kind, *, whole: bool) -> None:
        self.heard, self.kind, self._whole = heard, kind, whole
        when = (nothing, self._raise)
        self.statements = Statements(*(when if kind.late else when[::-1]))
        # Where it has raised, and whether the daemon was beyond its start.
        self.places: list[str] = []
        self.running = False
        self._left = at

    def _raise(self, connection: sqlite3.Connection, frame: FrameType) -> None:
        self._left -= self._whole or self.heard.running
        if self._left > 0 or self.heard.interruptions or (self.places and not self.kind.lasting):
            return
        if not (self._whole or self.heard.running):
            return
        self.running = self.heard.running
        self.places.append(" < ".join(callers(frame)))
        if self.kind.name != "SQLITE_BUSY" and connection.in_transaction:
            connection.execute("ROLLBACK")  # As SQLite does by itself when it cannot write.
        error = sqlite3.OperationalError(f"injected into {self.places[-1]}")
        error.sqlite_errorname, error.sqlite_errorcode = self.kind.name, getattr(sqlite3, self.kind.name)
        raise error

    def worker(self, kind: type[Worker]) -> type[Worker]:
        """Puts the profiler on again for each piece of work."""
        statements = self.statements

        class Armed:
            def call(self, work: Work[Any]) -> asyncio.Future[Any]:
                sys.setprofile(statements)
                return cast("asyncio.Future[Any]", super().call(work))  # type: ignore[misc]

        return mixed(Armed, kind) if self.kind.lasting else kind


def mixed(*kinds: type) -> type[Worker]:
    return cast("type[Worker]", type(kinds[0].__name__, kinds, {}))


# Where it happens, and what must be true afterwards


@dataclass
class Scene:
    """Files, and until which poll a daemon goes on from there, so many at a time; ``end`` is where all lives lead."""

    name: str
    files: Files
    until: int
    end: int
    ahead: int = 1
    seals: bool = False
    # Whether its start is looked at too.
    whole_life: bool = False
    # Every state that the file may be in, and what a fresh start from it has in memory.
    states: dict[Rows, list[Any]] = field(default_factory=dict)
    whole: str = ""
    first: Content = NOTHING
    judged: set[Content] = field(default_factory=set)
    seen: dict[frozenset[tuple[str, bytes]], Content] = field(default_factory=dict)

    def worker(self, kind: type[Worker]) -> type[Worker]:
        return mixed(Sealing, kind) if self.seals else kind

    async def live(self, heard: Heard, kind: type[Worker] = InlineWorker) -> None:
        await lived(heard, self.worker(kind), self.until, self.ahead)

    def prepare(self, folder: Path) -> None:
        """Lives it in ever larger parts, to know all the states there are."""
        self.first = content_of(put(self.files, folder))
        self.states[self.first.step] = []
        asyncio.run(opened(ledger := put(self.files, folder)))
        self._know(ledger)
        polls = range(self.first.polls, self.until + 1, self.ahead)
        for until, keep in [*((each, True) for each in polls), (self.until, False)]:
            ledger = put(self.files, folder)
            asyncio.run(lived(Heard(ledger), self.worker(InlineWorker), until, self.ahead, keep=keep))
            self._know(ledger)
        self.whole = self._end(put(self.files, folder))

    def _know(self, ledger: Path) -> None:
        step = content_of(ledger).step
        self.states[step] = self._fresh(ledger)

    def _fresh(self, ledger: Path) -> list[Any]:
        heard = Heard(ledger)
        asyncio.run(lived(heard, InlineWorker, content_of(ledger).polls, 1, keep=True))
        return heard.minds[-1][1]

    def _end(self, ledger: Path) -> str:
        heard = Heard(ledger)
        asyncio.run(lived(heard, InlineWorker, self.end, 1))
        return cast(str, heard.minds[-1][1][-1])

    def judge(self, files: Files, folder: Path) -> Content:
        """They hold all of each step or nothing of it, add up, and lead to the same end as an undisturbed life."""
        ledger = put(files, folder)
        key = frozenset(files.items())
        content = self.seen[key] = self.seen.get(key) or content_of(ledger)
        if content not in self.judged:
            known = content.step in self.states
            assert known, f"the file is in no state between two steps: {content.step[0]}"
            signed = content.signed
            if signed:
                prove(ledger)
            if expected := self.states[content.step]:
                assert self._fresh(put(files, folder)) == expected
            assert self._end(put(files, folder)) == self.whole
            if not signed:
                prove(ledger)
            self.judged.add(content)
            put(files, folder)
        return content

    def check(self, heard: Heard, folder: Path, *, ended: bool) -> Content:
        """Of a daemon that is gone: what it had in mind, and what it leaves."""
        content = self.judge(files_in(heard.ledger.parent), folder)
        for found, mind in heard.minds:
            assert mind == self.states.get(found.step), "memory is not what the file says"
        self.check_told(heard, folder / "ledger.db", content, ended=ended)
        return content

    def check_told(self, heard: Heard, ledger: Path, content: Content, *, ended: bool) -> None:
        """``ended``: all that is in the file was told; else the last step may not have been."""
        assert heard.lies == []
        untold = content.polls - (heard.polls or self.first.polls)
        assert untold in ((0,) if ended else (0, self.ahead)), f"{heard.polls} were reported of {content.polls} polls"
        if self.ahead > 1 or not content.polls:
            return
        query = (
            "SELECT signals.id, ifnull(reason, order_id) FROM signals LEFT JOIN trades USING (id)"
            " WHERE signals.id > ? AND signals.poll <= ? ORDER BY signals.id"
        )
        assert heard.told == list(looked_up(ledger, query, self.first.decisions, content.polls - untold))


def prove(ledger: Path) -> None:
    for proof in (asyncio.run(audited(ledger)), asyncio.run(verified(ledger))):
        assert proof["ok"], proof


async def opened(ledger: Path) -> None:
    async with open_database(ledger, worker=InlineWorker):
        pass


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """In memory: none of this is about a disk."""
    # As the daemon sets it; looking for cycles in the test runner's own objects takes a tenth of the time.
    gc.set_threshold(100_000, 20, 20)
    memory = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it
    with TemporaryDirectory(prefix="paperloop-", dir=memory if memory.is_dir() else None) as found:
        for name in ("lived", "judged"):
            (Path(found) / name).mkdir()
        yield Path(found)


NAMES = ("start", "upgrade", "step", "seal", "deletion")


@pytest.fixture(scope="module")
def scenes(folder: Path) -> dict[str, Scene]:
    def run(until: int, *, seals: bool = False, before: Files | None = None) -> Files:
        ledger = put(before or {}, folder / "lived")
        asyncio.run(lived(Heard(ledger), mixed(Sealing, InlineWorker) if seals else InlineWorker, until, until))
        return files_in(folder / "lived")

    long = run(OLD_POLLS, seals=True, before=run(1))
    busy = busiest(put(long, folder / "lived"))
    short = run(busy - 1)
    of_first_version(put(short, folder / "lived"), folder / "judged" / "ledger.db")
    old = files_in(folder / "judged")
    made = [
        Scene("start", {}, 2, 12, whole_life=True),
        Scene("upgrade", old, busy - 1, busy + 10, whole_life=True),
        Scene("step", short, busy, busy + 10),
        Scene("seal", short, busy + 15, busy + 25, ahead=16, seals=True),
        Scene("deletion", long, OLD_POLLS + 1, OLD_POLLS + 10),
    ]
    for scene in made:
        scene.prepare(folder / "lived")
    return {scene.name: scene for scene in made}


def busiest(ledger: Path) -> int:
    """The first poll, once there are positions, with fills and refusals of several accounts."""
    query = (
        "SELECT poll FROM signals WHERE poll > 20 GROUP BY poll HAVING count(DISTINCT account) > 2"
        " AND sum(verdict = 'filled') > 1 AND sum(verdict = 'refused') > 1 ORDER BY poll LIMIT 1"
    )
    return int(looked_up(ledger, query)[0][0])


# How many statements there are at least in a life, and in a life beyond its start; and how many awaits in those parts
# that are cancelled: nobody must believe a test that has tried nothing.
STATEMENTS_MIN = {"start": 130, "upgrade": 80, "step": 75, "seal": 78, "deletion": 85}
RUNNING_MIN = {"start": 30, "upgrade": 7, "step": 25, "seal": 28, "deletion": 35}
AWAITS_MIN = {"start": 26, "upgrade": 13, "step": 11, "seal": 11, "deletion": 13}
every_scene = pytest.mark.parametrize("name", NAMES)


@every_scene
def test_killed_at_every_statement(scenes: dict[str, Scene], folder: Path, name: str) -> None:
    """The files as they are before and after each statement are what a kill -9 would leave."""
    scene = scenes[name]
    heard = Heard(put(scene.files, folder / "lived"))
    left: list[tuple[Files, Heard]] = []

    def kill(_: sqlite3.Connection, frame: FrameType) -> None:
        left.append((files_in(folder / "lived"), replace(heard, told=list(heard.told))))

    with profiled(Statements(kill, kill)) as statements:
        asyncio.run(scene.live(heard))
    assert scene.check(heard, folder / "judged", ended=True).polls == scene.until
    for files, said in left:
        content = scene.judge(files, folder / "judged")
        scene.check_told(said, put(files, folder / "judged"), content, ended=False)
    assert len(left) == 2 * statements.count >= 2 * STATEMENTS_MIN[name]
    tell(f"{name}: killed at {len(left)} points")


@every_scene
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_statement_fails(scenes: dict[str, Scene], folder: Path, name: str, kind: Kind) -> None:
    scene = scenes[name]
    # A start ends with the first error, it can be no other one that lasts.
    whole = scene.whole_life and not kind.lasting
    outcomes: Counter[str] = Counter()
    for at in count(1):
        heard = Heard(put(scene.files, folder / "lived"))
        fault = Fault(heard, at, kind, whole=whole)
        error = failed(scene, heard, fault)
        if not fault.places:
            break
        judge_failure(scene, heard, fault, error, folder / "judged")
        outcomes["ended" if error is None else type(error).__name__] += 1
    assert outcomes.total() >= (STATEMENTS_MIN if whole else RUNNING_MIN)[name]
    tell(f"{name}, {kind}: {outcomes.total()} statements failed: {dict(outcomes)}")


def failed(scene: Scene, heard: Heard, fault: Fault) -> BaseException | None:
    with profiled(fault.statements):
        try:
            asyncio.run(scene.live(heard, fault.worker(InlineWorker)))
        except (LedgerError, sqlite3.Error) as error:
            return error
    return None


def judge_failure(scene: Scene, heard: Heard, fault: Fault, error: BaseException | None, folder: Path) -> None:
    place = f"{fault.kind} at {fault.places[0]}"
    content = scene.check(heard, folder, ended=error is None)
    assert error is None or isinstance(error, LedgerError), place
    if fault.kind.stops:
        assert isinstance(error, StorageFailed), f"it goes on after {place}"
    elif fault.running and "_read_tape" not in place and "_missing" not in place:
        assert error is None, f"it does not go on after {place}"
        assert content.polls == scene.until
        if "TradingLoop.step" in place or not fault.kind.lasting:
            assert heard.interruptions == ("TradingLoop.step" in place)


CANCELLED = {
    # Turns of the event loop from the await to the cancellation, and how many awaits in a row are cancelled.
    # Before the work begins, while it is being done, when its answer is on its way; and twice.
    TurningWorker: ((0, 1), (2, 1), (4, 1), (0, 2)),
    ThreadWorker: ((0, 1), (0, 2)),
}


@every_scene
@pytest.mark.parametrize("kind", CANCELLED)
def test_cancelled_at_every_await(scenes: dict[str, Scene], folder: Path, name: str, kind: type[Worker]) -> None:
    scene, points = scenes[name], 0
    for turns, times in CANCELLED[kind]:
        for at in count(1):
            heard = Heard(put(scene.files, folder / "lived"))
            cancel = Cancel(heard, at, turns, times, whole=scene.whole_life)
            cancelled = asyncio.run(ended(driven(scene.live(heard, kind), cancel)))
            if cancel.awaits < at:
                assert not cancelled
                break
            assert cancelled, "it goes on though it was cancelled"
            scene.check(heard, folder / "judged", ended=False)
            points += 1
        assert at > AWAITS_MIN[name]
    tell(f"{name}, {kind.__name__}: cancelled at {points} points")


async def ended(life: Awaitable[None]) -> bool:
    """Whether it was cancelled."""
    try:
        await life
    except asyncio.CancelledError:
        return True
    finally:
        for thread in threading.enumerate():
            if "_connection_worker" in thread.name:
                thread.join(5)
    return False


def tell(what: str) -> None:
    sys.stdout.write(f"\n{what}")
