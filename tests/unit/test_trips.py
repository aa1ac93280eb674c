"""Round trips: by hand, and against a plain loop over exact fractions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.backtest.trades import Trades
from bot.backtest.trips import RoundTrips, exposure, round_trips
from tests.books import Fill, booked, towards

BTC = ("BTC/USDT",)
PAIR = ("BTC/USDT", "ETH/USDT")
RATE = Decimal("0.001")


def fills(*rows: tuple[int, str, str]) -> list[Fill]:
    """Of one symbol: (timestamp, signed quantity, price)."""
    return [Fill(time, 0, Decimal(change), Decimal(price)) for time, change, price in rows]


def found(
    trades: Trades, last_prices: Sequence[float] = (100.0,), end_ms: int = 1_000
) -> tuple[RoundTrips, RoundTrips]:
    return round_trips(trades, np.array(last_prices), end_ms)


class TestByHand:
    def test_bought_and_sold(self) -> None:
        trades = booked(BTC, fills((10, "2", "100"), (30, "-2", "110")), RATE)
        closed, left = found(trades)
        # Bought for 200 and sold for 220; fees 0.2 + 0.22.
        (trip,) = closed
        assert trip[:8] == ("BTC/USDT", 10, 30, False, 2.0, 0.0, 100.0, 110.0)
        assert trip[8:11] == pytest.approx((0.42, 19.58, 19.58 / 200))
        assert trip.reason == "signal"
        assert len(left) == 0
        assert closed.duration_ms.tolist() == [20]

    def test_sold_short(self) -> None:
        closed, _ = found(booked(BTC, fills((10, "-0.5", "100"), (20, "0.5", "120"))))
        (trip,) = closed
        assert (trip.short, trip.quantity, trip.entry_price, trip.exit_price) == (True, 0.5, 100.0, 120.0)
        # Sold for 50 and bought back for 60.
        assert (trip.profit, trip.profit_ratio) == (-10.0, -0.2)

    def test_increases_and_decreases_stay_inside(self) -> None:
        rows = fills((1, "1", "100"), (2, "3", "120"), (3, "-2", "130"), (4, "1", "90"), (5, "-3", "110"))
        closed, _ = found(booked(BTC, rows, RATE))
        (trip,) = closed
        # 100 + 360 + 90 = 550 for 5; 260 + 330 = 590 for 5; at most 4 were held. Fees 0.001 * (550 + 590).
        assert (trip.opened_ms, trip.closed_ms, trip.quantity) == (1, 5, 4.0)
        assert (trip.entry_price, trip.exit_price) == (110.0, 118.0)
        assert trip.fees == pytest.approx(1.14)
        assert trip.profit == pytest.approx(40 - 1.14)
        assert trip.profit_ratio == pytest.approx((40 - 1.14) / 550)

    def test_a_reversal_is_an_end_and_a_beginning(self) -> None:
        rows = fills((1, "1", "100"), (2, "-4", "110"), (3, "3", "90"))
        closed, left = found(booked(BTC, rows, RATE))
        first, second = closed
        # Of the 0.44 that selling 4 at 110 costs, a quarter closes the long one and the rest opens the short one.
        assert (first.reason, second.reason) == ("reversal", "signal")
        assert (first.closed_ms, second.opened_ms) == (2, 2)
        assert closed.fees == pytest.approx([0.1 + 0.11, 0.33 + 0.27])
        assert closed.profit == pytest.approx([10 - 0.21, 60 - 0.6])
        assert (second.short, second.quantity, second.entry_price, second.exit_price) == (True, 3.0, 110.0, 90.0)
        assert len(left) == 0

    def test_an_open_one_is_valued_at_the_last_price(self) -> None:
        rows = fills((1, "2", "100"), (2, "-0.5", "120"), (3, "0.5", "80"))
        closed, left = found(booked(BTC, rows, RATE), last_prices=[130.0], end_ms=77)
        assert len(closed) == 0
        (trip,) = left
        # 200 + 40 for 2.5; 60 for 0.5, and 2 are still held, worth 260. Fees 0.001 * 300.
        assert (trip.reason, trip.closed_ms, trip.quantity, trip.held) == ("end of data", 77, 2.0, 2.0)
        assert (trip.entry_price, trip.exit_price) == (96.0, 128.0)
        assert trip.profit == pytest.approx(320 - 240 - 0.3)

    def test_an_open_short_one(self) -> None:
        _, left = found(booked(BTC, fills((1, "-2", "100"))), last_prices=[130.0])
        (trip,) = left
        assert (trip.short, trip.held, trip.profit, trip.profit_ratio) == (True, -2.0, -60.0, -0.3)

    def test_symbols_apart_and_in_the_order_in_which_they_closed(self) -> None:
        rows = [
            Fill(1, 1, Decimal(1), Decimal(10)),
            Fill(2, 0, Decimal(1), Decimal(100)),
            Fill(3, 0, Decimal(-1), Decimal(101)),
            Fill(3, 1, Decimal(-1), Decimal(12)),
            Fill(4, 1, Decimal(1), Decimal(11)),
            Fill(5, 0, Decimal(-1), Decimal(99)),
        ]
        closed, left = found(booked(PAIR, rows), last_prices=[98.0, 15.0])
        assert [(trip.symbol, trip.profit) for trip in closed] == [("BTC/USDT", 1.0), ("ETH/USDT", 2.0)]
        assert [(trip.symbol, trip.profit) for trip in left] == [("ETH/USDT", 4.0), ("BTC/USDT", 1.0)]

    def test_without_fills(self) -> None:
        closed, left = found(booked(PAIR, []), last_prices=[1.0, np.nan])
        assert (len(closed), len(left), list(closed)) == (0, 0, [])
        assert closed.symbols == PAIR

    def test_a_symbol_without_a_price_that_was_never_traded(self) -> None:
        closed, left = found(booked(PAIR, fills((1, "1", "5"), (2, "-1", "6"))), last_prices=[5.0, np.nan])
        assert [trip.profit for trip in closed] == [1.0]
        assert len(left) == 0


class TestFlat:
    def test_tenths_that_do_not_add_up(self) -> None:
        """0.1 + 0.2 - 0.3 is not 0 in binary."""
        closed, left = found(booked(BTC, fills((1, "0.1", "7"), (2, "0.2", "7"), (3, "-0.3", "8"))))
        assert len(left) == 0
        (trip,) = closed
        assert trip.quantity == pytest.approx(0.3, rel=1e-15)

    def test_a_thousand_round_trips_leave_nothing(self) -> None:
        changes = ("0.1", "0.2", "-0.3", "0.0000003", "-0.0000003")
        rows = [(5 * k + place, change, "50000") for k in range(1_000) for place, change in enumerate(changes)]
        closed, left = found(booked(BTC, fills(*rows)))
        assert (len(closed), len(left)) == (2_000, 0)
        # As they were booked, and not as a sum that has seen all the others.
        assert set(closed.quantity.tolist()) == {0.1 + 0.2, 0.0000003}

    def test_one_smallest_step_is_a_position(self) -> None:
        closed, left = found(booked(BTC, fills((1, "0.00000003", "9"), (2, "-0.00000002", "9"))))
        assert (len(closed), len(left)) == (0, 1)

    @pytest.mark.parametrize(
        ("bought", "sold"), [("1.000000004", "-1"), ("1", "-1.000000004"), ("1000000.0001", "-1e6")]
    )
    def test_what_is_too_small_to_be_sold_is_none(self, bought: str, sold: str) -> None:
        """What is left of the first belongs to no round trip, and what it realises to the next."""
        rows = fills((1, bought, "100"), (2, sold, "110"), (3, bought, "100"), (4, sold, "90"))
        trades = booked(BTC, rows)
        closed, left = found(trades)
        assert [(trip.short, trip.reason) for trip in closed] == [(False, "signal")] * 2
        assert len(left) == 0
        assert closed.profit.sum() == pytest.approx(trades.net_pnl, rel=1e-12)

    def test_dust_alone_is_left_open(self) -> None:
        closed, left = found(booked(BTC, fills((1, "0.000000004", "100"), (2, "-0.000000001", "100"))))
        assert (len(closed), len(left)) == (0, 1)
        assert np.isfinite([left.profit, left.profit_ratio, left.entry_price, left.exit_price]).all()


class TestExposure:
    def test_overlaps_count_once(self) -> None:
        rows = [
            Fill(10, 0, Decimal(1), Decimal(1)),
            Fill(20, 1, Decimal(1), Decimal(1)),
            Fill(30, 0, Decimal(-1), Decimal(1)),
            Fill(40, 1, Decimal(-1), Decimal(1)),
            Fill(70, 0, Decimal(1), Decimal(1)),
        ]
        closed, left = found(booked(PAIR, rows), last_prices=[1.0, 1.0], end_ms=100)
        # Held from 10 to 40 and from 70 to 100.
        assert exposure(closed, left, 0, 100) == 0.6

    def test_never_and_no_time(self) -> None:
        closed, left = found(booked(BTC, []))
        assert exposure(closed, left, 0, 100) == 0.0
        assert exposure(closed, left, 100, 100) is None


@dataclass
class Slow:
    """A round trip that a loop adds up, exactly."""

    symbol: int
    opened_ms: int
    short: bool
    held: Fraction = Fraction(0)
    largest: Fraction = Fraction(0)
    entries: list[tuple[Fraction, Fraction]] = field(default_factory=list)
    exits: list[tuple[Fraction, Fraction]] = field(default_factory=list)
    fees: Fraction = Fraction(0)
    closed_ms: int = 0
    reason: str = "end of data"

    def row(self, symbols: tuple[str, ...], last_price: float) -> tuple[Any, ...]:
        """As a RoundTrip that may differ by what rounding makes."""
        held = abs(self.held)
        exits = [*self.exits, *([(held, Fraction(str(last_price)))] if held else [])]
        paid = sum((quantity * price for quantity, price in self.entries), Fraction(0))
        received = sum((quantity * price for quantity, price in exits), Fraction(0))
        entry_price = paid / sum(quantity for quantity, _ in self.entries)
        exit_price = received / sum(quantity for quantity, _ in exits)
        profit = (paid - received if self.short else received - paid) - self.fees
        amounts = [
            pytest.approx(float(exact), rel=1e-11, abs=0.0)
            for exact in (self.largest, self.held, entry_price, exit_price, self.fees)
        ]
        # What is paid and what is received may be nearly the same, and their difference is off as they are.
        profits = pytest.approx(float(profit), abs=1e-11 * float(paid)), pytest.approx(float(profit / paid), abs=1e-11)
        head = (symbols[self.symbol], self.opened_ms, self.closed_ms, self.short)
        return (*head, *amounts, *profits, self.reason)


def slowly(trades: Trades, last_prices: Sequence[float], end_ms: int) -> tuple[list[tuple[Any, ...]], ...]:
    going: dict[int, Slow] = {}
    done = []
    for row in range(len(trades)):
        symbol, time, buy = int(trades.symbol[row]), int(trades.timestamp[row]), bool(trades.buy[row])
        price, quantity, fee = (
            Fraction(str(float(column[row]))) for column in (trades.price, trades.quantity, trades.fee)
        )
        rest = quantity
        trip = going.get(symbol)
        if trip is not None and trip.short is buy:
            part = min(abs(trip.held), quantity)
            trip.exits.append((part, price))
            trip.held += part if buy else -part
            trip.fees += fee * part / quantity
            rest -= part
            if not trip.held:
                trip.closed_ms, trip.reason = time, "reversal" if rest else "signal"
                done.append(going.pop(symbol))
        if rest:
            trip = going.setdefault(symbol, Slow(symbol, time, short=not buy))
            trip.entries.append((rest, price))
            trip.held += rest if buy else -rest
            trip.largest = max(trip.largest, abs(trip.held))
            trip.fees += fee * rest / quantity
    for trip in going.values():
        trip.closed_ms = end_ms
    return tuple(
        [trip.row(trades.symbols, last_prices[trip.symbol]) for trip in some] for some in (done, going.values())
    )


STEPS = ("0.1", "0.00000001", "3", "0.07", "12345.6")
targets = st.lists(
    st.tuples(st.integers(0, 2), st.integers(-3, 3), st.integers(1, 9_999), st.integers(0, 2)), max_size=40
)


@settings(max_examples=200)
@given(targets, st.sampled_from(STEPS), st.sampled_from(["0", "0.001"]), st.booleans())
def test_as_a_plain_loop_finds_them(
    wanted: list[tuple[int, int, int, int]], step: str, fee_rate: str, simple: bool
) -> None:
    rows, now = [], 0
    for symbol, level, price, minutes in wanted:
        now += 60_000 * minutes
        # All in or out, where consecutive fills pair up, or by parts.
        size = (level > 0) - (level < 0) if simple else level
        rows.append((now, symbol, size * Decimal(step), Decimal(price) / 100))
    symbols = ("A/USDT", "B/USDT", "C/USDT")
    trades = booked(symbols, towards(rows), Decimal(fee_rate))
    last_prices, end_ms = [1.5, 20.25, 99.0], now + 1
    closed, left = found(trades, last_prices, end_ms)
    ended, going = slowly(trades, last_prices, end_ms)
    assert list(closed) == ended
    # Those that are open at once are listed as they began.
    assert sorted(left) == sorted(going, key=lambda trip: trip[0])
    assert left.opened_ms.tolist() == sorted(left.opened_ms.tolist())

    # Nothing is lost: what is realised and not realised, and all fees.
    scale = float((trades.price * trades.quantity).sum()) + 1.0
    held = [float(np.where(trades.buy, trades.quantity, -trades.quantity)[trades.symbol == s].sum()) for s in range(3)]
    flow = float(np.where(trades.buy, -1.0, 1.0) @ (trades.price * trades.quantity) - trades.fee.sum())
    worth = flow + float(np.dot(held, last_prices))
    assert closed.profit.sum() + left.profit.sum() == pytest.approx(worth, abs=1e-11 * scale)
    if simple:
        # Nothing of the open ones is realised, but for their fees.
        assert closed.profit.sum() - left.fees.sum() == pytest.approx(trades.net_pnl, abs=1e-11 * scale)
