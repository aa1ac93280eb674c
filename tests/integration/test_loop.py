"""The loop on a real ledger: one set of books for one tape, exact to the last digit, whatever goes wrong on the way."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext, setcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.clock import SystemClock, VirtualClock
from bot.domain import MONEY, Account, Bars, Block, FloatArray, Market, Signal
from bot.engine import Engine, LoopState, Plan, Sizing, SizingKind
from bot.execution import MockExecutor, Terms
from bot.feeds import ArrayFeed, ReplayFeed
from bot.loop import BACKOFF_MAX_S, Ledger, Pace, TradingLoop
from bot.ports import Clock, FeedError, NotYet, PriceFeed, Status, Strategy, Window
from bot.repositories import AccountRepository, SignalRepository, TickRepository, TradeRepository, open_database
from bot.strategies import build
from tests.scripted import Momentum, part

SYMBOLS = ("BTC/USDT", "ETH/USDT", "DOGE/USDT")
START_MS = 1_735_689_600_000
POLLS = 120
INTERVAL_MS = 1000
MARKETS = {symbol: Market(symbol, Decimal("0.01"), Decimal("0.001"), min_cost=Decimal(5)) for symbol in SYMBOLS}
FEE_RATE = Decimal("0.001")
FEES = Terms(FEE_RATE, Decimal("2.5"))
UNIT = Sizing(SizingKind.QUANTITY, Decimal(1))
TABLES = ("signals", "orders", "trades")
examples = settings(max_examples=12)


class Fussy:
    """Raises on any price that ends in 3, and asks for the impossible where one ends in 7."""

    name, lookback = "fussy", 2

    def targets(self, bars: Bars) -> FloatArray:
        cents = np.rint(bars.close * 100).astype(np.int64)
        if (cents % 10 == 3).any():
            raise RuntimeError("a three")
        found = np.where(cents % 10 == 7, 1.5, cents % 2)
        found[:1] = np.nan
        return found


class Script:
    """The target is a function of the price's cents: what a test wants to happen, written as a tape."""

    name, lookback = "script", 1
    answers = np.array([0.0, 1.0, -1.0, 0.5, np.nan, 1.5, np.inf])

    def targets(self, bars: Bars) -> FloatArray:
        return self.answers[np.rint(bars.close * 100).astype(np.int64) % 100]


def scripted(*targets: float, prices: Sequence[int] | None = None) -> Block:
    """A tape on which ``Script`` wants these targets, one a poll, at prices of about 100 if none are given."""
    codes = [
        next(c for c, answer in enumerate(Script.answers) if repr(float(answer)) == repr(float(t))) for t in targets
    ]
    last = np.array(
        [[(whole * 100 + code) / 100 for whole, code in zip(prices or [100] * len(codes), codes, strict=True)]]
    )
    times = START_MS + np.arange(len(codes), dtype=np.int64) * INTERVAL_MS
    return Block(SYMBOLS[:1], times, np.round(last - 0.01, 2), np.round(last + 0.01, 2), last)


def tape(seed: int, *, gaps: float = 0.0, polls: int = POLLS) -> Block:
    """Every poll has the price of one symbol at least."""
    rng = np.random.default_rng(seed)
    last = np.round(np.array([[300.0], [100.0], [20.0]]) + np.cumsum(rng.integers(-4, 5, (3, polls)), axis=1) / 100, 2)
    missing = rng.random(last.shape) < gaps
    missing[rng.integers(0, 3, polls), np.arange(polls)] = False
    last[missing] = np.nan
    timestamp = START_MS + np.arange(polls, dtype=np.int64) * INTERVAL_MS
    return Block(SYMBOLS, timestamp, np.round(last - 0.01, 2), np.round(last + 0.01, 2), last)


def several() -> list[Plan]:
    return [
        Plan(build("sma_cross", fast=2, slow=5), "trend", Sizing(SizingKind.EQUITY_FRACTION, Decimal("0.3"))),
        Plan(
            build("sma_cross", fast=1, slow=3, short=True), "both", Sizing(SizingKind.QUOTE_AMOUNT, Decimal("123.45"))
        ),
        Plan(Momentum(), "momentum", Sizing(SizingKind.EQUITY_FRACTION, Decimal("0.9"))),
        Plan(Fussy(), "fussy", Sizing(SizingKind.QUANTITY, Decimal("1.5"))),
        Plan(build("buy_and_hold"), "hold", Sizing(SizingKind.QUANTITY, Decimal(2))),
    ]


