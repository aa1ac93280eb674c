"""The summary: by hand, where there is next to nothing, and against the figures of public libraries."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

import numpy as np
import pytest

from bot.backtest import formulas
from bot.backtest.curve import Curve, Drawdown
from bot.backtest.equity import Closes, equities
from bot.backtest.metrics import Metrics, Row, by_reason, by_symbol, metrics_of
from bot.backtest.trades import Trades
from bot.backtest.trips import RoundTrips, round_trips
from bot.domain import FloatArray
from bot.timeframes import DAY_MS, HOUR_MS
from tests.books import Fill, booked, towards

BTC = ("BTC/USDT",)
PAIR = ("BTC/USDT", "ETH/USDT")
RATE = Decimal("0.001")


class Ran(NamedTuple):
    trades: Trades
    closed: RoundTrips
    left: RoundTrips
    curve: Curve
    metrics: Metrics


def ran(capital: float, trades: Trades, closes: Sequence[Sequence[float] | FloatArray], step_ms: int = DAY_MS) -> Ran:
    """A backtest on bars that begin at 0 and open where they close."""
    prices = [np.array(row, np.float64) for row in closes]
    known = [step_ms * np.arange(1, len(row) + 1) - 1 for row in prices]
    bars = [Closes(times, row) for times, row in zip(known, prices, strict=True)]
    curve = Curve.folded(capital, 0, equities(capital, trades, bars))
    ends = np.array([row[-1] if len(row) else np.nan for row in prices])
    opens = np.array([row[0] if len(row) else np.nan for row in prices])
    closed, left = round_trips(trades, ends, curve.end_ms)
    rejected = {"insufficient_cash": 2}
    found = metrics_of(trades, closed, left, curve, first_opens=opens, last_closes=ends, rejected_signals=rejected)
    return Ran(trades, closed, left, curve, found)


def at(bar: int, symbol: int, change: str, price: str) -> Fill:
    """A fill at the close of a daily bar."""
    return Fill((bar + 1) * DAY_MS - 1, symbol, Decimal(change), Decimal(price))


def test_by_hand() -> None:
    fills = [
        at(0, 0, "1", "100"), at(1, 0, "-2", "110"), at(2, 0, "1", "110"),
        at(2, 1, "10", "20"), at(3, 1, "-10", "18"), at(3, 0, "2", "120"),
    ]  # fmt: skip
    closes = [[100, 110, 110, 120, 125], [20, 20, 20, 18, 24]]
    found = ran(1_000.0, booked(PAIR, fills), closes)
    # Long 100 -> 110: +10; short 110 -> 110: a draw; 10 times 20 -> 18: -20; and 2 bought at 120, now at 125.
    assert found.closed.profit.tolist() == [10.0, 0.0, -20.0]
    metrics = found.metrics
    days = 5.0
    # Equity by day: 1000, 1010, 1010, 990, 1000.
    returns = [0.0, 0.01, 0.0, -20 / 1010, 10 / 990]
    mean = sum(returns) / 5
    deviation = math.sqrt(sum((value - mean) ** 2 for value in returns) / 4)
    drawdown = Drawdown(20.0, 20 / 1010, 3 * DAY_MS - 1, 4 * DAY_MS - 1, None)
    expected = {
        "start_ms": 0,
        "end_ms": 5 * DAY_MS - 1,
        "days": days,
        "trades": 3,
        "trades_per_day": 3 / 5,
        "fills": 6,
        "starting_balance": 1_000.0,
        "final_balance": 1_000.0,
        "total_profit": 0.0,
        "total_profit_ratio": 0.0,
        "cagr": 0.0,
        "sharpe": pytest.approx(mean / deviation * math.sqrt(365)),
        "sortino": pytest.approx(mean / (20 / 1010 / math.sqrt(5)) * math.sqrt(365)),
        "calmar": 0.0,
        # Mean -10/3; the variance of the sample is ((40/3)^2 + (10/3)^2 + (50/3)^2) / 2 = 700/3.
        "sqn": pytest.approx(math.sqrt(3) * (-10 / 3) / math.sqrt(700 / 3)),
        "profit_factor": 0.5,
        "expectancy": pytest.approx(-10 / 3),
        "expectancy_ratio": pytest.approx(-1 / 6),
        "win_rate": pytest.approx(1 / 3),
        "wins": 1,
        "draws": 1,
        "losses": 1,
        "average_profit_ratio": pytest.approx(0.0),
        "median_profit_ratio": 0.0,
        "average_duration_ms": DAY_MS,
        "average_winner_duration_ms": DAY_MS,
        "average_loser_duration_ms": DAY_MS,
        "best": found.closed[0],
        "worst": found.closed[2],
        "drawdown": drawdown,
        "drawdown_absolute": drawdown,
        "longest_under_water_ms": 2 * DAY_MS,
        "longest_winning_run": 1,
        "longest_losing_run": 1,
        "fees_paid": 0.0,
        "volume": 100.0 + 220 + 110 + 200 + 180 + 240,
        # From the end of the first day to the end of the range.
        "exposure": pytest.approx(4 / 5),
        # The first grew by a quarter, the second by a fifth.
        "buy_and_hold": pytest.approx(0.225),
        "rejected_signals": {"insufficient_cash": 2},
        "open_trades": 1,
        "open_value": 250.0,
        "open_profit": 10.0,
    }
    assert {field.name: getattr(metrics, field.name) for field in dataclasses.fields(Metrics)} == expected
    assert metrics.best is not None
    assert (metrics.best.symbol, metrics.best.profit_ratio) == ("BTC/USDT", 0.1)


def test_tables() -> None:
    fills = [
        at(0, 0, "1", "100"), at(1, 0, "-2", "125"), at(3, 0, "1", "125"),
        at(3, 0, "1", "128"), at(5, 0, "-1", "112"), at(5, 0, "1", "80"),
    ]  # fmt: skip
    run = ran(1_000.0, booked(PAIR, fills), [[100, 125, 125, 128, 128, 100], []])
    assert by_symbol(run.closed) == [
        Row("BTC/USDT", 3, 0.125 / 3, 9.0, 1, 1, 1, DAY_MS * 5 / 3),
        Row("ETH/USDT", 0, None, 0.0, 0, 0, 0, None),
    ]
    assert by_reason(run.closed) == [
        Row("signal", 2, -0.0625, -16.0, 0, 1, 1, DAY_MS * 2.0),
        Row("reversal", 1, 0.25, 25.0, 1, 0, 0, DAY_MS),
    ]
    assert by_reason(run.left) == [Row("end of data", 1, 0.25, 20.0, 1, 0, 0, 0.0)]
    assert Row.of("TOTAL", run.closed).total_profit == 9.0


def is_a_document(metrics: Metrics) -> bool:
    """Whether it can be told as JSON, which knows neither infinity nor NaN nor numpy's integers."""
    text = json.dumps(dataclasses.asdict(metrics), allow_nan=False)
    return set(json.loads(text)) > {"sharpe", "best"}


