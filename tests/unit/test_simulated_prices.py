"""The simulated market: one price per (seed, symbol, beat) however it is asked for, and a market's look."""

from __future__ import annotations

import asyncio
import hashlib
from decimal import Decimal
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.domain import Block, FloatArray
from bot.feeds import SimulatedFeed
from bot.feeds.walk import SEGMENT, Walk
from bot.ports import PriceFeed, Window

SYMBOLS = ("BTC/USDT", "ETH/USDT")
VOLATILITY = 0.0005
NOW_STEP = 1_760_000_000
DECADE_STEPS = 315_576_000
ANCHOR_SPAN = SEGMENT * 4096
GOLDEN = "48b7d05448ec2ccd06b61b373d0f68bc4d77ed6e5ae39e23471e3bb5df56235a"


def make_feed(symbols: tuple[str, ...] = SYMBOLS, *, seed: int = 1, interval_ms: int = 1000) -> SimulatedFeed:
    return SimulatedFeed(symbols, seed=seed, volatility=VOLATILITY, interval_ms=interval_ms)


def make_walk(symbol: str = "BTC/USDT", *, seed: int = 1, volatility: float = VOLATILITY) -> Walk:
    return Walk.of(seed, symbol, base=5_000_000, volatility=volatility)


def poll(feed: SimulatedFeed, step: int, polls: int) -> Block:
    return asyncio.run(feed.poll(step * 1000, polls))


def returns(walk: Walk, start: int = NOW_STEP, steps: int = 400_000) -> FloatArray:
    """One-step log returns of the middle of the quote."""
    bid, ask, _ = walk.quotes(start, start + steps)
    return np.diff(np.log((bid + ask) / 2))


def correlation(first: FloatArray, second: FloatArray) -> float:
    return float(np.corrcoef(first, second)[0, 1])


def autocorrelation(values: FloatArray, lag: int) -> float:
    return correlation(values[:-lag], values[lag:])


def assert_same(actual: list[Block], expected: Block) -> None:
    for name in ("timestamp", "bid", "ask", "last"):
        joined = np.concatenate([getattr(block, name) for block in actual], axis=-1)
        assert joined.tobytes() == np.ascontiguousarray(getattr(expected, name)).tobytes()


class TestOneHistory:
    @settings(max_examples=40)
    @given(
        start=st.integers(NOW_STEP, NOW_STEP + 2 * SEGMENT),
        rows=st.integers(1, 3 * SEGMENT),
        cuts=st.lists(st.integers(0, 3 * SEGMENT), max_size=5),
    )
    def test_any_partition_gives_the_same_bits(self, start: int, rows: int, cuts: list[int]) -> None:
        feed = make_feed()
        edges = sorted({0, rows, *(cut for cut in cuts if cut < rows)})
        parts = [poll(feed, start + low, high - low) for low, high in pairwise(edges)]
        assert_same(parts, poll(make_feed(), start, rows))

    def test_single_polls_equal_one_block_across_a_segment_boundary(self) -> None:
        start = NOW_STEP // SEGMENT * SEGMENT - 150
        feed = make_feed()
        assert_same([poll(feed, start + row, 1) for row in range(300)], poll(make_feed(), start, 300))

    def test_order_of_questions_does_not_matter(self) -> None:
        feed = make_feed()
        late = poll(feed, NOW_STEP + 50_000, 10)
        early = poll(feed, NOW_STEP, 10)
        assert_same([early], poll(make_feed(), NOW_STEP, 10))
        assert_same([late], poll(make_feed(), NOW_STEP + 50_000, 10))

    def test_a_symbol_does_not_depend_on_its_neighbours(self) -> None:
        together = poll(make_feed(), NOW_STEP, 100)
        alone = poll(make_feed(("ETH/USDT",)), NOW_STEP, 100)
        np.testing.assert_array_equal(together.last[1], alone.last[0])

    def test_a_returned_block_is_not_a_view_of_the_cache(self) -> None:
        feed = make_feed()
        poll(feed, NOW_STEP, 10).last[...] = 0
        assert_same([poll(feed, NOW_STEP, 10)], poll(make_feed(), NOW_STEP, 10))

    def test_history_is_what_polls_would_have_seen(self) -> None:
        feed = make_feed()
        history = asyncio.run(feed.history(NOW_STEP * 1000, Window(5000)))
        assert history is not None
        assert_same([history, poll(feed, NOW_STEP, 10)], poll(make_feed(), NOW_STEP - 5000, 5010))

    @pytest.mark.parametrize("step", [-SEGMENT - 1, -1, 0, 1, 10**12, 10**15])
    def test_any_step_can_be_reached(self, step: int) -> None:
        last = poll(make_feed(), step, 2).last
        assert (np.abs(np.log(last / [[50_000], [3_000]])) < 1.5).all()

    def test_golden(self) -> None:
        """Recorded ledgers and published digests rest on these bits: to change them is a breaking change."""
        quotes = make_walk(seed=42).quotes(NOW_STEP, NOW_STEP + 10_000)
        assert hashlib.sha256(quotes.astype("<i8").tobytes()).hexdigest() == GOLDEN