@dataclass
class Heard:
    """An observer that writes down what it hears."""

    filled_: list[Signal] = field(default_factory=list)
    refused_: list[tuple[Signal, str]] = field(default_factory=list)
    failures: list[tuple[str, float]] = field(default_factory=list)
    recoveries: list[tuple[float, int]] = field(default_factory=list)
    polls: list[int] = field(default_factory=list)

    def filled(self, signal: Signal, order: Mapping[str, Any]) -> None:
        assert order["info"]["simulated"]
        self.filled_.append(signal)

    def refused(self, signal: Signal, reason: str) -> None:
        self.refused_.append((signal, reason))

    def interrupted(self, error: Exception, retry_s: float) -> None:
        self.failures.append((str(error), retry_s))

    def resumed(self, outage_s: float, failures: int) -> None:
        self.recoveries.append((outage_s, failures))

    def stepped(self, status: Status) -> None:
        self.polls.append(status.polls)


@dataclass
class Setup:
    """All that a loop is made of, with what most tests want."""

    ledger: Path
    plans: list[Plan]
    terms: Terms = FEES
    markets: Mapping[str, Market] = field(default_factory=lambda: MARKETS)
    capital: Decimal = Decimal(1000)
    record: bool = True
    until: int | None = None
    poll_timeout_s: float | None = None
    interval_ms: int = INTERVAL_MS
    heard: Heard = field(default_factory=Heard)

    @asynccontextmanager
    async def loop(self, feed: PriceFeed, clock: Clock) -> AsyncIterator[TradingLoop]:
        async with open_database(self.ledger) as database:
            store = AccountRepository(database)
            wanted = [Account(plan.account, "USDT", self.capital, self.capital) for plan in self.plans]
            state = LoopState.empty(feed.symbols, self.plans, await store.open(wanted))
            state.restore_targets(self.plans, await store.targets())
            trades, signals = TradeRepository(database), SignalRepository(database)
            ticks = TickRepository(database) if self.record else None
            if ticks is not None:
                await ticks.register(dict.fromkeys(feed.symbols, 2))
            executors = {
                name: MockExecutor(trades, signals, account=account, terms=self.terms, markets=self.markets)
                for name, account in state.accounts.items()
            }
            pace = Pace(self.interval_ms, self.poll_timeout_s, self.until)
            books = Ledger(database, signals, store, ticks)
            engine = Engine(self.plans, self.markets)
            yield TradingLoop(feed, engine, executors, state, books, clock, pace, self.heard)

    async def run(self, feed: PriceFeed, clock: Clock | None = None, ahead: int = POLLS) -> str:
        """Trades to the end and returns the ledger's digest."""
        async with self.loop(feed, clock or VirtualClock(START_MS, ahead)) as loop:
            await loop.run()
        return await digest_of(self.ledger)


async def digest_of(ledger: Path) -> str:
    async with open_database(ledger, read_only=True) as database:
        return database.digest


def rows(ledger: Path, query: str) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(ledger)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(query)]


def everything(ledger: Path) -> dict[str, list[dict[str, Any]]]:
    queries = {table: f"SELECT * FROM {table} ORDER BY id" for table in TABLES}  # noqa: S608
    queries |= {"accounts": "SELECT * FROM accounts ORDER BY name"}
    queries |= {"positions": "SELECT * FROM positions ORDER BY account, symbol"}
    queries |= {"ticks": "SELECT * FROM ticks ORDER BY rowid", "cursor": "SELECT polls, timestamp, ticks FROM cursor"}
    return {name: rows(ledger, query) for name, query in queries.items()}


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