class TestNextToNothing:
    def test_no_trades(self) -> None:
        metrics = ran(1_000.0, booked(BTC, []), [[5, 6, 7]]).metrics
        nothing = [
            *(metrics.sharpe, metrics.sortino, metrics.calmar, metrics.sqn, metrics.profit_factor, metrics.expectancy),
            *(metrics.expectancy_ratio, metrics.win_rate, metrics.average_profit_ratio, metrics.median_profit_ratio),
            *(metrics.average_duration_ms, metrics.average_winner_duration_ms, metrics.average_loser_duration_ms),
            *(metrics.best, metrics.worst, metrics.drawdown, metrics.drawdown_absolute),
        ]
        assert nothing == [None] * len(nothing)
        assert (metrics.trades, metrics.trades_per_day, metrics.cagr, metrics.exposure) == (0, 0.0, 0.0, 0.0)
        assert (metrics.longest_losing_run, metrics.final_balance) == (0, 1_000.0)
        assert metrics.buy_and_hold == pytest.approx(0.4)
        assert is_a_document(metrics)

    def test_no_bars(self) -> None:
        metrics = ran(1_000.0, booked(BTC, []), [[]]).metrics
        assert (metrics.days, metrics.trades_per_day, metrics.cagr, metrics.buy_and_hold) == (0.0, None, None, None)
        assert is_a_document(metrics)

    def test_one_day_and_one_winner(self) -> None:
        trades = booked(BTC, [Fill(HOUR_MS, 0, Decimal(1), Decimal(5)), Fill(2 * HOUR_MS, 0, Decimal(-1), Decimal(6))])
        metrics = ran(1_000.0, trades, [[5, 6, 7]], step_ms=HOUR_MS).metrics
        assert (metrics.sharpe, metrics.sortino, metrics.sqn, metrics.profit_factor) == (None, None, None, None)
        assert (metrics.win_rate, metrics.wins, metrics.days) == (1.0, 1, 0.125)
        assert metrics.average_loser_duration_ms is None
        assert is_a_document(metrics)

    def test_all_win_alike(self) -> None:
        fills = [at(bar, 0, "-1" if bar % 2 else "1", "6" if bar % 2 else "5") for bar in range(6)]
        metrics = ran(1_000.0, booked(BTC, fills), [[5, 6] * 3]).metrics
        assert (metrics.trades, metrics.longest_winning_run) == (3, 3)
        assert (metrics.profit_factor, metrics.expectancy_ratio, metrics.sqn, metrics.sortino) == (None,) * 4
        assert metrics.expectancy == 1.0
        assert is_a_document(metrics)

    def test_ruin(self) -> None:
        """A short position against a price that rises by more than there is."""
        metrics = ran(100.0, booked(BTC, [at(0, 0, "-1", "100")]), [[100, 250, 150, 300]]).metrics
        assert (metrics.cagr, metrics.sharpe, metrics.sortino, metrics.calmar) == (None, None, None, None)
        assert metrics.final_balance == -100.0
        assert (metrics.open_value, metrics.open_profit) == (-300.0, -200.0)
        assert metrics.drawdown == Drawdown(200.0, 2.0, DAY_MS - 1, 4 * DAY_MS - 1, None)
        assert is_a_document(metrics)

    def test_nothing_is_left(self) -> None:
        metrics = ran(100.0, booked(BTC, [at(0, 0, "-1", "100")]), [[100, 200]]).metrics
        assert (metrics.cagr, metrics.final_balance) == (-1.0, 0.0)
        assert is_a_document(metrics)


