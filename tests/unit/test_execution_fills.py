"""At what price a paper order fills."""

from __future__ import annotations

from decimal import Decimal, localcontext

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.domain import MONEY, OrderSide
from bot.execution.standard import simulated_price
from bot.fills import touch_price

BUY, SELL = OrderSide.BUY, OrderSide.SELL
CENT = Decimal("0.01")

TOUCH = [
    # side, (bid, ask), slippage in basis points, step, fills at
    (BUY, (99.99, 100.01), "0", "0.01", "100.01"),
    (SELL, (99.99, 100.01), "0", "0.01", "99.99"),
    (BUY, (99.995, 100.005), "0", "0.01", "100.005"),  # a quote is taken as it is, on the grid or off it
    (BUY, (99.99, 100.01), "5", "0.01", "100.07"),  # 100.060005
    (SELL, (99.99, 100.01), "5", "0.01", "99.94"),  # 99.940005
    (BUY, (99.0, 100.0), "10", "0.01", "100.10"),  # exactly on a step: not one further
    (SELL, (100.0, 101.0), "10", "0.01", "99.90"),
    (BUY, (99.0, 100.0), "0.5", "0.01", "100.01"),  # 100.005
    (SELL, (100.0, 101.0), "0.5", "0.01", "99.99"),  # 99.995
    (BUY, (99.0, 100.0), "1", "5", "105"),
    (SELL, (100.0, 101.0), "1", "5", "95"),
    (SELL, (0.01, 0.02), "1", "0.01", "0.01"),  # never below one step
    (SELL, (100.0, 101.0), "20000", "0.01", "0.01"),
    (BUY, (3.0, 4.0), "1", "5", "5"),
    (SELL, (3.0, 4.0), "1", "5", "3"),  # nor above the quote, where that is off the grid
    (BUY, (100.0, 100.0), "1", "0.25", "100.25"),
    (SELL, (100.0, 100.0), "1", "0.25", "99.75"),
    (BUY, (67_123.4, 67_123.4), "1", "1000", "68000"),
    (SELL, (67_123.4, 67_123.4), "1", "1000", "67000"),
    (SELL, (2.5e-07, 2.6e-07), "100", "0.00000001", "0.00000024"),
]


@pytest.mark.parametrize(("side", "quote", "slippage_bps", "step", "expected"), TOUCH)
def test_touch_price(side: OrderSide, quote: tuple[float, float], slippage_bps: str, step: str, expected: str) -> None:
    assert touch_price(side, *quote, Decimal(slippage_bps), Decimal(step)) == Decimal(expected)


@settings(max_examples=200)
@given(
    side=st.sampled_from(OrderSide),
    cents=st.integers(1, 10**9),
    spread=st.integers(0, 1_000),
    slippage_bps=st.decimals(min_value="0.01", max_value=9_999, places=2),
)
def test_slippage_is_against_the_order_and_less_than_a_step_too_much(
    side: OrderSide, cents: int, spread: int, slippage_bps: Decimal
) -> None:
    bid, ask = cents / 100, (cents + spread) / 100
    price = touch_price(side, bid, ask, slippage_bps, CENT)
    quote = Decimal(repr(ask if side is BUY else bid))
    sign = 1 if side is BUY else -1
    exact = quote * (1 + sign * slippage_bps / 10_000)
    assert price % CENT == 0
    assert price >= CENT
    if side is BUY:
        assert exact <= price < exact + CENT
    else:
        assert max(exact - CENT, Decimal(0)) < price <= max(exact, CENT)


@settings(max_examples=200)
@given(
    side=st.sampled_from(OrderSide),
    quote=st.floats(1e-6, 1e6),
    slippage_bps=st.decimals(min_value="0.01", max_value=1_000, places=2),
    step=st.sampled_from(["1e-8", "0.01", "0.03", "0.25", "1", "5", "1000", "1e6"]).map(Decimal),
)
def test_however_coarse_the_steps_a_fill_is_never_better_than_slippage_says(
    side: OrderSide, quote: float, slippage_bps: Decimal, step: Decimal
) -> None:
    with localcontext(MONEY):
        price = touch_price(side, quote, quote, slippage_bps, step)
        exact = Decimal(repr(quote)) * (1 + (1 if side is BUY else -1) * slippage_bps / 10_000)
        assert price > 0
        if side is BUY:
            assert price % step == 0
            assert exact <= price < exact + step
        elif exact >= step:
            assert price % step == 0
            assert exact - step < price <= exact
        else:
            assert price == min(step, Decimal(repr(quote)))


@pytest.mark.parametrize(
    ("symbol", "expected"),
    [
        ("BTC/USDT", 50_000),
        ("btc/usdt", 50_000),
        ("BTC/USDT:USDT", 50_000),
        ("ETH/BTC", 3_000),
        ("WBTC/USDT", 100),
        ("SOL/ETH", 100),
    ],
)
def test_simulated_price_goes_by_the_base_currency(symbol: str, expected: int) -> None:
    assert simulated_price(symbol) == expected