class TestBlocks:
    """One tape, one ledger."""

    @pytest.mark.parametrize("gaps", [0.0, 0.4])
    @pytest.mark.parametrize("record", [True, False], ids=["tape", "no tape"])
    async def test_whatever_the_size_of_the_blocks(self, tmp_path: Path, gaps: float, record: bool) -> None:
        prices = tape(5, gaps=gaps)
        whole = Setup(tmp_path / "whole.db", several(), record=record)
        digest = await whole.run(ArrayFeed(prices, MARKETS))
        expected = everything(whole.ledger)
        assert len(expected["trades"]) > 50
        assert {row["verdict"] for row in expected["signals"]} == {"filled", "refused"}
        for number, (ahead, one_by_one) in enumerate(
            [(1, False), (7, False), (64, False), (50, True), (10_000, False)]
        ):
            setup = Setup(tmp_path / f"{number}.db", several(), record=record)
            assert await setup.run(ArrayFeed(prices, MARKETS, one_by_one=one_by_one), ahead=ahead) == digest
            assert everything(setup.ledger) == expected

    @examples
    @given(
        seed=st.integers(0, 1000),
        gaps=st.sampled_from([0.0, 0.3]),
        stops=st.lists(st.integers(1, POLLS), max_size=4),
        aheads=st.lists(st.integers(1, 50), min_size=5, max_size=5),
    )
    def test_whatever_the_sizes_and_the_stops(
        self, seed: int, gaps: float, stops: list[int], aheads: list[int]
    ) -> None:
        """Without gaps also across restarts; with them, in one go."""
        prices = tape(seed, gaps=gaps)

        async def check(folder: Path) -> None:
            whole = Setup(folder / "whole.db", several())
            parted = Setup(folder / "parts.db", several())
            digest = await whole.run(ArrayFeed(prices, MARKETS))
            for until, ahead in zip([*(sorted(stops) if not gaps else []), None], aheads, strict=False):
                parted.until = until
                await parted.run(ArrayFeed(prices, MARKETS), ahead=ahead)
            assert await digest_of(parted.ledger) == digest
            assert everything(parted.ledger) == everything(whole.ledger)

        with TemporaryDirectory() as folder:
            asyncio.run(check(Path(folder)))

    @pytest.mark.parametrize("seed", [1, 2])
    async def test_started_again_on_a_tape_with_gaps(self, tmp_path: Path, seed: int) -> None:
        """A symbol that is seldom seen needs more beats of the tape to fill its window than the window is long."""
        prices = tape(seed, gaps=0.7)
        whole, parted = Setup(tmp_path / "whole.db", several()), Setup(tmp_path / "parts.db", several())
        digest = await whole.run(ArrayFeed(prices, MARKETS))
        for until in (20, 40, 60, 80, None):
            parted.until = until
            await parted.run(ArrayFeed(prices, MARKETS), ahead=7)
        assert await digest_of(parted.ledger) == digest

    async def test_started_again_with_a_position_that_has_no_new_price(self, tmp_path: Path) -> None:
        """ETH is bought at the first poll and not seen again; BTC comes later, and its size needs the whole equity."""
        prices = tape(1, polls=20)
        for column in (prices.bid, prices.ask, prices.last):
            column[0, :10] = column[1, 1:] = np.nan
        plans = [Plan(build("buy_and_hold"), "hold", Sizing(SizingKind.EQUITY_FRACTION, Decimal("0.3")))]
        whole, parted = Setup(tmp_path / "whole.db", plans), Setup(tmp_path / "parts.db", plans)
        digest = await whole.run(ArrayFeed(prices, MARKETS))
        assert len(rows(whole.ledger, "SELECT * FROM trades")) == 3
        for until in (5, None):
            parted.until = until
            await parted.run(ArrayFeed(prices, MARKETS))
        assert await digest_of(parted.ledger) == digest

    @pytest.mark.parametrize("gaps", [0.0, 0.5])
    async def test_replayed(self, tmp_path: Path, gaps: float) -> None:
        recorded = Setup(tmp_path / "recorded.db", several())
        digest = await recorded.run(ArrayFeed(tape(9, gaps=gaps), MARKETS), ahead=11)
        again = Setup(tmp_path / "again.db", several())
        assert await replay(recorded.ledger, again) == digest
        assert everything(again.ledger) == everything(recorded.ledger)

    async def test_replayed_though_a_poll_brought_no_price_at_all(self, tmp_path: Path) -> None:
        prices = tape(9)
        for column in (prices.bid, prices.ask, prices.last):
            column[:, 30:33] = np.nan
        recorded = Setup(tmp_path / "recorded.db", several())
        digest = await recorded.run(ArrayFeed(prices, MARKETS))
        again = Setup(tmp_path / "again.db", several())
        assert await replay(recorded.ledger, again) == digest


async def replay(source: Path, target: Setup) -> str:
    async with open_database(source, read_only=True) as database:
        feed = ReplayFeed(TickRepository(database), SYMBOLS, MARKETS, INTERVAL_MS)
        return await target.run(feed, ahead=17)


