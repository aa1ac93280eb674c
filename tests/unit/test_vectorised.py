"""The vectorised backtester against sums done by hand, and all fills at once against one by one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.backtest import Result, run_backtest
from bot.backtest.at_once import Asked, Booked, booked_at_once
from bot.backtest.booking import booked_one_by_one
from bot.backtest.source import CandleSource, Quotes, TickSource
from bot.backtest.vectorised import CHUNK, changes, simulated
from bot.domain import MONEY, Account, Bars, FloatArray, Market
from bot.engine import Plan, Sizing, SizingKind
from bot.fills import Terms
from bot.timeframes import TIMEFRAMES

MINUTE = 60_000
START = 1_704_067_200_000  # 2024-01-01T00:00:00Z
NAN = float("nan")


class Script:
    """Says what it is told to, whatever the prices."""

    name = "script"
    lookback = 1

    def __init__(self, *targets: float) -> None:
        self._targets = np.array(targets, np.float64)

    def targets(self, bars: Bars) -> FloatArray:
        first = (int(bars.timestamp[0]) - START) // MINUTE
        return self._targets[first : first + len(bars)]


class Asks:
    """Long above, flat below: of a bar's close alone."""

    name = "asks"
    lookback = 1

    def __init__(self, level: float) -> None:
        self._level = level

    def targets(self, bars: Bars) -> FloatArray:
        return np.where(bars.close > self._level, 1.0, 0.0)


def candles(*rows: tuple[float, float], minutes: list[int] | None = None) -> Bars:
    """Bars from (open, close); the high and the low are one beyond them."""
    opened, closed = (np.array(column) for column in zip(*rows, strict=True))
    times = START + np.array(minutes or range(len(rows))) * MINUTE
    return Bars.from_arrays(times, opened, np.maximum(opened, closed) + 1, np.minimum(opened, closed) - 1, closed)


