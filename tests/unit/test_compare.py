"""Which fill is which, and what each difference between two accounts was worth: all of them add up to the whole."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.backtest.compare.effects import effects_of
from bot.backtest.compare.matching import matched
from bot.backtest.trades import Trade, Trades
from bot.domain import OrderSide

SYMBOLS = ("BTC/USDT", "ETH/USDT")
BUY, SELL = OrderSide.BUY, OrderSide.SELL


def fill(time: int, price: float, quantity: float = 1.0, side: OrderSide = BUY, symbol: int = 0) -> Trade:
    return Trade(time, SYMBOLS[symbol], side, price, quantity, 0.001 * price * quantity, 0.0)


def trades(fills: Sequence[Trade]) -> Trades:
    return Trades(
        SYMBOLS,
        np.array([each.timestamp for each in fills], np.int64),
        np.array([SYMBOLS.index(each.symbol) for each in fills], np.int64),
        np.array([each.side is BUY for each in fills], np.bool_),
        *(np.array([each[column] for each in fills], np.float64) for column in (3, 4, 5, 6)),
    )


def pairs(live: Sequence[int], backtest: Sequence[int], tolerance_ms: int) -> list[tuple[int, int]]:
    """The times of buys that are each other's."""
    one, other = trades([fill(time, 100.0) for time in live]), trades([fill(time, 100.0) for time in backtest])
    found = matched(one, other, tolerance_ms)
    return [(live[row], backtest[column]) for row, column in zip(found.live, found.backtest, strict=True)]


class TestMatching:
    def test_the_nearest_within_the_tolerance(self) -> None:
        assert pairs([100, 200], [103, 205], 5) == [(100, 103), (200, 205)]
        assert pairs([100, 200], [103, 206], 5) == [(100, 103)]
        assert pairs([100], [90, 99, 105], 50) == [(100, 99)]
        assert pairs([90, 99, 105], [100], 50) == [(99, 100)]

    def test_the_same_moment_goes_before_what_is_near(self) -> None:
        assert pairs([98, 100], [100, 101], 5) == [(98, 101), (100, 100)]

    def test_no_tolerance(self) -> None:
        assert pairs([100, 200], [100, 201], 0) == [(100, 100)]

    def test_nothing(self) -> None:
        assert pairs([], [1, 2], 5) == pairs([1, 2], [], 5) == pairs([], [], 5) == []

    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, 2**32), st.integers(0, 40))
    def test_each_fill_once_and_with_its_like(self, seed: int, tolerance_ms: int) -> None:
        rng = np.random.default_rng(seed)

        def side() -> Trades:
            times = np.sort(rng.choice(400, rng.integers(0, 60), replace=False)).tolist()
            sides = [BUY if buy else SELL for buy in rng.random(len(times)) < 0.5]
            symbols = rng.integers(0, 2, len(times)).tolist()
            return trades(
                [
                    fill(*each)
                    for each in zip(times, np.ones(len(times)), np.ones(len(times)), sides, symbols, strict=True)
                ]
            )

        live, backtest = side(), side()
        found = matched(live, backtest, tolerance_ms)
        assert sorted([*found.live, *found.only_live]) == list(range(len(live)))
        assert sorted([*found.backtest, *found.only_backtest]) == list(range(len(backtest)))
        mine, other = found.live, found.backtest
        assert (live.symbol[mine] == backtest.symbol[other]).all()
        assert (live.buy[mine] == backtest.buy[other]).all()
        assert (np.abs(live.timestamp[mine] - backtest.timestamp[other]) <= tolerance_ms).all()
        there = {tuple(each[:3]) for each in backtest} & {tuple(each[:3]) for each in live}
        same = {tuple(live[row][:3]) for row in mine[live.timestamp[mine] == backtest.timestamp[other]]}
        assert there == same


def profit(fills: Sequence[Trade | None], prices: dict[str, float]) -> float:
    """Of an account that did nothing else: cash, and what it holds at these prices."""
    total = 0.0
    for each in filter(None, fills):
        sign = 1 if each.side is BUY else -1
        total += sign * each.quantity * (prices[each.symbol] - each.price) - each.fee
    return total


class TestEffects:
    def test_a_worse_price_and_a_higher_fee_cost_at_once(self) -> None:
        bought = fill(1, 101.0, 2.0), fill(1, 100.0, 2.0)
        sold = fill(2, 110.0, 2.0, SELL)._replace(fee=1.0), fill(2, 110.0, 2.0, SELL)._replace(fee=0.4)
        effects = effects_of([bought, sold], {"BTC/USDT": 500.0})
        assert effects.gaps == pytest.approx([-2.0 - 0.002, -0.6])
        assert effects.left == 0

    def test_what_was_missed_belongs_to_the_fill_that_was_missed_first(self) -> None:
        """Bought at 100 and sold at 110 by the backtest alone: that the live account did not, cost 10 at the first
        gap; each saved its fee."""
        effects = effects_of([(None, fill(1, 100.0)), (None, fill(9, 110.0, 1.0, SELL))], {"BTC/USDT": 0.0})
        assert effects.gaps == pytest.approx([-10 + 0.1, 0.11])
        assert effects.left == 0

    def test_late_and_therefore_dearer(self) -> None:
        """Too late to be matched: what it cost is the fault of the one that was missed."""
        effects = effects_of([(None, fill(1, 100.0)), (fill(9, 103.0), None)], {"BTC/USDT": 0.0})
        assert effects.gaps == pytest.approx([-3 + 0.1, -0.103])

    def test_what_is_left_is_valued_at_the_end(self) -> None:
        effects = effects_of([(fill(1, 100.0, 3.0), fill(1, 100.0, 1.0))], {"BTC/USDT": 90.0})
        assert effects.gaps == pytest.approx([-0.2])
        assert effects.left == pytest.approx(-20)

    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, 2**32))
    def test_they_add_up(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        gaps: list[tuple[Trade | None, Trade | None]] = []
        for time in range(rng.integers(0, 40)):
            side, symbol, kind = (BUY, SELL)[rng.integers(2)], int(rng.integers(2)), rng.integers(4)
            live, backtest = (
                fill(time, float(rng.integers(50, 150)), float(rng.integers(1, 9)) / 7, side, symbol) for _ in "ab"
            )
            gaps.append([(live, backtest), (live, None), (None, backtest), (live, backtest)][kind])
        prices = {"BTC/USDT": 120.0, "ETH/USDT": 77.0}
        effects = effects_of(gaps, prices)
        whole = profit([live for live, _ in gaps], prices) - profit([backtest for _, backtest in gaps], prices)
        assert len(effects.gaps) == len(gaps)
        assert sum(effects.gaps) + effects.left == pytest.approx(whole, abs=1e-9)
