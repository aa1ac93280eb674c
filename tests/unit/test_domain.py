"""The arithmetic of a fill, the crossing between floats and decimals, and windows of prices."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.domain import (
    MONEY,
    Account,
    Bars,
    Block,
    Market,
    OrderSide,
    OrderType,
    Position,
    iso8601,
    plain,
    to_decimal,
)

BUY, SELL = OrderSide.BUY, OrderSide.SELL
examples = settings(max_examples=200)


@pytest.fixture(autouse=True)
def money() -> Iterator[None]:
    """The context that the books are kept in."""
    with localcontext(MONEY):
        yield


def test_sides_and_types_are_their_text() -> None:
    assert (str(BUY), SELL.value, f"{OrderType.LIMIT}") == ("buy", "sell", "limit")
    assert BUY == "buy"
    assert OrderSide("sell") is SELL


# Positions

FILLS: dict[str, list[tuple[str, str, str, str, str, str]]] = {
    # side, quantity, price -> realised profit, quantity and basis afterwards
    "open long": [("buy", "2", "100", "0", "2", "200")],
    "add at another price": [("buy", "1", "100", "0", "1", "100"), ("buy", "3", "120", "0", "4", "460")],
    "reduce at average cost": [
        ("buy", "1", "100", "0", "1", "100"),
        ("buy", "1", "200", "0", "2", "300"),
        ("sell", "0.5", "250", "50", "1.5", "225"),
        ("sell", "0.5", "100", "-25", "1", "150"),
    ],
    "close": [("buy", "2", "100", "0", "2", "200"), ("sell", "2", "90.5", "-19", "0", "0")],
    "cross to short": [("buy", "2", "100", "0", "2", "200"), ("sell", "5", "110", "20", "-3", "-330")],
    "open short": [("sell", "2", "100", "0", "-2", "-200")],
    "add to a short": [("sell", "1", "100", "0", "-1", "-100"), ("sell", "1", "80", "0", "-2", "-180")],
    "reduce a short": [
        ("sell", "4", "100", "0", "-4", "-400"),
        ("buy", "1", "90", "10", "-3", "-300"),
        ("buy", "1", "130", "-30", "-2", "-200"),
    ],
    "cover": [("sell", "2", "100", "0", "-2", "-200"), ("buy", "2", "99", "2", "0", "0")],
    "cross to long": [("sell", "2", "100", "0", "-2", "-200"), ("buy", "3", "90", "20", "1", "90")],
    "there and back": [
        ("buy", "1", "10", "0", "1", "10"),
        ("sell", "2", "11", "1", "-1", "-11"),
        ("buy", "2", "12", "-1", "1", "12"),
        ("sell", "1", "12", "0", "0", "0"),
        ("buy", "1", "20", "0", "1", "20"),
    ],
    "a third is rounded once and made up for at the close": [
        ("buy", "3", "0.333333333333", "0", "3", "0.999999999999"),
        ("buy", "4", "1", "0", "7", "4.999999999999"),
        ("sell", "1", "1", "0.285714285714", "6", "4.285714285713"),
        ("sell", "6", "1", "1.714285714287", "0", "0"),
    ],
    "smallest amounts": [
        ("buy", "0.00000001", "50000.12", "0", "0.00000001", "0.0005000012"),
        ("sell", "0.00000001", "50000.13", "0.0000000001", "0", "0"),
    ],
}


@pytest.mark.parametrize("story", FILLS.values(), ids=list(FILLS))
def test_apply_fill(story: list[tuple[str, str, str, str, str, str]]) -> None:
    position = Position("BTC/USDT")
    for side, *numbers in story:
        quantity, price, pnl, held, basis = map(Decimal, numbers)
        assert position.apply_fill(OrderSide(side), quantity, price) == pnl
        assert (position.quantity, position.basis) == (held, basis)
    for side, total in ((BUY, position.total_buys), (SELL, position.total_sells)):
        assert total == sum(Decimal(fill[1]) for fill in story if fill[0] == side)


amounts = st.one_of(
    st.sampled_from([Decimal(1), Decimal("0.5"), Decimal("1.5")]),
    st.decimals(min_value="0.00000001", max_value=10**9, places=8),
)
prices = st.decimals(min_value="0.01", max_value=10**9, places=8)
fills = st.lists(st.tuples(st.sampled_from(OrderSide), amounts, prices), max_size=30)


@examples
@given(story=fills)
def test_no_money_is_lost_or_made_by_rounding(story: list[tuple[OrderSide, Decimal, Decimal]]) -> None:
    with localcontext(MONEY):
        position, paid, realised = Position("X/Y"), Decimal(0), Decimal(0)
        for side, quantity, price in story:
            realised += position.apply_fill(side, quantity, price)
            paid += quantity * price if side is BUY else -(quantity * price)
            assert realised + paid == position.basis
            assert position.quantity == position.total_buys - position.total_sells
            # Never the wrong way round: a long cost something, a short brought something, nothing is nothing.
            assert (position.quantity > 0) >= (position.basis > 0)
            assert (position.quantity < 0) >= (position.basis < 0)


@examples
@given(story=fills)
def test_a_short_is_a_long_in_the_mirror(story: list[tuple[OrderSide, Decimal, Decimal]]) -> None:
    with localcontext(MONEY):
        one, other = Position("X/Y"), Position("X/Y")
        for side, quantity, price in story:
            pnl = one.apply_fill(side, quantity, price)
            assert other.apply_fill(SELL if side is BUY else BUY, quantity, price) == -pnl
            assert (one.quantity, one.basis) == (-other.quantity, -other.basis)
        assert (one.total_buys, one.total_sells) == (other.total_sells, other.total_buys)


# Accounts


def account(**quantities: str) -> Account:
    account = Account("main", "USDT", Decimal(1_000), Decimal("100.25"))
    for symbol, quantity in quantities.items():
        account.position(symbol).quantity = Decimal(quantity)
    return account


def test_equity_is_cash_and_all_positions_at_the_given_prices() -> None:
    assert account().equity({}) == 100.25
    assert account(A="2", B="-0.5").equity({"A": 10.0, "B": 40.0, "C": 7.0}) == 100.25 + 20.0 - 20.0


def test_equity_needs_no_price_of_what_is_not_held() -> None:
    assert account(A="0", B="0E-8").equity({}) == 100.25


def test_equity_does_not_depend_on_the_order_of_symbols() -> None:
    marks = {"A": 1e16, "B": 1.0, "C": -1e16}
    names = {"A": "1", "B": "1", "C": "1"}
    assert account(**names).equity(marks) == account(**dict(reversed(names.items()))).equity(marks) == 101.25


def test_account_position_is_made_once() -> None:
    held = account()
    assert held.position("A") is held.position("A")
    assert held.position("A") == Position("A")


def test_account_restore_takes_over_in_place() -> None:
    held, stored = account(A="1"), account(B="2")
    stored.cash, stored.short_basis = Decimal(7), Decimal(3)
    held.restore(stored)
    assert (held.cash, held.short_basis) == (Decimal(7), Decimal(3))
    assert list(held.positions) == ["B"]


# Decimals and their text

finite = st.floats(allow_nan=False, allow_infinity=False)


@examples
@given(value=finite)
def test_to_decimal_reads_back_as_the_same_float(value: float) -> None:
    assert math.copysign(1, float(to_decimal(value))) == math.copysign(1, value)
    assert float(to_decimal(value)) == value
    assert to_decimal(np.float64(value)) == to_decimal(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (50000.12, "50000.12"),
        (0.1, "0.1"),
        (0.1 + 0.2, "0.30000000000000004"),
        (1e-8, "0.00000001"),
        (7, "7"),
        (1e22, "1e22"),
    ],
)
def test_to_decimal_has_no_binary_tail(value: float, expected: str) -> None:
    assert to_decimal(value) == Decimal(expected)


@examples
@given(units=st.integers(0, 10**14), decimals=st.integers(0, 8))
def test_a_price_with_a_few_decimals_is_that_decimal(units: int, decimals: int) -> None:
    exact = Decimal(units).scaleb(-decimals)
    assert to_decimal(float(exact)) == exact


@examples
@given(value=st.decimals(allow_nan=False, allow_infinity=False).filter(lambda value: abs(value.adjusted()) < 400))
def test_plain_has_no_exponent_and_reads_back(value: Decimal) -> None:
    text = plain(value)
    assert not set(text) - set("-0123456789.")
    assert Decimal(text) == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1E-8", "0.00000001"),
        ("5E+4", "50000"),
        ("0E-10", "0.0000000000"),
        ("1.50", "1.50"),
        ("-1E-7", "-0.0000001"),
    ],
)
def test_plain(value: str, expected: str) -> None:
    assert plain(Decimal(value)) == expected


@examples
@given(timestamp=st.integers(-62_135_596_800_000, 253_402_300_799_999))
def test_iso8601_is_what_datetime_says(timestamp: int) -> None:
    text = iso8601(timestamp)
    assert datetime.fromisoformat(text) == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=timestamp)
    assert len(text) == len("2025-01-01T00:00:00.000Z")
    assert text.endswith("Z")


def test_iso8601() -> None:
    assert iso8601(0) == "1970-01-01T00:00:00.000Z"
    assert iso8601(1_735_689_599_999) == "2024-12-31T23:59:59.999Z"
    assert iso8601(1_709_164_801_007) == "2024-02-29T00:00:01.007Z"


def test_money_rounds_halves_to_even() -> None:
    assert MONEY.rounding == ROUND_HALF_EVEN


# Bars


def bars(count: int = 6, symbols: int | None = None) -> Bars:
    shape = (count,) if symbols is None else (symbols, count)
    base = np.arange(math.prod(shape), dtype=np.float64).reshape(shape)
    return Bars.from_arrays(np.arange(count) * 60_000, base, base + 2, base - 1, base + 1, base * 10)


def test_from_arrays_takes_anything_array_like() -> None:
    made = Bars.from_arrays([0, 60_000], (1, 2), [3.5, 4.5], np.array([1, 2], np.int32), range(2))
    assert made.timestamp.dtype == np.int64
    for column in (made.open, made.high, made.low, made.close, made.volume):
        assert column.dtype == np.float64
        assert column.shape == (2,)
    assert made.volume.tolist() == [0.0, 0.0]
    assert len(made) == 2


def test_from_arrays_of_nothing() -> None:
    assert len(Bars.from_arrays([], [], [], [], [])) == 0


def shorter(values: list[float]) -> list[float]:
    return values[:-1]


@pytest.mark.parametrize("column", range(6))
@pytest.mark.parametrize(
    "change", [shorter, lambda values: [*values, 9e9], lambda values: []], ids=["short", "long", "empty"]
)
def test_from_arrays_refuses_columns_of_different_lengths(
    column: int, change: Callable[[list[float]], list[float]]
) -> None:
    columns = [[0.0, 1.0, 2.0] for _ in range(6)]
    columns[column] = change(columns[column])
    with pytest.raises(ValueError, match="one length"):
        Bars.from_arrays(*columns)


@pytest.mark.parametrize("times", [[0, 0, 1], [0, 2, 1], [3, 2, 1]])
def test_from_arrays_refuses_time_that_does_not_increase(times: list[int]) -> None:
    with pytest.raises(ValueError, match="increasing"):
        Bars.from_arrays(times, [1] * 3, [1] * 3, [1] * 3, [1] * 3)


@pytest.mark.parametrize("symbols", [None, 3])
@pytest.mark.parametrize(
    "rows",
    [
        slice(None),
        slice(2, 4),
        slice(-2, None),
        slice(None, -1),
        slice(4, 99),
        slice(3, 3),
        slice(None, None, 2),
    ],
    ids=str,
)
def test_a_slice_of_time_is_a_slice_of_every_column(symbols: int | None, rows: slice) -> None:
    whole = bars(symbols=symbols)
    part = whole[rows]
    assert len(part) == len(range(6)[rows])
    for name in ("timestamp", "open", "high", "low", "close", "volume"):
        sliced, column = getattr(part, name), getattr(whole, name)
        np.testing.assert_array_equal(sliced, column[..., rows])
        assert not sliced.size or np.shares_memory(sliced, column), "a view, not a copy"


def test_a_tick_is_a_bar_of_four_equal_prices() -> None:
    price = np.array([1.0, 2.0])
    made = Bars.from_ticks(np.array([1, 2]), price)
    assert made.open is made.high is made.low is made.close is price
    assert made.volume.tolist() == [0.0, 0.0]


# Blocks


def block(start: int, count: int, warmup: int = 0) -> Block:
    last = np.arange(start, start + 2 * count, dtype=np.float64).reshape(2, count)
    times = np.arange(start, start + count) * 1_000
    return Block(("A/U", "B/U"), times, last - 0.5, last + 0.5, last, warmup)


def test_joined_is_one_block_after_the_other() -> None:
    parts = [block(0, 3, warmup=2), block(3, 1), block(4, 2)]
    whole = Block.joined(parts)
    assert whole.symbols == parts[0].symbols
    assert whole.timestamp.tolist() == [0, 1_000, 2_000, 3_000, 4_000, 5_000]
    for name in ("bid", "ask", "last"):
        np.testing.assert_array_equal(
            getattr(whole, name), np.concatenate([getattr(part, name) for part in parts], axis=1)
        )
    assert (len(whole), whole.warmup, whole.polls) == (6, 2, 4)
    assert whole.ticks == sum(part.ticks for part in parts) == 12


def test_history_before_history_is_all_history() -> None:
    """A feed's own history before a part of a tape that begins with some."""
    joined = Block.joined([block(0, 3, warmup=3), block(3, 4, warmup=2), block(7, 2)])
    assert (len(joined), joined.warmup, joined.polls) == (9, 5, 4)


def test_joined_of_one_is_that_one() -> None:
    only = block(0, 2)
    assert Block.joined([only]) is only


def test_ticks_are_the_prices_that_are_there() -> None:
    gappy = block(0, 4, warmup=1)
    for prices in (gappy.bid, gappy.ask, gappy.last):
        prices[0, 1:3] = np.nan
    assert (len(gappy), gappy.polls, gappy.ticks) == (4, 3, 6)


# Markets


@pytest.mark.parametrize(
    ("symbol", "base", "quote"),
    [
        ("BTC/USDT", "BTC", "USDT"),
        ("ETH/BTC", "ETH", "BTC"),
        ("BTC/USDT:USDT", "BTC", "USDT"),
        ("BTC/USD:BTC-250627", "BTC", "USD"),
    ],
)
def test_a_symbol_names_its_base_and_its_quote(symbol: str, base: str, quote: str) -> None:
    market = Market(symbol, Decimal("0.01"))
    assert (market.base, market.quote) == (base, quote)