def fills(result: Result) -> list[tuple[int, str, float, float]]:
    return [
        ((trade.timestamp - START) // MINUTE, trade.side.value, trade.price, trade.quantity) for trade in result.trades
    ]


ROWS = ((100.0, 101.0), (102.0, 103.0), (104.0, 99.0), (98.0, 97.0), (96.0, 95.0))


class TestFills:
    def test_at_the_next_open(self) -> None:
        result = run_backtest(candles(*ROWS), Script(1, 1, 0, -1, 0), capital=1000, quantity=2, fee_rate=0.01)
        assert fills(result) == [(1, "buy", 102.0, 2.0), (3, "sell", 98.0, 2.0), (4, "sell", 96.0, 2.0)]
        assert result.trades.pnl.tolist() == [0.0, -8.0, 0.0]
        assert result.trades.fee.tolist() == pytest.approx([2.04, 1.96, 1.92])
        assert result.trades.net_pnl == pytest.approx(-8 - 2.04 - 1.96 - 1.92)

    def test_at_the_close(self) -> None:
        result = run_backtest(candles(*ROWS), Script(1, 1, 0, -1, 0), capital=1000, quantity=2, fill="close")
        assert fills(result) == [
            (0, "buy", 101.0, 2.0),
            (2, "sell", 99.0, 2.0),
            (3, "sell", 97.0, 2.0),
            (4, "buy", 95.0, 2.0),
        ]
        assert result.trades.timestamp[0] == START + MINUTE - 1
        assert result.trades.pnl.tolist() == [0.0, -4.0, 0.0, 4.0]

    def test_a_target_of_the_last_bar_has_no_next_open(self) -> None:
        assert fills(run_backtest(candles(*ROWS), Script(NAN, NAN, NAN, NAN, 1), capital=1000, quantity=1)) == []

    def test_nan_holds(self) -> None:
        result = run_backtest(candles(*ROWS), Script(1, NAN, NAN, 0, NAN), capital=1000, quantity=1)
        assert fills(result) == [(1, "buy", 102.0, 1.0), (4, "sell", 96.0, 1.0)]

    def test_after_a_gap_at_the_open_that_there_is(self) -> None:
        bars = candles(*ROWS, minutes=[0, 5, 6, 7, 8])
        result = run_backtest(bars, Asks(100.5), capital=1000, quantity=1)
        assert fills(result) == [(5, "buy", 102.0, 1.0), (7, "sell", 98.0, 1.0)]

    def test_a_reversal_is_one_fill(self) -> None:
        result = run_backtest(candles(*ROWS), Script(1, -1, 1, 0, 0), capital=1000, quantity=1)
        assert fills(result) == [
            (1, "buy", 102.0, 1.0),
            (2, "sell", 104.0, 2.0),
            (3, "buy", 98.0, 2.0),
            (4, "sell", 96.0, 1.0),
        ]
        assert result.trades.pnl.tolist() == [0.0, 2.0, 6.0, -2.0]

    def test_parts_of_a_position_have_an_average_cost(self) -> None:
        result = run_backtest(candles(*ROWS), Script(0.5, 1, 0.25, 0, 0), capital=1000, quantity=4)
        assert fills(result) == [
            (1, "buy", 102.0, 2.0),
            (2, "buy", 104.0, 2.0),
            (3, "sell", 98.0, 3.0),
            (4, "sell", 96.0, 1.0),
        ]
        assert result.trades.pnl.tolist() == [0.0, 0.0, -15.0, -7.0]

    def test_slippage_is_against_the_order_and_to_whole_steps(self) -> None:
        markets = {"BTC/USDT": Market("BTC/USDT", Decimal("0.5"))}
        script = Script(1, 0, 0, 0, 0)
        result = run_backtest(candles(*ROWS), script, capital=1000, quantity=1, slippage_bps=10, markets=markets)
        assert result.trades.price.tolist() == [102.5, 103.5]

    def test_a_longer_timeframe(self) -> None:
        bars = candles(*[(100.0 + minute, 100.5 + minute) for minute in range(30)])
        seen: list[list[float]] = []

        class Watches(Asks):
            def targets(self, bars: Bars) -> FloatArray:
                if len(bars) > 1:
                    seen.append([bars.open[1], bars.high[1], bars.low[1], bars.close[1], float(bars.timestamp[1])])
                return super().targets(bars)

        result = run_backtest(bars, Watches(112), capital=1000, quantity=1, timeframe="5m")
        assert seen[0] == [105.0, 110.5, 104.0, 109.5, START + 5 * MINUTE]
        assert fills(result) == [(15, "buy", 115.0, 1.0)]
        at_close = run_backtest(bars, Watches(112), capital=1000, quantity=1, timeframe="5m", fill="close")
        assert fills(at_close) == [(14, "buy", 114.5, 1.0)]

    def test_a_bar_whose_last_candle_is_missing_closes_late(self) -> None:
        bars = candles(*[(100.0, 101.0)] * 9, minutes=[0, 1, 2, 3, 5, 6, 7, 8, 9])
        result = run_backtest(bars, Asks(100.5), capital=1000, quantity=1, timeframe="5m", fill="close")
        assert fills(result) == [(5, "buy", 100.0, 1.0)]


class TestStart:
    def test_what_is_before_is_looked_back_on_and_not_traded(self) -> None:
        script = Script(1, 0, 1, 1, 0)
        result = run_backtest(candles(*ROWS), script, capital=1000, quantity=1, start_ms=START + 3 * MINUTE)
        assert fills(result) == [(3, "buy", 98.0, 1.0)]

    def test_the_newest_bar_before_is_decided_on_at_the_first_open(self) -> None:
        bars = candles(*ROWS, minutes=[0, 1, 2, 3, 8])
        result = run_backtest(bars, Asks(96.5), capital=1000, quantity=1, start_ms=START + 5 * MINUTE)
        assert fills(result) == [(8, "buy", 96.0, 1.0)]
        hour = run_backtest(
            candles(*[(100.0, 101.0)] * 12),
            Asks(100.5),
            capital=1000,
            quantity=1,
            start_ms=START + 7 * MINUTE,
            timeframe="5m",
        )
        assert fills(hour) == [(7, "buy", 100.0, 1.0)]

    def test_at_the_close_the_first_open_asks_for_the_bar_before(self) -> None:
        script = Script(1, 1, 1, 0, 0)
        start_ms = START + 2 * MINUTE
        result = run_backtest(candles(*ROWS), script, capital=1000, quantity=1, fill="close", start_ms=start_ms)
        assert fills(result) == [(2, "buy", 104.0, 1.0), (3, "sell", 97.0, 1.0)]

    def test_beyond_the_end(self) -> None:
        assert fills(run_backtest(candles(*ROWS), Asks(0), capital=1, quantity=1, start_ms=START + 90 * MINUTE)) == []


class TestMoney:
    def test_what_cannot_be_paid_for_is_refused_and_not_asked_again(self) -> None:
        result = run_backtest(candles(*ROWS), Script(1, 1, -1, 1, 1), capital=97, quantity=1)
        assert fills(result) == [(4, "buy", 96.0, 1.0)]
        assert result.refused == {"insufficient_cash": 1, "insufficient_margin": 1}

    def test_an_amount_of_money_buys_whole_steps(self) -> None:
        markets = {"BTC/USDT": Market("BTC/USDT", Decimal("0.01"), Decimal("0.1"))}
        result = run_backtest(candles(*ROWS), Script(1, 0, 0, 0, 0), capital=1000, quote_amount=500, markets=markets)
        assert fills(result) == [(1, "buy", 102.0, 4.9), (2, "sell", 104.0, 4.9)]

    def test_a_part_of_the_equity_follows_it(self) -> None:
        markets = {"BTC/USDT": Market("BTC/USDT", Decimal("0.01"), Decimal(1))}
        result = run_backtest(
            candles(*ROWS), Script(1, 0, 1, 0, 0), capital=1020, equity_fraction=1, fee_rate=0, markets=markets
        )
        assert [quantity for *_, quantity in fills(result)] == [10.0, 10.0, 10.0, 10.0]
        assert result.trades.net_pnl == 20 - 20

    def test_too_little_for_one_step(self) -> None:
        markets = {"BTC/USDT": Market("BTC/USDT", Decimal("0.01"), Decimal(1))}
        result = run_backtest(candles(*ROWS), Script(1, 0, 0, 0, 0), capital=1000, quote_amount=50, markets=markets)
        assert not len(result.trades)
        assert result.refused == {"below_min_amount": 1, "no_change": 1}

    def test_a_limit_of_the_market(self) -> None:
        markets = {"BTC/USDT": Market("BTC/USDT", Decimal("0.01"), min_cost=Decimal(103))}
        result = run_backtest(candles(*ROWS), Script(1, 0, 0, 0, 0), capital=1000, quantity=1, markets=markets)
        assert result.refused == {"below_min_cost": 1, "no_change": 1}

    def test_several_symbols_share_the_cash(self) -> None:
        bars = {"BTC/USDT": candles(*ROWS), "ETH/USDT": candles(*ROWS)}
        result = run_backtest(bars, Script(1, 1, 1, 1, 0), capital=150, quantity=1)
        assert [trade.symbol for trade in result.trades] == ["BTC/USDT"]
        assert result.refused == {"insufficient_cash": 1}

    def test_nobody_trades_for_nothing_by_silence(self) -> None:
        result = run_backtest(candles(*ROWS), Script(1, 1, 0, -1, 0), capital=1000, quantity=2)
        assert result.trades.fee.tolist() == pytest.approx([0.204, 0.196, 0.192])
        markets = {"BTC/USDT": Market("BTC/USDT", Decimal("0.01"), taker=Decimal("0.002"))}
        result = run_backtest(candles(*ROWS), Script(1, 1, 0, -1, 0), capital=1000, quantity=2, markets=markets)
        assert result.trades.fee[0] == pytest.approx(0.408)


class TestOptions:
    @pytest.mark.parametrize(
        ("given_", "told"),
        [
            ({"quantity": 1, "fill": "open"}, "fill must be next_open or close, got 'open'"),
            ({}, "exactly one of quantity, quote_amount, equity_fraction"),
            ({"quantity": 1, "quote_amount": 1}, "exactly one of"),
            ({"quantity": 0}, "quantity must be positive, got 0"),
            ({"quantity": NAN}, "quantity must be positive"),
            ({"quantity": 1e300}, "quantity must be below 1,000,000,000,000,000"),
            ({"quantity": 1, "capital": -5}, "capital must be positive, got -5"),
            ({"quantity": 1, "fee_rate": -0.1}, "fee_rate must be zero or more"),
            ({"quantity": 1, "timeframe": "7m"}, "timeframe must be one of 1m, 3m"),
            ({"equity_fraction": 1.5}, "equity_fraction must be at most 1"),
        ],
    )
    def test_nonsense_is_refused(self, given_: dict[str, float], told: str) -> None:
        keys = {"capital": 1000, **given_}
        with pytest.raises(ValueError, match=told):
            run_backtest(candles(*ROWS), Asks(1), **keys)  # type: ignore[arg-type]

    def test_bars_that_do_not_add_up(self) -> None:
        bars = candles(*ROWS, minutes=[0, 10, 20, 30, 40])
        with pytest.raises(ValueError, match="bars of 15m cannot be made of bars of 600000 ms"):
            run_backtest(bars, Asks(1), capital=1, quantity=1, timeframe="15m")

    @pytest.mark.parametrize(
        ("column", "values", "told"),
        [
            ("open", [1.0, NAN, 1.0], "bar 1 of BTC/USDT is no candle: open, high, low and close are 1.0|nan, 2.0"),
            ("low", [1.0, 1.0, 0.0], "bar 2 of BTC/USDT is no candle"),
            ("high", [np.inf, 2.0, 2.0], "bar 0 of BTC/USDT is no candle"),
            ("close", [1.0, 1.0], "columns of different lengths"),
            ("timestamp", [0, 60_000, 60_000], "strictly increasing timestamps"),
        ],
    )
    def test_bars_that_are_none(self, column: str, values: list[float], told: str) -> None:
        one = np.ones(3)
        bars = replace(Bars(np.arange(3) * MINUTE, one, 2 * one, one, one, one), **{column: np.array(values)})
        with pytest.raises(ValueError, match=told):
            run_backtest(bars, Asks(1), capital=1, quantity=1)

    def test_symbols_that_do_not_go_together(self) -> None:
        bars = candles(*ROWS * 3)
        with pytest.raises(ValueError, match="one currency, and bars are quoted in EUR, USDT"):
            run_backtest({"A/USDT": bars, "B/EUR": bars}, Asks(1), capital=1, quantity=1)
        hourly = replace(bars, timestamp=START + np.arange(15) * 60 * MINUTE)
        with pytest.raises(ValueError, match="bars of B/USDT are of 1h, and others of 1m: all need one length"):
            run_backtest({"A/USDT": bars, "B/USDT": hourly}, Asks(1), capital=1, quantity=1)

    def test_a_symbol_without_bars(self) -> None:
        """Beside one that has some, on a longer timeframe and at the close."""
        bars = {"A/USDT": candles(*ROWS * 2), "B/USDT": candles(*ROWS)[:0]}
        result = run_backtest(bars, Asks(0), capital=1000, quantity=1, timeframe="5m", fill="close")
        assert fills(result) == [(4, "buy", 95.0, 1.0)]

    def test_the_years_before_1970(self) -> None:
        bars = candles(*ROWS)
        result = run_backtest(replace(bars, timestamp=bars.timestamp - 2 * START), Asks(0), capital=1000, quantity=1)
        assert result.trades.timestamp.tolist() == [MINUTE - START]

    def test_no_bars(self) -> None:
        none = np.zeros(0)
        result = run_backtest(Bars.from_arrays(none, none, none, none, none), Asks(1), capital=1, quantity=1)
        assert not len(result.trades)


def market_of(symbol: str, step: str, price_step: str, **limits: str) -> Market:
    return Market(
        symbol, Decimal(price_step), Decimal(step), **{name: Decimal(value) for name, value in limits.items()}
    )


@st.composite
def asks(draw: st.DrawFn) -> tuple[list[Market], Asked]:
    symbols = draw(st.integers(1, 3))
    steps = st.sampled_from(["1e-12", "1e-8", "3e-5", "0.001", "0.25", "1", "10"])
    no_limits: dict[str, str] = {}
    limits = st.sampled_from(
        [no_limits, no_limits, {"min_cost": "5"}, {"min_amount": "0.5", "max_amount": "40"}, {"max_cost": "700"}]
    )
    price_steps = st.sampled_from(["0.01", "0.5", "0.003"])
    markets = [market_of(f"{name}/USDT", draw(steps), draw(price_steps), **draw(limits)) for name in "ABC"[:symbols]]
    count = draw(st.integers(0, 30))
    cents = np.array(draw(st.lists(st.integers(1, 10**6), min_size=count, max_size=count)), np.int64)
    spread = np.array(draw(st.lists(st.integers(0, 50), min_size=count, max_size=count)), np.int64)
    symbol = np.array(draw(st.lists(st.integers(0, symbols - 1), min_size=count, max_size=count)), np.int64)
    side = st.sampled_from([-1.0, 0.0, 1.0, 0.5, -0.3])
    target = np.array(draw(st.lists(side, min_size=count, max_size=count)), np.float64)
    bid: FloatArray = cents / 100
    ask: FloatArray = (cents + spread) / 100
    return markets, Asked(symbol, target, Quotes(START + np.arange(count) * MINUTE, bid, ask, bid))


@settings(max_examples=150, deadline=None)
@given(
    asks(),
    st.sampled_from([(SizingKind.QUANTITY, "1"), (SizingKind.QUANTITY, "0.0375"), (SizingKind.QUOTE_AMOUNT, "750")]),
    st.sampled_from(["1000", "100000", "1000000000"]),
    st.sampled_from(["0", "0.001"]),
    st.sampled_from(["0", "2.5"]),
)
def test_all_at_once_is_one_by_one(
    given_: tuple[list[Market], Asked], size: tuple[SizingKind, str], capital: str, fee_rate: str, slippage: str
) -> None:
    markets, asked = given_
    money = Decimal(capital)
    plan = Plan(Asks(0), "a", Sizing(size[0], Decimal(size[1])))
    terms = Terms(Decimal(fee_rate), Decimal(slippage))
    none = np.zeros(0)
    quotes = Quotes(np.zeros(0, np.int64), none, none, none)
    sources = {market.symbol: TickSource(market, quotes, np.zeros(0, np.bool_)) for market in markets}
    with localcontext(MONEY):
        at_once = booked_at_once(plan.sizing, Account("a", "USDT", money, money), markets, asked, terms)
        one_by_one = booked_one_by_one(plan, Account("a", "USDT", money, money), sources, asked, terms)
    if at_once is None:
        return
    _same(at_once, one_by_one)


def _same(one: Booked, other: Booked) -> None:
    refused, expected = ({name: rows.tolist() for name, rows in each.refusals.items()} for each in (one, other))
    assert refused == expected
    assert one.refused == {name: len(rows) for name, rows in refused.items()}
    for column in ("timestamp", "symbol", "buy", "price", "quantity"):
        assert np.array_equal(getattr(one.trades, column), getattr(other.trades, column)), column
    for column in ("pnl", "fee"):
        assert np.abs(getattr(one.trades, column) - getattr(other.trades, column)).max(initial=0) < 1e-9, column


def test_most_runs_are_booked_at_once() -> None:
    """Or the test above shows nothing."""
    count = 1000
    target = np.resize([1.0, 0.0, -1.0], count)
    price: FloatArray = 100 + np.sin(np.arange(count)).round(2)
    asked = Asked(np.zeros(count, np.int64), target, Quotes(START + np.arange(count), price, price, price))
    market = Market("BTC/USDT", Decimal("0.01"))
    account = Account("a", "USDT", Decimal(100_000), Decimal(100_000))
    for size in (Sizing(SizingKind.QUANTITY, Decimal(1)), Sizing(SizingKind.QUOTE_AMOUNT, Decimal(1000))):
        found = booked_at_once(size, account, [market], asked, Terms(Decimal("0.001"), Decimal(1)))
        assert found is not None
        assert len(found.trades) == count


def asked_at(price: FloatArray, target: FloatArray) -> Asked:
    return Asked(np.zeros(len(price), np.int64), target, Quotes(START + np.arange(len(price)), price, price, price))


@pytest.mark.parametrize(
    ("size", "price", "step"),
    [
        # So many steps that they are beyond int64.
        (Sizing(SizingKind.QUOTE_AMOUNT, Decimal("2451.91")), 1e-6, "1e-12"),
        # Money whose float64 is off by more than 1e-9.
        (Sizing(SizingKind.QUANTITY, Decimal("349877.272")), 106.08, "0.01"),
    ],
)
def test_what_is_too_large_for_floats_is_left_alone(size: Sizing, price: float, step: str) -> None:
    asked = asked_at(np.array([price, price]), np.array([1.0, 0.0]))
    account = Account("a", "USDT", Decimal(10**9), Decimal(10**9))
    assert booked_at_once(size, account, [market_of("A/USDT", step, "0.01")], asked, Terms()) is None


def test_targets_that_are_all_different_are_left_alone() -> None:
    """To go through all signals for each of them would take forever."""
    target = np.linspace(0.1, 1, 65)
    target[1::2] *= -1
    account = Account("a", "USDT", Decimal(10**6), Decimal(10**6))
    size, market = Sizing(SizingKind.QUANTITY, Decimal(1)), Market("A/USDT", Decimal("0.01"))
    price = np.full(65, 100.0)
    assert booked_at_once(size, account, [market], asked_at(price, target), Terms()) is None
    few = booked_at_once(size, account, [market], asked_at(price[:64], target[:64]), Terms())
    assert few is not None


def test_a_price_step_of_many_digits() -> None:
    """A price in such steps, as float64, is not a product of two of them."""
    step, price = "0.0001234567", np.array([1098608.87338654, 623508.3964623, 1064387.2245655, 927405.03338626])
    market, terms = market_of("A/USDT", "1e-6", step), Terms(slippage_bps=Decimal("1e-7"))
    size, money = Sizing(SizingKind.QUANTITY, Decimal("0.3")), Decimal(10**8)
    asked = asked_at(np.repeat(price, 20) + np.arange(80) / 8, np.resize([1.0, -1.0], 80))
    with localcontext(MONEY):
        found = booked_at_once(size, Account("a", "USDT", money, money), [market], asked, terms)
        source: Mapping[str, TickSource] = {"A/USDT": TickSource(market, asked.quotes, np.zeros(80, np.bool_))}
        expected = booked_one_by_one(Plan(Asks(0), "a", size), Account("a", "USDT", money, money), source, asked, terms)
    assert found is not None
    _same(found, expected)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([1.0, 0.0, -1.0, NAN, 0.5]), min_size=1, max_size=60), st.integers(1, 7))
