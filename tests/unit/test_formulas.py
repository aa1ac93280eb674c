"""Each formula by hand, and where it is not defined."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.backtest import formulas


def array(*values: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array(values, np.float64)


def test_cagr() -> None:
    # 44 % in two years are 20 % in each of them.
    assert formulas.cagr(100.0, 144.0, 730.0) == pytest.approx(0.2)
    assert formulas.cagr(100.0, 110.0, 365.0) == pytest.approx(0.1)
    assert formulas.cagr(100.0, 0.0, 10.0) == -1.0


@pytest.mark.parametrize(
    ("start", "final", "days"), [(100.0, 110.0, 0.0), (100.0, -1.0, 10.0), (0.0, 1.0, 10.0), (1.0, 1e9, 0.01)]
)
def test_cagr_is_none(start: float, final: float, days: float) -> None:
    assert formulas.cagr(start, final, days) is None


def test_sharpe() -> None:
    # Mean 0.01; deviations 0.01, -0.02, 0.01, so the variance of the sample is 0.0006 / 2.
    assert formulas.sharpe(array(0.02, -0.01, 0.02)) == pytest.approx(0.01 / math.sqrt(0.0003) * math.sqrt(365))


def test_sortino() -> None:
    # Only the loss counts, over all three days.
    assert formulas.sortino(array(0.02, -0.01, 0.02)) == pytest.approx(0.01 / math.sqrt(0.0001 / 3) * math.sqrt(365))


@pytest.mark.parametrize("returns", [[], [0.01], [0.0, 0.0], [0.01] * 30, [0.1, np.nan, 0.1]])
def test_neither_is_defined(returns: list[float]) -> None:
    assert formulas.sharpe(array(*returns)) is None
    assert formulas.sortino(array(*returns)) is None


def test_equal_growth_has_no_deviation() -> None:
    """Growing by 1 % every day, where rounding makes returns that differ in their last digits."""
    equity = 1_000.0 * 1.01 ** np.arange(100)
    returns = equity[1:] / equity[:-1] - 1.0
    assert len(set(returns.tolist())) > 1
    assert formulas.sharpe(returns) is None


def test_a_loss_that_is_rounding_is_none() -> None:
    assert formulas.sortino(array(0.01, -1e-16, 0.02)) is None


def test_without_a_loss_there_is_a_sharpe_but_no_sortino() -> None:
    assert formulas.sharpe(array(0.01, 0.02)) is not None
    assert formulas.sortino(array(0.01, 0.02)) is None


def test_calmar() -> None:
    assert formulas.calmar(0.3, 0.2) == pytest.approx(1.5)
    assert formulas.calmar(None, 0.2) is None
    assert formulas.calmar(0.3, 0.0) is None


def test_sqn() -> None:
    # Mean 1; deviations 2, -2, 1, -1, so the variance of the sample is 10 / 3.
    assert formulas.sqn(array(3.0, -1.0, 2.0, 0.0)) == pytest.approx(math.sqrt(4) / math.sqrt(10 / 3))


@pytest.mark.parametrize("profits", [[], [5.0], [5.0, 5.0], [0.0, 0.0], [0.3, 0.1 + 0.2]])
def test_sqn_is_none(profits: list[float]) -> None:
    assert formulas.sqn(array(*profits)) is None


def test_what_a_trade_brings() -> None:
    profits = array(30.0, -10.0, 0.0, 10.0, -10.0)
    assert formulas.profit_factor(profits) == pytest.approx(2.0)
    # 2/5 * 20 - 2/5 * 10.
    assert formulas.expectancy(profits) == pytest.approx(4.0)
    assert formulas.expectancy_ratio(profits) == pytest.approx(0.4)
    assert formulas.win_rate(profits) == pytest.approx(0.4)


def test_only_wins() -> None:
    profits = array(1.0, 2.0)
    assert (formulas.profit_factor(profits), formulas.expectancy_ratio(profits)) == (None, None)
    assert (formulas.expectancy(profits), formulas.win_rate(profits)) == (1.5, 1.0)


def test_only_losses() -> None:
    profits = array(-1.0, -2.0)
    assert formulas.profit_factor(profits) == 0.0
    assert formulas.expectancy_ratio(profits) == -1.0


def test_under_two_trades() -> None:
    for profits in (array(), array(-3.0)):
        found = [formulas.profit_factor, formulas.expectancy, formulas.expectancy_ratio, formulas.sqn]
        assert [formula(profits) for formula in found] == [None] * 4
    assert formulas.win_rate(array()) is None


@pytest.mark.parametrize(("text", "length"), [("", 0), ("0", 0), ("1", 1), ("0110111", 3), ("1101", 2), ("0010", 1)])
def test_longest_run(text: str, length: int) -> None:
    assert formulas.longest_run(np.array([mark == "1" for mark in text], np.bool_)) == length


def test_buy_and_hold() -> None:
    # One doubles, one loses half: together a quarter more.
    assert formulas.buy_and_hold(array(10.0, 10.0), array(20.0, 5.0)) == pytest.approx(0.25)
    assert formulas.buy_and_hold(array(10.0, np.nan), array(20.0, np.nan)) == pytest.approx(1.0)
    assert formulas.buy_and_hold(array(np.nan, 0.0), array(np.nan, 1.0)) is None


@settings(max_examples=100)
@given(st.lists(st.integers(-50, 80).map(lambda percent: percent / 1_000), min_size=2, max_size=40))
def test_as_the_standard_library_finds_them(returns: list[float]) -> None:
    mean = statistics.fmean(returns)
    deviation = statistics.stdev(returns)
    downside = math.sqrt(math.fsum(value * value for value in returns if value < 0) / len(returns))
    year = math.sqrt(365)
    found = formulas.sharpe(array(*returns))
    assert found == (None if deviation < 1e-12 else pytest.approx(mean / deviation * year, abs=1e-9))
    found = formulas.sortino(array(*returns))
    assert found == (None if not downside else pytest.approx(mean / downside * year, abs=1e-9))
    found = formulas.sqn(array(*returns))
    count = math.sqrt(len(returns))
    assert found == (None if deviation < 1e-12 else pytest.approx(mean / deviation * count, abs=1e-9))
    wins, losses = [value for value in returns if value > 0], [value for value in returns if value < 0]
    found = formulas.profit_factor(array(*returns))
    assert found == (None if not losses else pytest.approx(math.fsum(wins) / -math.fsum(losses), abs=1e-12))
    if wins and losses and len(wins) + len(losses) == len(returns):
        risk_reward = statistics.fmean(wins) / -statistics.fmean(losses)
        expected = (1 + risk_reward) * len(wins) / len(returns) - 1
        assert formulas.expectancy_ratio(array(*returns)) == pytest.approx(expected, abs=1e-9)