class TestBooks:
    @pytest.fixture(params=[0.0, 0.4], ids=["no gaps", "gaps"])
    async def traded(self, request: pytest.FixtureRequest, ledger: Path) -> Path:
        await Setup(ledger, several()).run(ArrayFeed(tape(21, gaps=request.param), MARKETS))
        return ledger

    def test_cash_is_the_capital_and_what_the_fills_moved(self, traded: Path) -> None:
        with localcontext(MONEY):
            for account in rows(traded, "SELECT * FROM accounts"):
                cash = Decimal(account["capital"])
                for trade in rows(traded, f"SELECT * FROM trades WHERE account = '{account['name']}'"):  # noqa: S608
                    price, quantity = Decimal(trade["price"]), Decimal(trade["quantity"])
                    assert Decimal(trade["cost"]) == price * quantity
                    assert Decimal(trade["fee"]) == price * quantity * FEE_RATE
                    cash += price * quantity * (-1 if trade["side"] == "buy" else 1) - Decimal(trade["fee"])
                assert cash == Decimal(account["cash"])
                assert cash > 0

    def test_positions_are_the_sums_of_the_fills(self, traded: Path) -> None:
        held: dict[tuple[str, str], Decimal] = {}
        for trade in rows(traded, "SELECT * FROM trades"):
            key = (trade["account"], trade["symbol"])
            held[key] = held.get(key, Decimal(0)) + Decimal(trade["quantity"]) * (1 if trade["side"] == "buy" else -1)
        stored = {(row["account"], row["symbol"]): row for row in rows(traded, "SELECT * FROM positions")}
        assert held == {key: Decimal(stored[key]["quantity"]) for key in held}
        for row in stored.values():
            assert Decimal(row["total_buys"]) - Decimal(row["total_sells"]) == Decimal(row["quantity"])

    def test_every_signal_has_its_verdict_and_every_fill_its_price(self, traded: Path) -> None:
        signals = {row["id"]: row for row in rows(traded, "SELECT * FROM signals")}
        orders = {row["signal_id"]: row for row in rows(traded, "SELECT * FROM orders")}
        trades = {row["order_id"]: row for row in rows(traded, "SELECT * FROM trades")}
        quotes = {(row["symbol"], row["timestamp"]): row for row in rows(traded, "SELECT * FROM quotes")}
        assert len(orders) == len(trades)
        before: dict[tuple[str, str], float] = {}
        for number, signal in signals.items():
            key = (signal["account"], signal["symbol"])
            assert signal["target"] != before.get(key, 0.0), "a signal is a change of target"
            before[key] = signal["target"]
            quote = quotes[signal["symbol"], signal["timestamp"]]
            assert (quote["bid"], quote["ask"], quote["poll"]) == (signal["bid"], signal["ask"], signal["poll"])
            if signal["verdict"] == "refused":
                assert signal["reason"]
                assert number not in orders
                continue
            assert (signal["verdict"], signal["reason"]) == ("filled", None)
            order = orders[number]
            trade = trades[order["id"]]
            assert (order["status"], order["type"], order["price"]) == ("closed", "market", None)
            for column in ("account", "symbol", "timestamp", "side", "quantity"):
                assert order[column] == trade[column] == signal.get(column, trade[column])
            assert Decimal(trade["price"]) == slipped(trade["side"], signal)

    def test_targets_are_the_last_ones_asked_for(self, traded: Path) -> None:
        last = {
            (row["account"], row["symbol"]): row["target"] for row in rows(traded, "SELECT * FROM signals ORDER BY id")
        }
        stored = {(row["account"], row["symbol"]): row["target"] for row in rows(traded, "SELECT * FROM positions")}
        assert stored | last == stored


def slipped(side: str, signal: Mapping[str, Any]) -> Decimal:
    """The quote's other side, made worse by 2.5 basis points and to the next whole cent."""
    buying = side == "buy"
    quote = Decimal(repr(signal["ask" if buying else "bid"]))
    worse = quote * (1 + FEES.slippage_bps / 10_000 * (1 if buying else -1))
    return worse.quantize(Decimal("0.01"), ROUND_CEILING if buying else ROUND_FLOOR)