class TestSeeds:
    @pytest.mark.parametrize(
        ("first", "second"),
        [
            (make_walk(seed=1), make_walk(seed=2)),
            (make_walk("BTC/USDT"), make_walk("ETH/USDT")),
            (make_walk("BTC/USDT", seed=11), make_walk("BTC/USDT", seed=1)),
        ],
    )
    def test_walks_of_other_seeds_and_symbols_are_unrelated(self, first: Walk, second: Walk) -> None:
        one, other = returns(first), returns(second)
        assert abs(correlation(one, other)) < 0.01
        assert abs(correlation(np.abs(one), np.abs(other))) < 0.03

    def test_volatility_scales_the_same_noise(self) -> None:
        calm, wild = (returns(make_walk(volatility=volatility)) for volatility in (0.0001, 0.001))
        assert correlation(calm, wild) > 0.999
        assert wild.std() == pytest.approx(10 * calm.std(), rel=0.02)


@pytest.mark.parametrize("seed", [1, 2, 3])
class TestLooksLikeAMarket:
    def test_volatility_is_the_deviation_of_a_return(self, seed: int) -> None:
        assert returns(make_walk(seed=seed)).std() == pytest.approx(VOLATILITY, rel=0.1)

    def test_tails_are_fat(self, seed: int) -> None:
        scaled = returns(make_walk(seed=seed))
        scaled /= scaled.std()
        assert 5 < np.mean(scaled**4) < 15
        assert 10 < np.abs(scaled).max() < 30
        assert abs(np.mean(scaled)) < 0.01

    def test_volatility_comes_in_clusters(self, seed: int) -> None:
        sizes = np.abs(returns(make_walk(seed=seed)))
        assert autocorrelation(sizes, 1) > 0.2
        assert autocorrelation(sizes, 50) > 0.1
        assert autocorrelation(sizes, 300) > 0.03

    def test_returns_cannot_be_told_from_the_last_one(self, seed: int) -> None:
        moves = returns(make_walk(seed=seed))
        assert all(abs(autocorrelation(moves, lag)) < 0.012 for lag in (1, 2, 3, 10, 60))

    def test_no_trend_or_reversion_pays_within_the_hour(self, seed: int) -> None:
        moves = returns(make_walk(seed=seed), steps=1_800_001)
        for steps in (60, 600, 1800):
            ratio = moves.reshape(-1, steps).sum(axis=1).var() / (steps * moves.var())
            assert 0.8 < ratio < 1.25

    def test_quiet_stretches_do_not_drift(self, seed: int) -> None:
        moves = returns(make_walk(seed=seed), steps=1_024_001)
        cells = moves.reshape(-1, 256)
        energy = (cells**2).sum(axis=1)
        quiet = energy < np.quantile(energy, 0.2)
        assert 0.75 < (cells[quiet].sum(axis=1) ** 2).mean() / energy[quiet].mean() < 1.25

    def test_price_stays_sane_for_decades(self, seed: int) -> None:
        walk = make_walk(seed=seed)
        segments = range(0, 6 * DECADE_STEPS // SEGMENT, 250)
        last = np.array([walk.segment(index)[2, ::1024] for index in segments])
        assert 1_500_000 < last.min() < 3_500_000
        assert 7_000_000 < last.max() < 17_000_000

    def test_moves_at_every_poll(self, seed: int) -> None:
        last = make_walk(seed=seed).quotes(NOW_STEP, NOW_STEP + 10_000)[2]
        assert np.mean(np.diff(last) != 0) > 0.99


class TestSeams:
    def border_moves(self, walk: Walk, borders: range) -> FloatArray:
        quotes = np.array([walk.quotes(step - 1, step + 1)[:2].sum(axis=0) for step in borders])
        moves: FloatArray = np.diff(np.log(quotes), axis=1)[:, 0]
        return moves

    def test_steps_between_segments_are_like_any_other(self) -> None:
        start = NOW_STEP // SEGMENT * SEGMENT
        moves = self.border_moves(make_walk(), range(start, start + 1000 * SEGMENT, SEGMENT))
        assert np.abs(moves).max() < 30 * VOLATILITY
        assert moves.std() == pytest.approx(VOLATILITY, rel=0.25)

    def test_steps_across_anchors_are_like_any_other(self) -> None:
        moves = self.border_moves(make_walk(), range(0, 120 * ANCHOR_SPAN, ANCHOR_SPAN))
        assert np.abs(moves).max() < 30 * VOLATILITY
        assert moves.std() == pytest.approx(VOLATILITY, rel=0.5)


class TestQuotes:
    @pytest.mark.parametrize("volatility", [1e-9, 1e-6, 0.0005, 0.02, 0.1])
    @pytest.mark.parametrize("base", [1, 10_000, 5_000_000])
    def test_bid_below_ask_and_last_within(self, volatility: float, base: int) -> None:
        walk = Walk.of(7, "X/USDT", base=base, volatility=volatility)
        for index in range(0, 3000, 100):
            bid, ask, last = walk.segment(index)
            assert bid.min() >= 1
            assert (bid < ask).all()
            assert (bid <= last).all()
            assert (last <= ask).all()

    def test_trades_happen_at_both_sides_and_between(self) -> None:
        bid, ask, last = make_walk().quotes(NOW_STEP, NOW_STEP + 50_000)
        assert np.mean(last == bid) == pytest.approx(0.375, abs=0.02)
        assert np.mean(last == ask) == pytest.approx(0.375, abs=0.02)

    def test_spread_is_narrow_and_widens_with_volatility(self) -> None:
        bid, ask, _ = make_walk().quotes(NOW_STEP, NOW_STEP + 400_000)
        spread = (ask - bid) / bid
        assert 1e-5 < spread.mean() < 1e-4
        moves = np.abs(np.diff(np.log(bid)))
        assert correlation(spread[:-1], moves) > 0.2

    def test_prices_are_the_doubles_their_text_reads_as(self) -> None:
        block = poll(make_feed((*SYMBOLS, "DOGE/USDT")), NOW_STEP, 3000)
        for prices in (block.bid, block.ask, block.last):
            values = prices.ravel().tolist()
            assert values == [round(value, 2) for value in values]
            assert values == [float(f"{value:.2f}") for value in values]


class TestFeed:
    def test_is_a_price_feed(self) -> None:
        feed = make_feed()
        assert isinstance(feed, PriceFeed)
        assert feed.symbols == SYMBOLS
        asyncio.run(feed.close())

    def test_block_shape(self) -> None:
        block = poll(make_feed(), NOW_STEP, 70_000)
        assert block.symbols == SYMBOLS
        assert (len(block), block.polls, block.ticks) == (70_000, 70_000, 140_000)
        assert block.timestamp.dtype == np.int64
        assert block.timestamp[0] == NOW_STEP * 1000
        assert (np.diff(block.timestamp) == 1000).all()
        for prices in (block.bid, block.ask, block.last):
            assert prices.shape == (2, 70_000)
            assert prices.dtype == np.float64

    def test_history_ends_at_the_beat_before(self) -> None:
        feed = make_feed(interval_ms=250)
        for before_ms in (10_000, 9_999, 9_751):
            block = asyncio.run(feed.history(before_ms, Window(3)))
            assert block is not None
            assert block.timestamp.tolist() == [9_250, 9_500, 9_750]
            assert (block.warmup, block.polls) == (3, 0)

    @pytest.mark.parametrize("count", [0, -1])
    def test_no_history(self, count: int) -> None:
        assert asyncio.run(make_feed().history(10_000, Window(count))) is None

    def test_markets(self) -> None:
        markets = make_feed((*SYMBOLS, "SOL/USDT")).markets
        steps = {symbol: market.amount_step for symbol, market in markets.items()}
        assert steps == {
            "BTC/USDT": Decimal("0.00001"),
            "ETH/USDT": Decimal("0.0001"),
            "SOL/USDT": Decimal("0.001"),
        }
        assert {market.price_step for market in markets.values()} == {Decimal("0.01")}
        assert {market.min_cost for market in markets.values()} == {Decimal(5)}

    def test_prices_start_from_the_base_currency(self) -> None:
        block = poll(make_feed(("BTC/USDT", "ETH/BTC", "SOL/USDT")), NOW_STEP, 1)
        assert (np.abs(np.log(block.last[:, 0] / [50_000, 3_000, 100])) < 1).all()

    def test_poll_does_not_wait(self) -> None:
        with pytest.raises(StopIteration):
            make_feed().poll(NOW_STEP * 1000, 1).send(None)

    @pytest.mark.parametrize("volatility", [0.0, -0.1, 0.11, float("nan"), float("inf")])
    def test_refuses_a_volatility_out_of_range(self, volatility: float) -> None:
        with pytest.raises(ValueError, match="volatility"):
            SimulatedFeed(SYMBOLS, seed=1, volatility=volatility, interval_ms=1000)

    def test_refuses_an_interval_below_one_millisecond(self) -> None:
        with pytest.raises(ValueError, match="interval_ms"):
            make_feed(interval_ms=0)