def test_changes_do_not_depend_on_the_chunks(said: list[float], length: int) -> None:
    """Around the edge between two chunks, too."""
    targets = np.full(CHUNK + 40, NAN)
    places = np.arange(len(said)) * length % 80 + CHUNK - 40
    targets[places] = said
    price = np.full(len(targets), 100.0)
    times = START + np.arange(len(targets)) * MINUTE
    source = CandleSource(Market("A/USDT", Decimal("0.01")), Bars.from_ticks(times, price), TIMEFRAMES["1m"], 0)
    plan = Plan(Script(*targets), "a", Sizing(SizingKind.QUANTITY, Decimal(1)))
    rows, wanted = changes(plan, source.decisions(None))
    expected, held = [], 0.0
    for row, target in enumerate(targets.tolist()[:-1]):
        if target == target and target != held:
            expected.append((row, target))
            held = target
    assert list(zip(rows.tolist(), wanted.tolist(), strict=True)) == expected


def test_a_strategy_that_raises_holds_that_bar() -> None:
    class Moody(Asks):
        def targets(self, bars: Bars) -> FloatArray:
            if (bars.close == 103).any():
                raise RuntimeError
            return super().targets(bars)

    heard: list[object] = []
    source = CandleSource(Market("A/USDT", Decimal("0.01")), candles(*ROWS), TIMEFRAMES["1m"], 0)
    plan = Plan(Moody(98), "a", Sizing(SizingKind.QUANTITY, Decimal(1)), on_error=heard.append)
    account = Account("a", "USDT", Decimal(1000), Decimal(1000))
    found = simulated(plan, account, {"A/USDT": source}, Terms())
    assert found.trades.price.tolist() == [102.0, 96.0]
    assert len(heard) == 1


