"""What every executor promises: ccxt's order shape, a row for every fill, and positions that follow the file.

Rows are read with a connection of their own, so that what is seen is what another program would see.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.clock import VirtualClock
from bot.domain import MONEY, Account, Market, OrderSide, OrderType, Signal
from bot.execution import Executor, MockExecutor, OrderRefused, Terms
from bot.repositories import (
    AccountRepository,
    Database,
    LedgerError,
    SignalRepository,
    TradeRepository,
    open_database,
)

BUY, SELL, MARKET, LIMIT = OrderSide.BUY, OrderSide.SELL, OrderType.MARKET, OrderType.LIMIT
BTC, ETH = "BTC/USDT", "ETH/USDT"
NOW_MS, NOW_TEXT = 1_735_689_600_000, "2025-01-01T00:00:00.000Z"
TABLES = ("ticks", "signals", "orders", "trades", "positions", "accounts", "runs")
TRADE_COLUMNS = {
    "id", "account", "order_id", "symbol", "side", "price", "quantity", "fee", "fee_currency", "pnl",
    "timestamp",
}  # fmt: skip
ORDER_TYPES = {
    "id": str, "clientOrderId": str, "symbol": str, "side": str, "type": str,
    "price": float, "average": float, "amount": float, "filled": float, "remaining": float, "cost": float,
    "status": str, "timestamp": int, "datetime": str, "fee": dict, "trades": list, "info": dict,
}  # fmt: skip

Row = dict[str, Any]


def read(path: Path, sql: str) -> list[Row]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as reader:
        reader.row_factory = sqlite3.Row
        return [dict(row) for row in reader.execute(sql)]


def trades_of(path: Path) -> list[Row]:
    return read(path, "SELECT * FROM trades ORDER BY id")


def contents(path: Path) -> dict[str, list[Row]]:
    return {table: read(path, f"SELECT * FROM {table}") for table in TABLES}  # noqa: S608 - constants


@dataclass(slots=True)
class Holding:
    """A position worked out again from rows, in fractions: at average cost, that of a closed part to 12 decimals."""

    quantity: Fraction = Fraction(0)
    basis: Fraction = Fraction(0)
    buys: Fraction = Fraction(0)
    sells: Fraction = Fraction(0)
    paid: Fraction = Fraction(0)
    pnls: list[Fraction] = field(default_factory=list)

    def add(self, side: str, quantity: Fraction, price: Fraction) -> None:
        change = quantity if side == "buy" else -quantity
        if side == "buy":
            self.buys += quantity
        else:
            self.sells += quantity
        self.paid += change * price
        held = self.quantity
        self.quantity = held + change
        if held * change >= 0:
            self.basis += change * price
            self.pnls.append(Fraction(0))
        elif abs(change) < abs(held):
            closed = Fraction(round(self.basis * quantity / abs(held) * 10**12), 10**12)
            self.basis -= closed
            self.pnls.append(-change * price - closed)
        else:
            self.pnls.append(held * price - self.basis)
            self.basis = self.quantity * price


def recomputed(rows: list[Row]) -> dict[str, Holding]:
    """The positions that trades add up to; checks what each row says of itself on the way."""
    holdings: dict[str, Holding] = {}
    for row in rows:
        holding = holdings.setdefault(row["symbol"], Holding())
        quantity, price = Fraction(row["quantity"]), Fraction(row["price"])
        holding.add(row["side"], quantity, price)
        assert Fraction(row["cost"]) == quantity * price
        assert Fraction(row["pnl"]) == holding.pnls[-1]
    return holdings


async def assert_books_match(executor: Executor, path: Path, symbols: Sequence[str]) -> None:
    """The executor's positions are those that the file's trades add up to, to the last digit a float has."""
    holdings = recomputed(trades_of(path))
    for symbol in symbols:
        holding = holdings.get(symbol, Holding())
        assert await executor.get_position(symbol) == {
            "symbol": symbol,
            "net_quantity": float(holding.quantity),
            "total_buys": float(holding.buys),
            "total_sells": float(holding.sells),
            "is_flat": abs(holding.quantity) < Fraction(1, 10**8),
        }


@dataclass(frozen=True, slots=True)
class Desk:
    """An executor over a ledger of its own; ``another`` starts on the same file with an empty cache."""

    executor: Executor
    database: Database
    path: Path
    records_signals: bool
    another: Callable[[], Executor]

    async def order(
        self, symbol: str, side: OrderSide, quantity: float | Decimal, price: float | Decimal | None = None
    ) -> dict[str, Any]:
        return await self.executor.execute_order(symbol, side, quantity, MARKET, price)


@asynccontextmanager
async def opened_desk(path: Path, *, records_signals: bool) -> AsyncIterator[Desk]:
    async with open_database(path) as database:

        def executor() -> Executor:
            signals = SignalRepository(database) if records_signals else None
            return MockExecutor(TradeRepository(database), signals, clock=VirtualClock(NOW_MS))

        yield Desk(executor(), database, path, records_signals, executor)


@pytest.fixture(params=[False, True], ids=["trades", "trades+signals"])
async def desk(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Desk]:
    async with opened_desk(tmp_path / "ledger.db", records_signals=request.param) as desk:
        yield desk


# Orders


async def test_execute_order_creates_database_record(desk: Desk) -> None:
    assert trades_of(desk.path) == []
    order = await desk.executor.execute_order(BTC, BUY, 0.5, MARKET, 50_000.0)
    (trade,) = trades_of(desk.path)
    assert set(trade) >= TRADE_COLUMNS
    assert trade["id"] == order["info"]["trade_db_id"]
    assert trade["order_id"] == order["id"]
    assert (trade["symbol"], trade["side"]) == (BTC, "buy")
    money = ("price", "quantity", "cost", "fee", "pnl")
    assert all(isinstance(trade[column], str) for column in money)
    assert [Decimal(trade[column]) for column in money] == [
        Decimal(50_000),
        Decimal("0.5"),
        Decimal(25_000),
        0,
        0,
    ]
    assert (trade["fee_currency"], trade["timestamp"]) == ("USDT", NOW_MS)
    (row,) = read(desk.path, "SELECT * FROM orders")
    assert row["id"] == order["id"]
    assert row["account"] == trade["account"] == order["info"]["account"]
    assert (row["symbol"], row["side"], row["type"], row["status"]) == (BTC, "buy", "market", "closed")
    assert (Decimal(row["quantity"]), row["price"], row["timestamp"]) == (Decimal("0.5"), None, NOW_MS)
    signals = read(desk.path, "SELECT * FROM signals")
    assert len(signals) == desk.records_signals
    if desk.records_signals:
        assert (signals[0]["symbol"], signals[0]["target"]) == (BTC, 1.0)
        assert (signals[0]["verdict"], signals[0]["reason"]) == ("filled", None)
        assert row["signal_id"] == signals[0]["id"]


async def test_execute_order_returns_valid_structure(desk: Desk) -> None:
    assert isinstance(desk.executor, Executor)
    order = await desk.executor.execute_order(BTC, BUY, 0.5, MARKET, 50_000.0)
    assert set(order) >= set(ORDER_TYPES)
    assert {key: type(order[key]) for key in ORDER_TYPES} == ORDER_TYPES
    assert str(UUID(order["id"])) == order["id"] == order["clientOrderId"]
    assert (order["symbol"], order["side"], order["type"], order["status"]) == (
        BTC,
        "buy",
        "market",
        "closed",
    )
    assert order["price"] == order["average"] == 50_000.0
    assert order["amount"] == order["filled"] == 0.5
    assert (order["remaining"], order["cost"]) == (0.0, 25_000.0)
    assert (order["timestamp"], order["datetime"]) == (NOW_MS, NOW_TEXT)
    assert order["fee"] == {"currency": "USDT", "cost": 0.0, "rate": 0.0}
    (trade,) = order["trades"]
    assert trade["order"] == order["id"]
    for key in ("symbol", "side", "type", "price", "amount", "cost", "fee", "timestamp", "datetime"):
        assert trade[key] == order[key]
    assert json.loads(json.dumps(order)) == order, "plain values only: it is also what is logged and sent"


async def test_execute_order_with_simulated_price(desk: Desk) -> None:
    order = await desk.executor.execute_order(BTC, BUY, 0.5, MARKET)
    assert (order["price"], order["cost"]) == (50_000.0, 25_000.0)
    assert Decimal(trades_of(desk.path)[0]["price"]) == 50_000


async def test_execute_multiple_orders(desk: Desk) -> None:
    orders = [await desk.order(BTC, BUY, quantity, 50_000) for quantity in (0.1, 0.2, 0.3)]
    assert len({order["id"] for order in orders}) == 3
    rows = trades_of(desk.path)
    assert [row["order_id"] for row in rows] == [order["id"] for order in orders]
    assert [row["id"] for row in rows] == [order["info"]["trade_db_id"] for order in orders]
    assert [Decimal(row["quantity"]) for row in rows] == [Decimal("0.1"), Decimal("0.2"), Decimal("0.3")]


async def test_execute_order_buy_and_sell(desk: Desk) -> None:
    bought = await desk.order(BTC, BUY, 1, 50_000)
    sold = await desk.order(BTC, SELL, 0.4, 51_000)
    assert (bought["side"], sold["side"]) == ("buy", "sell")
    assert (bought["info"]["pnl"], sold["info"]["pnl"]) == (0.0, 400.0)
    assert [row["side"] for row in trades_of(desk.path)] == ["buy", "sell"]
    assert [Decimal(row["pnl"]) for row in trades_of(desk.path)] == [0, 400]
    if desk.records_signals:
        assert [row["target"] for row in read(desk.path, "SELECT target FROM signals ORDER BY id")] == [
            1.0,
            -1.0,
        ]


async def test_execute_order_with_limit_type(desk: Desk) -> None:
    order = await desk.executor.execute_order(ETH, SELL, 2, LIMIT, 2_999.5)
    assert (order["type"], order["price"], order["average"], order["cost"]) == (
        "limit",
        2_999.5,
        2_999.5,
        5_999.0,
    )
    assert (order["status"], order["remaining"]) == ("closed", 0.0)
    (row,) = read(desk.path, "SELECT type, price FROM orders")
    assert (row["type"], Decimal(row["price"])) == ("limit", Decimal("2999.5"))


# Positions


async def test_get_position_empty(desk: Desk) -> None:
    assert await desk.executor.get_position(BTC) == {
        "symbol": BTC, "net_quantity": 0.0, "total_buys": 0.0, "total_sells": 0.0, "is_flat": True,
    }  # fmt: skip
    assert trades_of(desk.path) == []


async def test_get_position_after_buy(desk: Desk) -> None:
    await desk.order(BTC, BUY, 0.5, 50_000)
    assert await desk.executor.get_position(BTC) == {
        "symbol": BTC, "net_quantity": 0.5, "total_buys": 0.5, "total_sells": 0.0, "is_flat": False,
    }  # fmt: skip


async def test_get_position_after_multiple_buys(desk: Desk) -> None:
    for quantity in (0.1, 0.2, 0.3):
        await desk.order(BTC, BUY, quantity, 50_000)
    position = await desk.executor.get_position(BTC)
    assert position["net_quantity"] == position["total_buys"] == 0.6, "decimals, not binary floats, are added up"


async def test_get_position_after_buy_and_sell(desk: Desk) -> None:
    await desk.order(BTC, BUY, 0.3, 50_000)
    await desk.order(BTC, SELL, 0.1, 50_000)
    position = await desk.executor.get_position(BTC)
    assert (position["net_quantity"], position["total_buys"], position["total_sells"]) == (0.2, 0.3, 0.1)
    assert not position["is_flat"]


async def test_get_position_flat_after_closing(desk: Desk) -> None:
    for side, quantity in ((BUY, 0.1), (BUY, 0.2), (SELL, 0.3)):
        await desk.order(BTC, side, quantity, 50_000)
    position = await desk.executor.get_position(BTC)
    assert (position["net_quantity"], position["is_flat"]) == (0.0, True)
    assert position["total_buys"] == position["total_sells"] == 0.3


async def test_get_position_short(desk: Desk) -> None:
    await desk.order(BTC, SELL, 0.5, 50_000)
    position = await desk.executor.get_position(BTC)
    assert (position["net_quantity"], position["total_sells"], position["is_flat"]) == (-0.5, 0.5, False)
    covered = await desk.order(BTC, BUY, 0.5, 49_000)
    assert covered["info"]["pnl"] == 500.0


async def test_get_position_multiple_symbols(desk: Desk) -> None:
    await desk.order(BTC, BUY, 1, 50_000)
    await desk.order(ETH, SELL, 2, 3_000)
    held = [(await desk.executor.get_position(symbol))["net_quantity"] for symbol in (BTC, ETH, "SOL/USDT")]
    assert held == [1.0, -2.0, 0.0]


def at_once(answer: Awaitable[dict[str, Any]]) -> dict[str, Any]:
    """The result of a coroutine that has nothing to wait for; fails if it does wait."""
    steps = answer.__await__()
    try:
        next(steps)
    except StopIteration as done:
        result: dict[str, Any] = done.value
        return result
    pytest.fail("it had to wait, so the answer did not come from the cache")


async def test_position_cache_updated(desk: Desk) -> None:
    await desk.order(BTC, BUY, 0.5, 50_000)
    assert at_once(desk.executor.get_position(BTC))["net_quantity"] == 0.5
    await desk.order(BTC, SELL, 0.2, 50_000)
    assert at_once(desk.executor.get_position(BTC))["net_quantity"] == 0.3


async def test_reset_position_cache(desk: Desk) -> None:
    await desk.order(BTC, BUY, 0.5, 50_000)
    before = await desk.executor.get_position(BTC)
    with closing(sqlite3.connect(desk.path)) as other:
        other.execute("UPDATE positions SET quantity = '7', total_buys = '7'")
        other.commit()
    assert await desk.executor.get_position(BTC) == before
    desk.executor.reset_position_cache()
    assert (await desk.executor.get_position(BTC))["net_quantity"] == 7.0, "answered from the file"


@pytest.mark.parametrize("threshold", ["0.00000001", "0.0000000099"])
async def test_flat_is_below_1e_8(desk: Desk, threshold: str) -> None:
    await desk.order(BTC, BUY, Decimal(threshold), 50_000)
    assert (await desk.executor.get_position(BTC))["is_flat"] is (Decimal(threshold) < Decimal("1e-8"))


# Simulated prices


async def test_simulated_price_btc(desk: Desk) -> None:
    assert (await desk.order(BTC, BUY, 1))["price"] == 50_000.0


async def test_simulated_price_eth(desk: Desk) -> None:
    assert (await desk.order("ETH/EUR", SELL, 1))["price"] == 3_000.0


async def test_simulated_price_default(desk: Desk) -> None:
    assert (await desk.order("SOL/USDT", BUY, 1))["price"] == 100.0


# Whole stories


async def test_full_trading_cycle(desk: Desk) -> None:
    story = [
        (BUY, "1", "50000"),
        (BUY, "1", "52000"),
        (SELL, "0.5", "53000"),
        (SELL, "2.5", "50500"),
        (BUY, "1", "50000"),
    ]
    orders = [await desk.order(BTC, side, Decimal(quantity), Decimal(price)) for side, quantity, price in story]
    # Bought 2 at 51,000 on average: half a coin makes 1,000, the rest loses 750, the short that is left makes 500.
    assert [order["info"]["pnl"] for order in orders] == [0.0, 0.0, 1_000.0, -750.0, 500.0]
    assert (await desk.executor.get_position(BTC))["is_flat"]
    await assert_books_match(desk.executor, desk.path, [BTC])
    await assert_books_match(desk.another(), desk.path, [BTC])


async def test_concurrent_symbols(desk: Desk) -> None:
    symbols = [f"{base}/USDT" for base in ("BTC", "ETH", "SOL", "XRP", "ADA")]
    orders = await asyncio.gather(
        *(
            desk.order(symbols[number % 5], SELL if number % 3 == 0 else BUY, Decimal(number + 1) / 10, 100 + number)
            for number in range(50)
        )
    )
    rows = trades_of(desk.path)
    assert len(rows) == len({order["id"] for order in orders}) == 50
    assert {row["order_id"]: row["id"] for row in rows} == {
        order["id"]: order["info"]["trade_db_id"] for order in orders
    }
    assert len(read(desk.path, "SELECT * FROM signals")) == (50 if desk.records_signals else 0)
    await assert_books_match(desk.executor, desk.path, symbols)
    await assert_books_match(desk.another(), desk.path, symbols)


async def test_order_info_contains_trade_id(desk: Desk) -> None:
    for quantity in (1, 2):
        order = await desk.order(BTC, BUY, quantity)
        info = order["info"]
        assert type(info["trade_db_id"]) is int
        assert info["simulated"] is True
        (row,) = [row for row in trades_of(desk.path) if row["id"] == info["trade_db_id"]]
        assert row["order_id"] == order["id"]
        assert order["trades"][0]["id"] == str(info["trade_db_id"])


async def test_plain_strings_are_taken_for_side_and_type(desk: Desk) -> None:
    order = await desk.executor.execute_order(BTC, "sell", 1, "limit", 10)  # type: ignore[arg-type]
    assert (order["side"], order["type"]) == ("sell", "limit")


async def test_an_order_in_flight_is_not_a_position_yet(desk: Desk) -> None:
    order = asyncio.ensure_future(desk.order(BTC, BUY, 1))
    await turns(3)
    assert (await desk.executor.get_position(BTC))["net_quantity"] == 1.0
    assert len(trades_of(desk.path)) == 1, "it answered only when the order was in the file"
    await order


# What is refused leaves nothing

NAN, INFINITE = float("nan"), float("inf")
BAD_AMOUNTS: list[Any] = [
    0, 0.0, -0.0, -1, -1e-9, NAN, INFINITE, -INFINITE, np.float64("nan"), True, False,
    "", "much", None, [1.0], {}, 1j,
    Decimal(0), Decimal(-1), Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"),
]  # fmt: skip
BAD_SYMBOLS: list[Any] = [
    "", "BTC", "BTC/", "/USDT", "/", "BTC-USDT", "BTC /USDT", " BTC/USDT", "BTC/USDT\n", "BTC/US\x00DT",
    None, 7, b"BTC/USDT",
]  # fmt: skip


@asynccontextmanager
async def nothing_changes(desk: Desk) -> AsyncIterator[None]:
    await desk.order(BTC, BUY, 1, 50_000)
    file, digest = contents(desk.path), desk.database.digest
    position = await desk.executor.get_position(BTC)
    yield
    assert contents(desk.path) == file
    assert desk.database.digest == digest
    assert await desk.executor.get_position(BTC) == position
    assert (await desk.order(BTC, BUY, 1, 50_000))["info"]["trade_db_id"] == len(trades_of(desk.path)) == 2
    await assert_books_match(desk.executor, desk.path, [BTC])


async def test_a_bad_quantity_is_a_value_error_and_leaves_nothing(desk: Desk) -> None:
    async with nothing_changes(desk):
        for bad in BAD_AMOUNTS:
            with pytest.raises(ValueError, match="quantity"):
                await desk.executor.execute_order(BTC, BUY, bad, MARKET, 50_000.0)


async def test_a_bad_price_is_a_value_error_and_leaves_nothing(desk: Desk) -> None:
    async with nothing_changes(desk):
        for bad in BAD_AMOUNTS:
            if bad is not None:
                with pytest.raises(ValueError, match="price"):
                    await desk.executor.execute_order(BTC, SELL, 1, LIMIT, bad)


async def test_a_bad_symbol_is_a_value_error_and_leaves_nothing(desk: Desk) -> None:
    async with nothing_changes(desk):
        for bad in BAD_SYMBOLS:
            with pytest.raises(ValueError, match="symbol"):
                await desk.executor.execute_order(bad, BUY, 1, MARKET, 50_000.0)


async def test_a_bad_side_or_type_is_a_value_error_and_leaves_nothing(desk: Desk) -> None:
    async with nothing_changes(desk):
        for side, kind in (("hold", MARKET), ("", MARKET), (None, MARKET), (BUY, "stop"), (BUY, None)):
            with pytest.raises(ValueError, match="is not a valid"):
                await desk.executor.execute_order(BTC, side, 1, kind, 50_000.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["0.5", " 1_0 "])
async def test_text_is_no_quantity(desk: Desk, text: str) -> None:
    with pytest.raises(ValueError, match="quantity"):
        await desk.executor.execute_order(BTC, BUY, text, MARKET, 50_000.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("quantity", ["1e400", "1e-400"])
async def test_a_quantity_outside_the_floats_is_refused(desk: Desk, quantity: str) -> None:
    with pytest.raises(ValueError, match="quantity"):
        await desk.order(BTC, BUY, Decimal(quantity), 50_000)


async def test_no_sum_is_rounded(desk: Desk) -> None:
    largest, smallest = Decimal("999999999999999"), Decimal("1e-18")
    await desk.order(BTC, BUY, largest, largest)
    await desk.order(BTC, BUY, smallest, smallest)
    rows = read(desk.path, "SELECT quantity, basis FROM positions")
    assert Fraction(rows[0]["quantity"]) == Fraction(largest) + Fraction(smallest)
    assert Fraction(rows[0]["basis"]) == Fraction(largest) ** 2 + Fraction(smallest) ** 2


@pytest.mark.parametrize("quantity", ["1e15", "1e-19"])
async def test_a_quantity_that_sums_could_not_hold_is_refused(desk: Desk, quantity: str) -> None:
    with pytest.raises(ValueError, match="quantity"):
        await desk.order(BTC, BUY, Decimal(quantity), 1)


# Commits that fail


@contextmanager
def table_that_rejects(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TRIGGER refuse BEFORE INSERT ON trades BEGIN SELECT RAISE(ABORT, 'rejected'); END")
        other.commit()
        yield
        other.execute("DROP TRIGGER refuse")
        other.commit()


async def test_a_row_the_file_rejects_leaves_the_cache_as_the_file_is(desk: Desk) -> None:
    async with nothing_changes(desk):
        with table_that_rejects(desk.path):
            for _ in range(3):
                with pytest.raises((sqlite3.Error, LedgerError), match="rejected"):
                    await desk.order(BTC, SELL, 5)


async def test_a_full_disk_leaves_the_cache_as_the_file_is(desk: Desk) -> None:
    async with nothing_changes(desk):
        ((pages,),) = await desk.database.fetch("PRAGMA page_count")
        await desk.database.fetch(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(LedgerError, match="full") as caught:
            await desk.order(f"{'LONG' * 5_000}/USDT", BUY, 1)
        assert caught.value.exit_code == 74
        await desk.database.fetch("PRAGMA max_page_count = 1000000")


async def test_a_ledger_that_another_program_locks_leaves_the_cache_as_the_file_is(desk: Desk) -> None:
    async with nothing_changes(desk):
        await desk.database.fetch("PRAGMA busy_timeout = 20")
        with closing(sqlite3.connect(desk.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(LedgerError, match="lock") as caught:
                await desk.order(BTC, BUY, 1)
        assert caught.value.exit_code == 75


async def test_one_failing_order_does_not_take_others_with_it(desk: Desk) -> None:
    with closing(sqlite3.connect(desk.path)) as other:
        other.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON trades WHEN new.symbol = 'ETH/USDT'"
            " BEGIN SELECT RAISE(ABORT, 'rejected'); END"
        )
        other.commit()
    outcomes = await asyncio.gather(
        *(desk.order((BTC, ETH)[number % 2], BUY, 1) for number in range(10)), return_exceptions=True
    )
    assert [isinstance(outcome, dict) for outcome in outcomes] == [True, False] * 5
    assert [row["symbol"] for row in trades_of(desk.path)] == [BTC] * 5
    await assert_books_match(desk.executor, desk.path, [BTC, ETH])


# Cancellation


async def turns(count: int) -> None:
    """Lets the event loop go round ``count`` times."""
    running = asyncio.get_running_loop()
    for _ in range(count):
        turned = running.create_future()
        running.call_soon(turned.set_result, None)
        await turned


async def order_cancelled_after(desk: Desk, count: int, *more: int) -> bool:
    """Cancels an order after so many turns, and again after so many more; True if it was reported as done."""
    task = asyncio.ensure_future(desk.order(BTC, BUY, Decimal("0.1"), 50_000))
    for pause in (count, *more):
        await turns(pause)
        task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return False
    return True


@pytest.mark.parametrize("count", range(31))
async def test_an_order_cancelled_at_any_moment_leaves_the_cache_as_the_file_is(tmp_path: Path, count: int) -> None:
    async with opened_desk(tmp_path / "ledger.db", records_signals=True) as desk:
        await desk.order(BTC, BUY, 1, 50_000)
        done = await order_cancelled_after(desk, count)
        rows = trades_of(desk.path)
        assert len(rows) == 2 or (len(rows) == 1 and not done)
        await assert_books_match(desk.executor, desk.path, [BTC])
        await desk.order(BTC, SELL, Decimal("0.2"), 50_000)
        assert len(trades_of(desk.path)) == len(rows) + 1
        await assert_books_match(desk.executor, desk.path, [BTC])
        digest = desk.database.digest
    async with open_database(tmp_path / "ledger.db") as database:
        assert database.digest == digest


async def test_orders_that_wait_are_cancelled_without_a_trace(desk: Desk) -> None:
    tasks = [asyncio.ensure_future(desk.order(BTC, BUY, 1)) for _ in range(20)]
    await turns(2)
    for task in tasks[1::2]:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(outcome, dict) for outcome in outcomes] == [True, False] * 10
    assert len(trades_of(desk.path)) == 10
    await assert_books_match(desk.executor, desk.path, [BTC])


async def test_an_order_cancelled_twice_leaves_an_executor_that_works(desk: Desk) -> None:
    for count in range(12):
        await order_cancelled_after(desk, count, 1)
        await desk.order(BTC, BUY, 1)
        await assert_books_match(desk.executor, desk.path, [BTC])


# Any story at all

AMOUNTS = st.one_of(
    st.sampled_from([Decimal(text) for text in ("1", "0.5", "1.5", "0.3", "0.1", "7")]),
    st.decimals(min_value="0.00000001", max_value=100_000, places=8),
)
PRICES = st.one_of(
    st.decimals(min_value="0.01", max_value=200_000, places=2),
    st.decimals(min_value="0.00000001", max_value=10, places=8),
)
STORIES = st.lists(
    st.tuples(st.sampled_from([BTC, ETH, "SOL/USDT"]), st.sampled_from(OrderSide), AMOUNTS, PRICES),
    max_size=25,
)


@settings(max_examples=25)
@given(story=STORIES, records_signals=st.booleans())
def test_positions_are_what_the_rows_add_up_to(
    story: list[tuple[str, OrderSide, Decimal, Decimal]], records_signals: bool
) -> None:
    symbols = [BTC, ETH, "SOL/USDT"]

    async def play(path: Path) -> None:
        async with opened_desk(path, records_signals=records_signals) as desk:
            for symbol, side, quantity, price in story:
                await desk.order(symbol, side, quantity, price)
            await assert_books_match(desk.executor, path, symbols)
            told = [await desk.executor.get_position(symbol) for symbol in symbols]
            digest = desk.database.digest
        rows = trades_of(path)
        assert [(row["symbol"], row["side"], row["quantity"], row["price"]) for row in rows] == [
            (symbol, side.value, f"{quantity:f}", f"{price:f}") for symbol, side, quantity, price in story
        ]
        for symbol, holding in recomputed(rows).items():
            # What was realised plus what was paid is what the open part stands for in the books.
            assert sum(holding.pnls) + holding.paid == holding.basis
            (row,) = read(path, f"SELECT quantity, basis FROM positions WHERE symbol = '{symbol}'")  # noqa: S608
            assert (Fraction(row["quantity"]), Fraction(row["basis"])) == (holding.quantity, holding.basis)
        async with opened_desk(path, records_signals=records_signals) as desk:
            assert [await desk.executor.get_position(symbol) for symbol in symbols] == told
            assert desk.database.digest == digest

    with TemporaryDirectory() as folder:
        asyncio.run(play(Path(folder) / "ledger.db"))


# As part of the loop: an account with cash and fees, and a commit that is somebody else's


@dataclass(frozen=True, slots=True)
class LoopDesk:
    """An executor as the daemon builds it: for an account, inside a block that its caller commits."""

    executor: Executor
    account: Account
    accounts: AccountRepository
    database: Database
    path: Path

    async def commit(self) -> None:
        """Ends the block as the loop does: sums first, then all of it at once."""
        for position in self.account.positions.values():
            self.accounts.save_position(self.account.name, position)
        self.accounts.save(self.account)
        await self.database.commit()

    def books(self) -> tuple[Decimal, Decimal, dict[str, tuple[Decimal, Decimal]]]:
        held = {symbol: (position.quantity, position.basis) for symbol, position in self.account.positions.items()}
        return (
            self.account.cash,
            self.account.short_basis,
            {symbol: pair for symbol, pair in held.items() if pair[0]},
        )


@asynccontextmanager
async def opened_loop_desk(path: Path, fee_rate: str = "0.001", slippage_bps: str = "0") -> AsyncIterator[LoopDesk]:
    async with open_database(path) as database:
        accounts = AccountRepository(database)
        wanted = Account("sma", "USDT", Decimal(1_000), Decimal(1_000))
        account = (await accounts.open([wanted]))["sma"]
        executor = MockExecutor(
            TradeRepository(database),
            SignalRepository(database),
            account=account,
            terms=Terms(Decimal(fee_rate), Decimal(slippage_bps)),
            markets={BTC: Market(BTC, Decimal("0.01"))},
            clock=VirtualClock(NOW_MS),
        )
        with localcontext(MONEY):
            yield LoopDesk(executor, account, accounts, database, path)


@pytest.fixture
async def loop_desk(tmp_path: Path) -> AsyncIterator[LoopDesk]:
    async with opened_loop_desk(tmp_path / "ledger.db") as desk:
        yield desk


async def test_loop_rows_appear_with_the_commit_and_not_before(loop_desk: LoopDesk) -> None:
    before = contents(loop_desk.path)
    for quantity in (1, 2):
        await loop_desk.executor.execute_order(BTC, BUY, quantity, MARKET, 100)
    assert (await loop_desk.executor.get_position(BTC))["net_quantity"] == 3.0
    assert contents(loop_desk.path) == before
    await loop_desk.commit()
    after = contents(loop_desk.path)
    assert [len(after[table]) for table in ("signals", "orders", "trades", "positions")] == [2, 2, 2, 1]
    assert {row["account"] for row in after["trades"]} == {"sma"}


async def test_loop_cash_fees_and_profit(loop_desk: LoopDesk) -> None:
    bought = await loop_desk.executor.execute_order(BTC, BUY, 2, MARKET, 100)
    assert bought["fee"] == {"currency": "USDT", "cost": 0.2, "rate": 0.001}
    assert loop_desk.account.cash == Decimal("799.8")
    sold = await loop_desk.executor.execute_order(BTC, SELL, 1, MARKET, 150)
    assert (sold["info"]["pnl"], sold["fee"]["cost"]) == (50.0, 0.15)
    assert loop_desk.account.cash == Decimal("949.65")
    turned = await loop_desk.executor.execute_order(BTC, SELL, 3, MARKET, 90)
    assert turned["info"]["pnl"] == -10.0
    assert loop_desk.account.cash == Decimal("1219.38")
    assert loop_desk.account.short_basis == 180
    await loop_desk.commit()
    rows = trades_of(loop_desk.path)
    assert [Decimal(row["fee"]) for row in rows] == [Decimal("0.2"), Decimal("0.15"), Decimal("0.27")]
    moved = sum((1 if row["side"] == "sell" else -1) * Decimal(row["cost"]) - Decimal(row["fee"]) for row in rows)
    (stored,) = read(loop_desk.path, "SELECT * FROM accounts")
    assert Decimal(stored["cash"]) == Decimal(stored["capital"]) + moved == loop_desk.account.cash
    assert recomputed(rows)[BTC].quantity == -2


REFUSALS = [
    ("insufficient_cash", [], (BUY, "10", "100")),  # the fee is what is missing
    ("insufficient_cash", [(BUY, "5", "100")], (BUY, "5", "100")),
    ("insufficient_margin", [], (SELL, "10", "100")),
    ("insufficient_margin", [(BUY, "1", "100")], (SELL, "20", "100")),
    ("insufficient_margin", [(SELL, "5", "100")], (SELL, "5", "100")),
    ("insufficient_cash", [(SELL, "5", "100")], (BUY, "20", "100")),  # closes, and turns round to a long
]


@pytest.mark.parametrize(("reason", "story", "asked"), REFUSALS)
async def test_loop_a_refusal_leaves_nothing(
    loop_desk: LoopDesk,
    reason: str,
    story: list[tuple[OrderSide, str, str]],
    asked: tuple[OrderSide, str, str],
) -> None:
    for side, quantity, price in story:
        await loop_desk.executor.execute_order(BTC, side, Decimal(quantity), MARKET, Decimal(price))
    await loop_desk.commit()
    books, file, digest = loop_desk.books(), contents(loop_desk.path), loop_desk.database.digest
    position = await loop_desk.executor.get_position(BTC)
    side, quantity, price = asked
    with pytest.raises(OrderRefused) as caught:
        await loop_desk.executor.execute_order(BTC, side, Decimal(quantity), MARKET, Decimal(price))
    assert caught.value.reason == reason
    assert loop_desk.books() == books
    assert await loop_desk.executor.get_position(BTC) == position
    await loop_desk.database.commit()
    assert contents(loop_desk.path) == file
    assert loop_desk.database.digest == digest
    await loop_desk.executor.execute_order(BTC, BUY, Decimal("0.1"), MARKET, 100)
    await loop_desk.commit()
    assert len(trades_of(loop_desk.path)) == len(story) + 1


async def test_loop_bad_input_leaves_nothing(loop_desk: LoopDesk) -> None:
    await loop_desk.executor.execute_order(BTC, BUY, 1, MARKET, 100)
    books = loop_desk.books()
    bad: list[tuple[Any, Any, Any]] = [
        ("BTC", 1, 100),
        (BTC, 0, 100),
        (BTC, NAN, 100),
        (BTC, 1, 0),
        (BTC, 1, NAN),
    ]
    for symbol, quantity, price in bad:
        with pytest.raises(ValueError, match=r"symbol|quantity|price"):
            await loop_desk.executor.execute_order(symbol, BUY, quantity, MARKET, price)
    assert loop_desk.books() == books
    await loop_desk.commit()
    assert len(trades_of(loop_desk.path)) == 1


@pytest.mark.parametrize("side", OrderSide)
async def test_loop_the_last_cent_can_be_spent(tmp_path: Path, side: OrderSide) -> None:
    async with opened_loop_desk(tmp_path / "ledger.db", fee_rate="0") as desk:
        with pytest.raises(OrderRefused):
            await desk.executor.execute_order(BTC, side, Decimal("10.00000001"), MARKET, 100)
        await desk.executor.execute_order(BTC, side, 10, MARKET, 100)
        assert desk.account.cash == (0 if side is BUY else 2_000)


async def test_loop_a_loss_can_always_be_closed(loop_desk: LoopDesk) -> None:
    await loop_desk.executor.execute_order(BTC, SELL, 4, MARKET, 100)
    await loop_desk.executor.execute_order(BTC, BUY, 1, MARKET, 1_000)
    await loop_desk.executor.execute_order(BTC, BUY, 3, MARKET, 1_000)
    assert loop_desk.account.cash == 1_000 + 400 - 4_000 - Decimal("4.4")
    assert (await loop_desk.executor.get_position(BTC))["is_flat"]


async def test_loop_a_signal_fills_at_its_quote_with_slippage(tmp_path: Path) -> None:
    async with opened_loop_desk(tmp_path / "ledger.db", slippage_bps="5") as desk:
        signal = Signal(1, 7, NOW_MS - 5_000, "sma", BTC, 1.0, 99.99, 100.01)
        order = await desk.executor.execute_order(BTC, BUY, 1, signal=signal)
        assert order["price"] == 100.07, "100.01 and five basis points, up to the next cent"
        assert order["timestamp"] == NOW_MS - 5_000, "the time of the tick, not of the machine"
        desk.database.cursor.decisions += 1  # as the loop does, who numbers its signals
        await desk.commit()
        (row,) = read(desk.path, "SELECT * FROM signals")
        assert row == {
            "id": 1, "poll": 7, "timestamp": NOW_MS - 5_000, "account": "sma", "symbol": BTC, "target": 1.0,
            "bid": 99.99, "ask": 100.01, "verdict": "filled", "reason": None,
        }  # fmt: skip
        assert [row["price"] for row in trades_of(desk.path)] == ["100.07"]


async def test_loop_fees_are_the_markets_where_none_is_set(tmp_path: Path) -> None:
    """Taker for market orders, maker for limit orders; zero is believed, and silence costs 0.001."""
    said = {"taker": Decimal("0.0026"), "maker": Decimal("0.0016")}
    markets = {
        BTC: Market(BTC, Decimal("0.01"), **said),
        "FREE/USDT": Market("FREE/USDT", Decimal("0.01"), taker=Decimal(0), maker=Decimal(0)),
        "SILENT/USDT": Market("SILENT/USDT", Decimal("0.01")),
        "HALF/USDT": Market("HALF/USDT", Decimal("0.01"), taker=Decimal("0.0005")),
    }
    expected = {
        (BTC, MARKET): 0.0026,
        (BTC, LIMIT): 0.0016,
        ("FREE/USDT", MARKET): 0.0,
        ("FREE/USDT", LIMIT): 0.0,
        ("SILENT/USDT", MARKET): 0.001,
        ("SILENT/USDT", LIMIT): 0.001,
        ("HALF/USDT", MARKET): 0.0005,
        ("HALF/USDT", LIMIT): 0.001,
        ("UNKNOWN/USDT", MARKET): 0.001,
    }
    async with open_database(tmp_path / "ledger.db") as database:
        trades, clock = TradeRepository(database), VirtualClock(NOW_MS)
        account = Account("sma", "USDT", Decimal(10_000), Decimal(10_000))
        for fee_rate in (None, Decimal(0), Decimal("0.01")):
            terms = Terms(fee_rate)
            executor = MockExecutor(trades, account=account, terms=terms, markets=markets, clock=clock)
            for (symbol, kind), rate in expected.items():
                order = await executor.execute_order(symbol, BUY, 1, kind, 100)
                charged = rate if fee_rate is None else float(fee_rate)
                assert order["fee"] == {"currency": "USDT", "cost": pytest.approx(100 * charged), "rate": charged}


async def test_alone_it_charges_no_fee_whatever_the_market_says(tmp_path: Path) -> None:
    markets = {BTC: Market(BTC, Decimal("0.01"), taker=Decimal("0.0026"))}
    async with open_database(tmp_path / "ledger.db") as database:
        executor = MockExecutor(TradeRepository(database), markets=markets, clock=VirtualClock(NOW_MS))
        order = await executor.execute_order(BTC, BUY, 1, MARKET, 100)
        assert order["fee"] == {"currency": "USDT", "cost": 0.0, "rate": 0.0}


async def test_loop_a_block_that_fails_is_gone_and_the_account_can_be_read_again(loop_desk: LoopDesk) -> None:
    await loop_desk.executor.execute_order(BTC, SELL, 1, MARKET, 100)
    await loop_desk.commit()
    books, file = loop_desk.books(), contents(loop_desk.path)
    await loop_desk.executor.execute_order(BTC, BUY, 3, MARKET, 100)
    with table_that_rejects(loop_desk.path), pytest.raises((sqlite3.Error, LedgerError), match="rejected"):
        await loop_desk.commit()
    assert contents(loop_desk.path) == file
    loop_desk.account.restore((await loop_desk.accounts.load())["sma"])
    assert loop_desk.books() == books
    await loop_desk.executor.execute_order(BTC, BUY, 1, MARKET, 100)
    await loop_desk.commit()
    assert len(trades_of(loop_desk.path)) == 2


# What does not hold yet


async def test_loop_an_order_after_a_reset_knows_the_position(loop_desk: LoopDesk) -> None:
    await loop_desk.executor.execute_order(BTC, BUY, 1, MARKET, 100)
    await loop_desk.commit()
    loop_desk.executor.reset_position_cache()
    await loop_desk.executor.execute_order(BTC, BUY, 1, MARKET, 100)
    assert (await loop_desk.executor.get_position(BTC))["net_quantity"] == 2.0


async def test_two_executors_of_one_ledger_agree(desk: Desk) -> None:
    second = desk.another()
    await second.get_position(BTC)
    await desk.order(BTC, BUY, 1)
    await second.execute_order(BTC, BUY, 1)
    (row,) = read(desk.path, "SELECT quantity FROM positions")
    assert Decimal(row["quantity"]) == 2


async def test_a_ledger_with_an_order_for_a_signal_opens_again(tmp_path: Path) -> None:
    async with opened_desk(tmp_path / "ledger.db", records_signals=True) as desk:
        signal = Signal(1, 1, NOW_MS, "manual", BTC, 1.0, 99.0, 100.0)
        await desk.executor.execute_order(BTC, BUY, 1, signal=signal)
    async with open_database(tmp_path / "ledger.db") as database:
        assert database.cursor.trades == 1