class TestVerdicts:
    @staticmethod
    async def verdicts(
        ledger: Path,
        prices: Block,
        *,
        sizing: Sizing = UNIT,
        strategy: Strategy | None = None,
        **keys: Any,
    ) -> list[tuple[float, str | None]]:
        plans = [Plan(strategy or Script(), "main", sizing)]
        heard = Heard()
        await Setup(ledger, plans, terms=Terms(Decimal("0.001")), heard=heard, **keys).run(
            ArrayFeed(prices, MARKETS), ahead=1
        )
        found = [(row["target"], row["reason"]) for row in rows(ledger, "SELECT * FROM signals ORDER BY id")]
        assert [signal.target for signal in heard.filled_] == [target for target, reason in found if reason is None]
        assert [(signal.target, reason) for signal, reason in heard.refused_] == [row for row in found if row[1]]
        return found

    async def test_an_edge_is_asked_once(self, ledger: Path) -> None:
        nan = float("nan")
        assert await self.verdicts(ledger, scripted(1, 1, nan, 1, 0, 0, nan, 0)) == [(1, None), (0, None)]

    async def test_impossible_targets(self, ledger: Path) -> None:
        infinite = float("inf")
        assert await self.verdicts(ledger, scripted(1.5, 1.5, 1, infinite, 1, 0)) == [
            (1.5, "invalid_target"),
            (1, None),
            (infinite, "invalid_target"),
            (1, "no_change"),
            (0, None),
        ]

    async def test_cash_is_not_enough(self, ledger: Path) -> None:
        """99 buys 0.99 and not 1; a refused buy leaves nothing behind, and the flat that follows nothing to sell."""
        found = await self.verdicts(ledger, scripted(1, 1, 0.5, 0, 1), capital=Decimal(99))
        assert found == [(1, "insufficient_cash"), (0.5, None), (0, None), (1, "insufficient_cash")]

    async def test_a_refused_buy_leaves_nothing_to_sell(self, ledger: Path) -> None:
        found = await self.verdicts(ledger, scripted(1, 0), capital=Decimal(99))
        assert found == [(1, "insufficient_cash"), (0, "no_change")]

    async def test_a_short_is_covered_by_the_own_money(self, ledger: Path) -> None:
        found = await self.verdicts(ledger, scripted(-1, 0, 0.5, -1), capital=Decimal(99))
        assert found == [(-1, "insufficient_margin"), (0, "no_change"), (0.5, None), (-1, "insufficient_margin")]

    async def test_a_loss_can_always_be_ended(self, ledger: Path) -> None:
        prices = scripted(-1, 0, 1, prices=[100, 400, 400])
        assert await self.verdicts(ledger, prices, capital=Decimal(150)) == [
            (-1, None),
            (0, None),
            (1, "insufficient_cash"),
        ]
        assert Decimal(rows(ledger, "SELECT cash FROM accounts")[0]["cash"]) < 0

    async def test_no_equity(self, ledger: Path) -> None:
        prices = scripted(-1, 0.5, 0, 1, prices=[100, 400, 400, 400])
        found = await self.verdicts(ledger, prices, sizing=Sizing(SizingKind.EQUITY_FRACTION, Decimal("0.9")))
        assert found == [(-1, None), (0.5, "no_equity"), (0, None), (1, "no_equity")]

    @pytest.mark.parametrize(
        ("limits", "reason"),
        [
            ({"min_amount": Decimal("1.001")}, "below_min_amount"),
            ({"min_cost": Decimal(101)}, "below_min_cost"),
            ({"amount_step": Decimal(2)}, "below_min_amount"),
            ({"max_amount": Decimal("0.999")}, "above_max_amount"),
            ({"max_market_amount": Decimal("0.999")}, "above_max_amount"),
            ({"max_cost": Decimal(100)}, "above_max_cost"),
        ],
    )
    async def test_limits_of_the_market(self, ledger: Path, limits: dict[str, Decimal], reason: str) -> None:
        markets = {"BTC/USDT": Market("BTC/USDT", Decimal("0.01"), **({"amount_step": Decimal("0.001")} | limits))}
        assert await self.verdicts(ledger, scripted(1, 1, 0), markets=markets) == [(1, reason), (0, "no_change")]