def test_a_strategy_that_raises_is_told_of() -> None:
    class Broken(Asks):
        def targets(self, bars: Bars) -> FloatArray:
            raise RuntimeError("no idea")

    with pytest.warns(RuntimeWarning, match="asks raised, and held where it did: RuntimeError: no idea"):
        assert not len(run_backtest(candles(*ROWS), Broken(1), capital=1000, quantity=1).trades)


def test_a_strategy_cannot_write_into_the_data() -> None:
    """The next strategy, and the caller, have the same arrays."""

    class Scribbles(Asks):
        def targets(self, bars: Bars) -> FloatArray:
            bars.close[:] = 1
            return super().targets(bars)

    bars = candles(*ROWS)
    with pytest.warns(RuntimeWarning, match="read-only"):
        run_backtest(bars, Scribbles(0), capital=1000, quantity=1)
    assert bars.close.tolist() == [close for _, close in ROWS]
    assert bars.close.flags.writeable


def test_an_account_in_use_goes_on_from_where_it_is() -> None:
    source: Mapping[str, CandleSource] = {
        "A/USDT": CandleSource(Market("A/USDT", Decimal("0.01")), candles(*ROWS), TIMEFRAMES["1m"], 0)
    }
    account = Account("a", "USDT", Decimal(1000), Decimal(900))
    position = account.position("A/USDT")
    position.quantity, position.basis = Decimal(1), Decimal(100)
    plan = Plan(Script(1, 1, 0, 0, 0), "a", Sizing(SizingKind.QUANTITY, Decimal(1)))
    found = simulated(plan, account, source, Terms(), {"A/USDT": 1.0})
    assert found.trades.pnl.tolist() == [-2.0]
    assert account.cash == 998