DAYS = 400


def peer_series() -> tuple[FloatArray, FloatArray]:
    """Daily closes and the targets decided and filled at each, for what the libraries were given: whole numbers only,
    long and short, with increases, decreases, reversals and pauses, and a position that is open at the end."""
    day = np.arange(DAYS)
    closes = 3.0 * np.cumsum((day * day * 31 + day * 7_919) % 401 - 198) + 20_000.0
    four = day // 4
    targets = ((four * four + 3 * four + 4) % 11 % 5).astype(np.float64) - 2.0
    targets[-4:] = 1.0
    return closes, targets


def peer_run(closes: FloatArray, targets: FloatArray) -> Ran:
    wanted = [
        ((day + 1) * DAY_MS - 1, 0, Decimal(int(target)), Decimal(int(close)))
        for day, (target, close) in enumerate(zip(targets, closes, strict=True))
    ]
    return ran(60_000.0, booked(BTC, towards(wanted), RATE), [closes])


def close_to(figure: float) -> object:
    """A library's own, up to rounding."""
    return pytest.approx(figure, rel=1e-12)


class TestPublicLibraries:
    def test_vectorbt(self) -> None:
        """vectorbt 1.2.0: Portfolio.from_orders(size_type="targetamount", fees=0.001, init_cash=60_000), its positions,
        which go from flat or a reversal to the next, and its returns with a year of 365 days.

        Its deviations are those of samples; its drawdowns are counted from the day after the peak, ours from the peak.
        """
        _, closed, left, curve, metrics = peer_run(*peer_series())
        assert (metrics.fills, metrics.trades, metrics.open_trades) == (55, 27, 1)
        assert (metrics.wins, metrics.losses, int(closed.short.sum())) == (18, 9, 9)
        assert (metrics.longest_winning_run, metrics.longest_losing_run) == (5, 3)
        assert metrics.final_balance == close_to(77_089.51899999994)
        assert closed.profit.sum() == close_to(17_092.322999999997)
        assert left.profit.sum() == pytest.approx(-2.804000000000002, abs=1e-9)
        assert metrics.fees_paid == close_to(2_986.4809999999998)
        assert metrics.volume == close_to(2_986_481.0)
        assert metrics.average_profit_ratio == close_to(0.012995942243443822)
        assert metrics.median_profit_ratio == close_to(0.019129763719512194)
        assert metrics.best is not None
        assert metrics.worst is not None
        assert metrics.best.profit_ratio == close_to(0.08696021557050665)
        assert metrics.worst.profit_ratio == close_to(-0.08866825338703771)
        assert metrics.average_duration_ms == 12 * DAY_MS
        assert metrics.sqn == close_to(1.4755745142064294)
        assert metrics.profit_factor == close_to(2.0446810925524606)
        assert metrics.expectancy == close_to(633.0489999999999)
        assert metrics.win_rate == close_to(0.6666666666666666)
        assert metrics.sharpe == close_to(1.6460232323353572)
        assert metrics.sortino == close_to(2.4968012083568514)
        assert metrics.cagr == close_to(0.25695644180024235)
        assert metrics.calmar == close_to(2.2656949848685946)
        assert metrics.drawdown is not None
        assert metrics.drawdown.ratio == close_to(0.1134117537957764)
        # Peak 2023-07-08, valley 2023-08-12, recovered 2023-09-26, the first bar being that of 2023-01-01.
        days = [(time + 1) // DAY_MS for time in metrics.drawdown[2:] if time is not None]
        assert days == [189, 224, 269]
        assert metrics.longest_under_water_ms == (91 + 1) * DAY_MS
        for day, equity in ((0, 59_961.188), (10, 62_103.789), (100, 67_475.256)):
            assert curve.daily[day] == close_to(equity)

    def test_empyrical_and_quantstats(self) -> None:
        """empyrical-reloaded 0.7.1 with annualization=365 and quantstats 0.0.86 with periods=365, on the daily returns.

        Both take the deviation of a sample for Sharpe, and for Sortino the root of the mean over all days.
        """
        _, _, _, curve, metrics = peer_run(*peer_series())
        assert len(curve.daily_returns) == DAYS
        assert metrics.sharpe == close_to(1.6460232323353572)  # quantstats: 1.6460232323353583
        assert metrics.sortino == close_to(2.4968012083568514)  # quantstats: 2.4968012083568527
        assert metrics.calmar == close_to(2.2656949848685937)  # quantstats: 2.2656949848685946
        assert metrics.cagr == close_to(0.25695644180024235)  # the same in both
        assert metrics.drawdown is not None
        assert metrics.drawdown.ratio == close_to(0.11341175379577642)  # quantstats: 0.1134117537957764

    def test_backtesting_py(self) -> None:
        """backtesting.py 0.6.6 with cash=60_000, commission=0.001 and trade_on_close=True: one unit, long or short.

        It cannot trade on the first bar. Its profit factor and expectancy are those of the ratios and not of the
        profits, its years have 365.25 days and begin at the end of the first bar. Its Sharpe and Sortino are built from
        a geometric mean and are others.
        """
        closes, targets = peer_series()
        targets = np.sign(targets)
        targets[0] = 0.0
        trades, closed, _, curve, metrics = peer_run(closes, targets)
        ratios = closed.profit_ratio
        assert metrics.trades == 27
        assert closed[0].profit == close_to(376.973)
        assert closed.profit.sum() == close_to(13_641.531)
        assert closed.fees.sum() == close_to(1_475.469)
        assert metrics.sqn == close_to(2.109070773294173)
        assert metrics.win_rate == close_to(0.6666666666666666)
        assert formulas.profit_factor(ratios) == close_to(2.9734146154228793)
        assert formulas.expectancy(ratios) == close_to(0.0197807163001043)
        assert metrics.best is not None
        assert metrics.worst is not None
        assert metrics.best.profit_ratio == close_to(0.10580149997532946)
        assert metrics.worst.profit_ratio == close_to(-0.08866825338703782)
        assert metrics.final_balance == close_to(73_638.72700000003)
        growth = formulas.cagr(60_000.0, curve.last, (DAYS - 1) * 365 / 365.25)
        assert growth == close_to(0.20623140350918767)
        # Its fees are in its equity from the day after the fill on.
        equity = curve.daily.copy()
        np.add.at(equity, trades.timestamp // DAY_MS, trades.fee)
        late = Curve.folded(60_000.0, 0, [(curve.day_ms, equity)]).drawdown
        assert late is not None
        assert late.ratio == close_to(0.06073001159790725)