class TestFailures:
    """Memory follows the file."""

    RAISE = "CREATE TRIGGER no BEFORE INSERT ON {} WHEN new.timestamp >= {} BEGIN SELECT RAISE(ABORT, 'not now'); END"

    @pytest.mark.parametrize("table", ["ticks", "signals", "orders", "trades"])
    async def test_a_commit_that_fails_changes_nothing(self, tmp_path: Path, table: str) -> None:
        prices = tape(33)
        setup = Setup(tmp_path / "ledger.db", several())
        undisturbed = Setup(tmp_path / "undisturbed.db", several())
        digest = await undisturbed.run(ArrayFeed(prices, MARKETS))
        failing_ms = START_MS + 60 * INTERVAL_MS
        async with setup.loop(ArrayFeed(prices, MARKETS), VirtualClock(START_MS, 15)) as loop:
            self.execute(setup.ledger, self.RAISE.format(table, failing_ms))
            with pytest.raises(sqlite3.Error, match="not now"):
                await loop.run()
            stored = everything(setup.ledger)
            assert stored["cursor"] == [{"polls": 60, "timestamp": failing_ms - INTERVAL_MS, "ticks": 180}]
            self.assert_follows(loop, stored)
            with pytest.raises(sqlite3.Error, match="not now"):
                await loop.run()
            assert everything(setup.ledger) == stored
            self.assert_follows(loop, stored)
            self.execute(setup.ledger, "DROP TRIGGER no")
            with localcontext(MONEY):
                await loop.step(part(prices, 60, 80))
                await loop.step(part(prices, 80, POLLS))
        assert await digest_of(setup.ledger) == digest
        assert everything(setup.ledger) == everything(undisturbed.ledger)

    async def test_a_ledger_that_somebody_else_has_locked(self, ledger: Path) -> None:
        """A lock that is held for a moment is waited for."""
        prices = tape(33)
        setup = Setup(ledger, several())
        async with setup.loop(ArrayFeed(prices, MARKETS), VirtualClock(START_MS, 15)) as loop:
            with closing(sqlite3.connect(ledger, isolation_level=None, check_same_thread=False)) as other:
                other.execute("BEGIN IMMEDIATE")
                asyncio.get_running_loop().call_later(0.2, other.execute, "ROLLBACK")
                await loop.run()
        assert rows(ledger, "SELECT polls FROM cursor") == [{"polls": POLLS}]

    async def test_cancelled_anywhere_and_started_again(self, ledger: Path) -> None:
        prices = tape(33)
        undisturbed = Setup(ledger.with_name("undisturbed.db"), several())
        digest = await undisturbed.run(ArrayFeed(prices, MARKETS))
        setup = Setup(ledger, several())
        for turns in range(1, 12):
            async with setup.loop(ArrayFeed(prices, MARKETS), VirtualClock(START_MS, 15)) as loop:
                running = asyncio.create_task(loop.run())
                for _ in range(turns):
                    await asyncio.wait({running}, timeout=0)
                running.cancel()
                await asyncio.wait({running})
                self.assert_follows(loop, everything(ledger))
        assert await setup.run(ArrayFeed(prices, MARKETS)) == digest
        assert everything(ledger) == everything(undisturbed.ledger)

    async def test_a_commit_that_succeeds_though_it_was_cancelled(self, ledger: Path) -> None:
        """The commit waits for somebody's lock, is cancelled there, and is written all the same."""
        prices = tape(33)
        setup = Setup(ledger, several())
        async with setup.loop(ArrayFeed(prices, MARKETS), VirtualClock(START_MS, 40)) as loop:
            setcontext(MONEY)
            await loop.step(part(prices, 0, 40))
            with closing(sqlite3.connect(ledger, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                stepping = asyncio.create_task(loop.step(part(prices, 40, 80)))
                await asyncio.wait({stepping}, timeout=0.1)
                stepping.cancel()
                await asyncio.wait({stepping}, timeout=0.1)
                assert not stepping.done(), "a step does not end before its fate is known"
                other.execute("ROLLBACK")
                await asyncio.wait({stepping})
            assert stepping.cancelled()
            stored = everything(ledger)
            assert stored["cursor"][0]["polls"] == 80
            self.assert_follows(loop, stored)
            await loop.step(part(prices, 80, POLLS))
        undisturbed = Setup(ledger.with_name("undisturbed.db"), several())
        assert await undisturbed.run(ArrayFeed(prices, MARKETS)) == await digest_of(ledger)

    @staticmethod
    def execute(ledger: Path, statement: str) -> None:
        with closing(sqlite3.connect(ledger, isolation_level=None)) as connection:
            connection.execute(statement)

    @staticmethod
    def assert_follows(loop: TradingLoop, stored: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        """The accounts in memory are those in the file, to the last digit."""
        for row in stored["accounts"]:
            assert loop.state.accounts[row["name"]].cash == Decimal(row["cash"])
        held = {(row["account"], row["symbol"]): Decimal(row["quantity"]) for row in stored["positions"]}
        for name, account in loop.state.accounts.items():
            for symbol, position in account.positions.items():
                assert position.quantity == held.get((name, symbol), Decimal(0))


class Flaky:
    """A feed that fails as often as it is told to before each of some polls, and else plays an array."""

    def __init__(self, prices: Block, failures: Mapping[int, int], fail: Callable[[], Any] | None = None) -> None:
        self._feed = ArrayFeed(prices, MARKETS)
        self.symbols, self.markets = self._feed.symbols, self._feed.markets
        self._left, self._number, self._fail = dict(failures), 0, fail
        self.closed = False

    async def history(self, before_ms: int, window: Window) -> Block | None:
        return None

    async def poll(self, beat_ms: int, polls: int) -> Block | None:
        if self._left.get(self._number, 0) > 0:
            self._left[self._number] -= 1
            if self._fail is not None:
                await self._fail()
            raise FeedError("the venue is down")
        block = await self._feed.poll(min(beat_ms, START_MS + self._number * INTERVAL_MS), 1)
        self._number += 1
        return block

    async def close(self) -> None:
        self.closed = True


class TestFeedErrors:
    async def test_backs_off_more_and_more_up_to_a_minute_and_trades_on(self, ledger: Path) -> None:
        prices = tape(4)
        setup = Setup(ledger, several())
        await setup.run(Flaky(prices, {0: 1, 10: 12}), ahead=1)
        delays = [delay for _, delay in setup.heard.failures]
        assert len(delays) == 13
        assert {error for error, _ in setup.heard.failures} == {"the venue is down"}
        for failures, delay in enumerate(delays[1:], start=1):
            whole = min(BACKOFF_MAX_S, INTERVAL_MS / 1000 * 2**failures)
            assert whole / 2 <= delay < whole
        assert [failures for _, failures in setup.heard.recoveries] == [1, 12]
        undisturbed = Setup(ledger.with_name("undisturbed.db"), several())
        assert await undisturbed.run(ArrayFeed(prices, MARKETS)) == await digest_of(ledger)

    async def test_an_outage_is_as_long_as_the_waits(self, ledger: Path) -> None:
        setup = Setup(ledger, several())
        await setup.run(Flaky(tape(4, polls=20), {10: 5}), ahead=1)
        ((outage_s, _),) = setup.heard.recoveries
        assert outage_s >= sum(delay for _, delay in setup.heard.failures) - 0.01

    async def test_an_error_after_some_polls_keeps_them(self, ledger: Path) -> None:
        setup = Setup(ledger, several())
        await setup.run(Flaky(tape(4), {50: 3}), ahead=40)
        assert rows(ledger, "SELECT polls FROM cursor") == [{"polls": POLLS}]
        undisturbed = Setup(ledger.with_name("undisturbed.db"), several())
        assert await undisturbed.run(ArrayFeed(tape(4), MARKETS)) == await digest_of(ledger)

    async def test_a_poll_that_hangs_is_given_up(self, ledger: Path) -> None:
        setup = Setup(ledger, several(), poll_timeout_s=0.05, interval_ms=10)
        feed = Flaky(tape(4, polls=8), {3: 2}, fail=asyncio.Event().wait)
        await setup.run(feed, SystemClock())
        assert [error for error, _ in setup.heard.failures] == ["no answer within 0.05 s"] * 2
        assert [failures for _, failures in setup.heard.recoveries] == [2]
        assert rows(ledger, "SELECT polls FROM cursor") == [{"polls": 8}]

    async def test_a_history_that_takes_long_does_not_make_the_first_prices_old(self, ledger: Path) -> None:
        clock = SystemClock()
        late: list[int] = []

        class Slow(Flaky):
            async def history(self, before_ms: int, window: Window) -> Block | None:
                await clock.sleep(1.0)
                return None

            async def poll(self, beat_ms: int, polls: int) -> Block | None:
                late.append(clock.now_ms() - beat_ms)
                return await super().poll(beat_ms, polls)

        setup = Setup(ledger, several(), interval_ms=100, until=1)
        await setup.run(Slow(tape(4), {}), clock)
        assert len(late) == 1
        assert late[0] < 900

    async def test_stop_ends_the_wait_for_a_feed_that_is_down(self, ledger: Path) -> None:
        clock = SystemClock()
        setup = Setup(ledger, several(), interval_ms=60_000)
        async with setup.loop(Flaky(tape(4), {0: 1000}), clock) as loop:
            asyncio.get_running_loop().call_later(0.05, clock.stop)
            async with asyncio.timeout(5):
                assert await loop.run() == "stopped"
        assert rows(ledger, "SELECT polls FROM cursor") == [{"polls": 0}]

    async def test_stop_ends_a_poll_that_hangs_and_that_is_no_failure(self, ledger: Path) -> None:
        clock = SystemClock()
        setup = Setup(ledger, several(), poll_timeout_s=3600.0, interval_ms=10)

        async def hang() -> None:
            asyncio.get_running_loop().call_later(0.05, clock.stop)
            await asyncio.Event().wait()

        async with setup.loop(Flaky(tape(4), {2: 1}, fail=hang), clock) as loop:
            async with asyncio.timeout(20):
                assert await loop.run() == "stopped"
        assert setup.heard.failures == []
        assert rows(ledger, "SELECT polls FROM cursor") == [{"polls": 2}]

    async def test_a_feed_that_knows_better_is_left_for_as_long_as_it_asks(self, ledger: Path) -> None:
        asked = iter([0.0, 5.0, 600.0, 600.0])

        async def fail() -> None:
            raise FeedError("rate limit", retry_s=next(asked))

        setup = Setup(ledger, several())
        await setup.run(Flaky(tape(4), {10: 4}, fail=fail), ahead=1)
        for (_, delay), whole in zip(setup.heard.failures, [0.0, 5.0, 600.0, 600.0], strict=True):
            assert whole <= delay <= whole + min(30.0, whole / 2)
        assert [failures for _, failures in setup.heard.recoveries] == [4]

    async def test_prices_that_are_not_believed_yet_are_no_failure(self, ledger: Path) -> None:
        async def fail() -> None:
            raise NotYet("no price is confirmed yet")

        prices = tape(4)
        setup = Setup(ledger, several())
        await setup.run(Flaky(prices, {0: 1, 10: 12, 50: 1}, fail=fail), ahead=1)
        assert (setup.heard.failures, setup.heard.recoveries) == ([], [])
        undisturbed = Setup(ledger.with_name("undisturbed.db"), several())
        assert await undisturbed.run(ArrayFeed(prices, MARKETS)) == await digest_of(ledger)

    async def test_nor_do_they_end_an_outage(self, ledger: Path) -> None:
        kinds = iter([FeedError, NotYet, FeedError, NotYet])

        async def fail() -> None:
            raise next(kinds)("x")

        setup = Setup(ledger, several())
        await setup.run(Flaky(tape(4), {10: 4}, fail=fail), ahead=1)
        assert len(setup.heard.failures) == 2
        assert [failures for _, failures in setup.heard.recoveries] == [2]

    async def test_any_other_error_is_not_swallowed(self, ledger: Path) -> None:
        async def crash() -> None:
            raise ZeroDivisionError

        setup = Setup(ledger, several())
        with pytest.raises(ZeroDivisionError):
            await setup.run(Flaky(tape(4), {5: 1}, fail=crash), ahead=1)
        assert rows(ledger, "SELECT polls FROM cursor") == [{"polls": 5}]


class TestEnd:
    async def test_exactly_so_many_polls(self, ledger: Path) -> None:
        setup = Setup(ledger, several())
        for until in (1, 2, 50, 50, 30, 119):
            setup.until = until
            async with setup.loop(ArrayFeed(tape(4), MARKETS), VirtualClock(START_MS, 16)) as loop:
                assert await loop.run() == "the polls are done"
            assert rows(ledger, "SELECT polls FROM cursor") == [{"polls": max(until, 50) if until == 30 else until}]

    async def test_the_feed_has_ended(self, ledger: Path) -> None:
        setup = Setup(ledger, several())
        async with setup.loop(ArrayFeed(tape(4), MARKETS), VirtualClock(START_MS, 16)) as loop:
            assert await loop.run() == "the feed has ended"
        assert setup.heard.polls[-1] == POLLS

    async def test_status_is_told_after_the_commit(self, ledger: Path) -> None:
        setup = Setup(ledger, several())
        committed: list[int] = []

        class Reader(Heard):
            def stepped(self, status: Status) -> None:
                committed.append(rows(ledger, "SELECT polls FROM cursor")[0]["polls"] - status.polls)
                assert set(status.equity()) == {plan.account for plan in setup.plans}

        setup.heard = Reader()
        await setup.run(ArrayFeed(tape(4), MARKETS), ahead=16)
        assert committed == [0] * 8
