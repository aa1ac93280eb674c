"""What a venue says, and what of it is traded on: whatever comes in, what comes out is a market that could exist."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.domain import Block
from bot.feeds.screen import (
    AHEAD_MAX_MS,
    CROSSED,
    FROM_THE_FUTURE,
    JUMP,
    LAST_OFF,
    MISSING,
    NOT_A_NUMBER,
    NOT_POSITIVE,
    OUT_OF_ORDER,
    OUT_OF_RANGE,
    REASONS,
    STALE,
    UNCONFIRMED,
    Quote,
    Screen,
)
from bot.repositories import TickRepository, open_database

BTC, ETH = "BTC/USDT", "ETH/USDT"
BEAT, STEP = 1_750_000_000_000, 1000
STALE_AFTER = 10_000
CONFIRMATIONS = 3
GOOD = Quote(61_000.5, 61_001.0, 61_000.75, BEAT)


def at(price: float, timestamp: int | None = None) -> Quote:
    return Quote(price, price, price, timestamp)


def screen(**options: Any) -> Screen:
    """One that knows what BTC and ETH cost."""
    options = {"stale_after_ms": STALE_AFTER, "levels": {BTC: 61_000.0, ETH: 3_000.0}, **options}
    return Screen((BTC, ETH), **options)


def only(screen: Screen, quote: Quote, beat_ms: int = BEAT) -> tuple[float, float, float] | str:
    """What is taken of a quote of BTC, or the reason why nothing is."""
    before = dict(screen.counts)
    block = screen.block(beat_ms, {BTC: quote})
    bid, ask, last = block.bid[0, 0], block.ask[0, 0], block.last[0, 0]
    if last == last:
        return float(bid), float(ask), float(last)
    assert bid != bid
    assert ask != ask
    (reason,) = (
        reason for (symbol, reason), n in screen.counts.items() if symbol == BTC and n != before.get((BTC, reason), 0)
    )
    return reason


def verdicts(screen: Screen, quotes: Iterable[Quote]) -> list[str | float]:
    """For quotes a beat apart, the last price that was taken or the reason."""
    found = [only(screen, quote, BEAT + number * STEP) for number, quote in enumerate(quotes)]
    return [answer if isinstance(answer, str) else answer[2] for answer in found]


class TestOneQuote:
    def test_is_taken_as_the_venue_wrote_it(self) -> None:
        assert only(screen(), GOOD) == (61_000.5, 61_001.0, 61_000.75)

    @pytest.mark.parametrize(
        ("quote", "reason"),
        [
            (GOOD._replace(bid=None), MISSING),
            (GOOD._replace(ask=None), MISSING),
            (Quote(None, None, 61_000.0, BEAT), MISSING),
            (GOOD._replace(bid=math.nan), NOT_A_NUMBER),
            (GOOD._replace(ask=math.inf), NOT_A_NUMBER),
            (GOOD._replace(last=-math.inf), NOT_A_NUMBER),
            (GOOD._replace(last=math.nan), NOT_A_NUMBER),
            (GOOD._replace(bid="61000.5"), NOT_A_NUMBER),
            (GOOD._replace(bid=""), NOT_A_NUMBER),
            (GOOD._replace(last=True), NOT_A_NUMBER),
            (GOOD._replace(ask=[61_001.0]), NOT_A_NUMBER),
            (GOOD._replace(ask=61_001 + 0j), NOT_A_NUMBER),
            (GOOD._replace(ask=10**400), NOT_A_NUMBER),
            (GOOD._replace(ask=Decimal("sNaN")), NOT_A_NUMBER),
            (GOOD._replace(timestamp=1.5), NOT_A_NUMBER),  # type: ignore[arg-type]
            (GOOD._replace(timestamp="now"), NOT_A_NUMBER),  # type: ignore[arg-type]
            (GOOD._replace(timestamp=True), NOT_A_NUMBER),
            (GOOD._replace(bid=0.0), NOT_POSITIVE),
            (GOOD._replace(last=0), NOT_POSITIVE),
            (Quote(-61_000.5, -61_000.0, -61_000.0, BEAT), NOT_POSITIVE),
            (at(10.0**15), OUT_OF_RANGE),
            (GOOD._replace(last=61_000.840000000004), OUT_OF_RANGE),
            (at(5e-324), OUT_OF_RANGE),
            (GOOD._replace(bid=61_001.01, last=61_001), CROSSED),
            (GOOD._replace(last=66_000.0), LAST_OFF),
            (GOOD._replace(last=57_000.0), LAST_OFF),
            (GOOD._replace(timestamp=BEAT + AHEAD_MAX_MS + 1), FROM_THE_FUTURE),
            (GOOD._replace(timestamp=BEAT * 1000), FROM_THE_FUTURE),
            (GOOD._replace(timestamp=10**30), FROM_THE_FUTURE),
            (GOOD._replace(timestamp=BEAT - STALE_AFTER - 1), STALE),
            (GOOD._replace(timestamp=BEAT // 1000), STALE),
            (GOOD._replace(timestamp=0), STALE),
            (at(61_000_000.0), JUMP),
            (at(61.0), JUMP),
            (Quote(1.0, 121_999.0, None, None), JUMP),
            (Quote(61_000.0, 90_000.0, None, None), JUMP),
        ],
        ids=str,
    )
    def test_is_refused(self, quote: Quote, reason: str) -> None:
        assert only(screen(), quote) == reason

    @pytest.mark.parametrize(
        "quote",
        [
            GOOD._replace(ask=GOOD.bid),
            GOOD._replace(last=58_000),
            GOOD._replace(last=64_000.0),
            GOOD._replace(timestamp=None),
            GOOD._replace(timestamp=BEAT - STALE_AFTER),
            GOOD._replace(timestamp=BEAT + AHEAD_MAX_MS),
            Quote(61_000, Decimal("61000.5"), Fraction(122_001, 2), BEAT),
            Quote(np.float64(61_000.5), np.int64(61_001), np.float64(61_001), np.int64(BEAT)),  # type: ignore[arg-type]
            at(49_000.0),
            at(73_000.0),
        ],
        ids=str,
    )
    def test_is_taken(self, quote: Quote) -> None:
        found = only(screen(), quote)
        assert found == (float(quote.bid), float(quote.ask), float(quote.last))

    def test_every_reason_is_explained(self) -> None:
        assert len(REASONS) == 11
        for reason, text in REASONS.items():
            assert reason == reason.lower().replace(" ", "_")
            assert text

    @pytest.mark.parametrize("keys", [{}, {BTC: None}])
    def test_a_symbol_that_is_not_there(self, keys: dict[str, Any]) -> None:
        gate = screen()
        block = gate.block(BEAT, {**keys, ETH: at(3_000.0), "DOGE/USDT": at(1.0)})
        assert block.symbols == (BTC, ETH)
        assert block.timestamp.tolist() == [BEAT]
        assert np.isnan(block.last[0, 0])
        assert block.last[1, 0] == 3_000.0
        assert gate.counts == {(BTC, MISSING): 1}


class TestWithoutALast:
    def test_the_last_trade_moved_to_what_is_offered(self) -> None:
        quotes = [(100.0, 102.0, 101.0), (100.0, 102.0, None), (101.5, 102.0, None), (99.0, 100.5, None)]
        found = verdicts(screen(levels={BTC: 100.0}), [Quote(*quote, None) for quote in quotes])
        assert found == [101.0, 101.0, 101.5, 100.5]

    def test_the_bid_where_there_never_was_one(self) -> None:
        assert only(screen(), GOOD._replace(last=None)) == (61_000.5, 61_001.0, 61_000.5)


class TestTime:
    def test_an_older_quote_than_the_last_one(self) -> None:
        gate = screen()
        stamps = [BEAT, BEAT - 1, BEAT, None, BEAT - 1, BEAT + 1]
        found = [only(gate, GOOD._replace(timestamp=stamp)) for stamp in stamps]
        taken = (61_000.5, 61_001.0, 61_000.75)
        assert found == [taken, OUT_OF_ORDER, taken, taken, OUT_OF_ORDER, taken]

    def test_a_wrong_stamp_silences_a_symbol_for_a_minute_at_most(self) -> None:
        gate = screen()
        assert only(gate, at(61_000.0, BEAT + AHEAD_MAX_MS)) != FROM_THE_FUTURE
        found = [
            only(gate, at(61_000.0, BEAT + later), BEAT + later) for later in range(STEP, AHEAD_MAX_MS + 2 * STEP, STEP)
        ]
        assert found[:59] == [OUT_OF_ORDER] * 59
        assert OUT_OF_ORDER not in found[59:]

    def test_one_tolerance_for_polls_that_are_far_apart(self) -> None:
        later = GOOD._replace(timestamp=BEAT + 3_000_000)
        assert only(screen(), later) == FROM_THE_FUTURE
        assert only(screen(ahead_max_ms=3_600_000), later) == GOOD[:3]


class TestJumps:
    def test_one_absurd_price_does_not_pass(self) -> None:
        assert verdicts(screen(), [at(61_000.0), at(61_000_000.0), at(61_001.0)]) == [61_000.0, JUMP, 61_001.0]

    def test_a_market_that_moved_is_let_in(self) -> None:
        quotes = [at(61_000.0), *[at(30_000.0 + 10 * number) for number in range(5)]]
        assert verdicts(screen(), quotes) == [61_000.0, JUMP, JUMP, JUMP, 30_030.0, 30_040.0]

    def test_a_market_that_goes_on_moving_is_let_in(self) -> None:
        prices = [61_000.0, 40_000.0, 33_000.0, 27_000.0, 22_000.0, 18_000.0]
        assert verdicts(screen(), map(at, prices)) == [61_000.0, JUMP, JUMP, JUMP, 22_000.0, 18_000.0]

    def test_a_price_from_before_begins_the_count_again(self) -> None:
        prices = [30_000.0, 30_000.0, 30_000.0, 61_000.0, 30_000.0, 30_000.0, 30_000.0, 30_000.0]
        assert verdicts(screen(), map(at, prices)) == [JUMP, JUMP, JUMP, 61_000.0, JUMP, JUMP, JUMP, 30_000.0]

    def test_another_level_begins_the_count_again(self) -> None:
        prices = [30_000.0, 30_000.0, 30_000.0, 5.0, 5.0, 5.0, 5.0]
        assert verdicts(screen(), map(at, prices)) == [JUMP] * 6 + [5.0]

    def test_a_quote_that_is_refused_anyway_says_nothing(self) -> None:
        quotes = [at(30_000.0), at(30_000.0), GOOD._replace(bid=None), at(30_000.0), at(30_000.0)]
        assert verdicts(screen(), quotes) == [JUMP, JUMP, MISSING, JUMP, 30_000.0]

    def test_the_same_quote_again_confirms_nothing(self) -> None:
        same = [at(30_000.0, BEAT)] * 9
        assert verdicts(screen(), same) == [JUMP] * 9
        fresh = [at(30_000.0, BEAT + number * STEP) for number in range(4)]
        assert verdicts(screen(), fresh) == [JUMP] * 3 + [30_000.0]

    def test_each_side_is_looked_at(self) -> None:
        gate = screen(levels={BTC: 100.0})
        assert only(gate, Quote(99.0, 101.0, 100.0, None)) == (99.0, 101.0, 100.0)
        assert only(gate, Quote(99.0, 140.0, 100.0, None)) == JUMP
        assert only(gate, Quote(60.0, 101.0, 100.0, None)) == JUMP

    def test_none_wanted(self) -> None:
        gate = screen(confirmations=0, levels=None)
        assert verdicts(gate, map(at, [5.0, 61_000.0])) == [5.0, 61_000.0]


class TestTheFirstQuote:
    def test_needs_a_second_one(self) -> None:
        assert verdicts(screen(levels=None), map(at, [61_000_000.0, 61_000.0, 61_001.0])) == [
            UNCONFIRMED,
            UNCONFIRMED,
            61_001.0,
        ]

    @pytest.mark.parametrize("level", [math.nan, math.inf, 0.0, -1.0])
    def test_a_level_that_is_no_price_is_none(self, level: float) -> None:
        assert verdicts(screen(levels={BTC: level}), [at(5.0), at(5.0)]) == [UNCONFIRMED, 5.0]


class TestWhoIsTold:
    def test_only_what_changes(self) -> None:
        heard: list[tuple[str, str]] = []
        gate = screen(refused=lambda symbol, reason, quote: heard.append((symbol, reason)))
        for quote in [at(-1.0)] * 5 + [at(61_000.0)] + [at(-1.0)] * 2 + [at(5.0)] * 2:
            gate.block(BEAT, {BTC: quote, ETH: at(3_000.0)})
        assert heard == [(BTC, NOT_POSITIVE), (BTC, NOT_POSITIVE), (BTC, JUMP)]
        assert gate.counts == {(BTC, NOT_POSITIVE): 7, (BTC, JUMP): 2}

    def test_with_the_quote(self) -> None:
        heard: list[Quote] = []
        screen(refused=lambda symbol, reason, quote: heard.append(quote)).block(BEAT, {BTC: at(-1.0), ETH: at(3_000.0)})
        assert heard == [at(-1.0)]


@pytest.mark.parametrize(
    "options",
    [
        {"stale_after_ms": 0},
        {"jump_max": 0.0},
        {"jump_max": math.nan},
        {"confirmations": -1},
        {"ahead_max_ms": -1},
    ],
)
def test_what_it_cannot_work_with(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        screen(**options)


anything = st.one_of(
    st.sampled_from(
        [None, True, "61000", "", 0, -0.0, math.nan, math.inf, 10**400, Decimal("NaN"), 61_000.0, 61_000.5]
    ),
    st.floats(),
    st.integers(),
)
stamps = st.one_of(st.none(), st.integers(BEAT - 90_000, BEAT + 90_000), st.sampled_from([1.5, "now", -1, 0, 10**30]))
raw = st.builds(Quote, anything, anything, anything, stamps)
plausible = st.builds(
    lambda cents, spread, timestamp: Quote(cents / 100, (cents + spread) / 100, None, timestamp),
    st.integers(5_000_000, 7_000_000),
    st.integers(-10, 1000),
    st.one_of(st.none(), st.integers(BEAT - 20_000, BEAT + 20_000)),
)
quotes = st.one_of(plausible, raw)
good_prices = st.integers(6_000_000, 6_200_000).map(lambda cents: cents / 100)
absurd_prices = st.one_of(st.floats(1e-12, 40_000), st.floats(80_000, 1e14))


class TestWhateverComesIn:
    @given(st.lists(st.fixed_dictionaries({}, optional={BTC: quotes, ETH: quotes, "X/Y": quotes}), max_size=10))
    def test_what_comes_out_could_be_a_market(self, polls: Sequence[dict[str, Quote]]) -> None:
        gate = screen(levels=None, confirmations=1)
        newest = {BTC: -1, ETH: -1}
        refused = 0
        for number, poll in enumerate(polls):
            beat = BEAT + number * STEP
            block = gate.block(beat, poll)
            assert (block.symbols, block.timestamp.tolist(), block.warmup) == ((BTC, ETH), [beat], 0)
            prices = np.array([block.bid, block.ask, block.last])
            seen = block.last[:, 0] == block.last[:, 0]
            assert (np.isnan(prices).all(axis=0)[:, 0] == ~seen).all()
            taken = prices[:, seen, 0]
            assert np.isfinite(taken).all()
            assert (taken > 0).all()
            assert (taken[0] <= taken[1]).all()
            for symbol in np.array([BTC, ETH])[seen].tolist():
                quote = poll[symbol]
                row = (BTC, ETH).index(symbol)
                assert (prices[0, row, 0], prices[1, row, 0]) == (float(quote.bid), float(quote.ask))
                if quote.last is not None:
                    assert prices[2, row, 0] == float(quote.last)
                if quote.timestamp is not None:
                    assert max(newest[symbol], beat - STALE_AFTER) <= quote.timestamp <= beat + AHEAD_MAX_MS
                    newest[symbol] = quote.timestamp
            refused += int(np.count_nonzero(~seen))
        assert sum(gate.counts.values()) == refused

    @given(st.lists(good_prices, min_size=1, max_size=30), st.data())
    def test_a_single_absurd_price_never_passes(self, prices: list[float], data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(prices)))
        absurd = data.draw(absurd_prices)
        side = data.draw(st.sampled_from(["bid", "ask", "both"]))
        wrong = at(absurd)
        if side != "both":
            price = prices[min(place, len(prices) - 1)]
            bid, ask = (absurd, price) if side == "bid" else (price, absurd)
            wrong = Quote(bid, ask, None, None)
        stream = [at(price) for price in prices]
        stream.insert(place, wrong)
        known = data.draw(st.booleans())
        found = verdicts(screen(levels={BTC: 61_000.0} if known else None), stream)
        assert isinstance(found[place], str)
        taken = [answer for answer in found if not isinstance(answer, str)]
        # Nothing else is lost for it, but where nothing was known before: there the first good one needs a second, and
        # right after it if what comes between could be a price at all.
        lost = {0} if known else {0, 1, 2} if place == 1 else {0, 1}
        assert len(prices) - len(taken) in lost
        assert taken == prices[len(prices) - len(taken) :]

    @given(st.lists(quotes, max_size=20), st.floats(1e-6, 1e9), st.integers(0, 2**32))
    def test_nobody_is_locked_out(self, garbage: list[Quote], level: float, seed: int) -> None:
        """After anything at all, a market that is there is taken as soon as wrong stamps can no longer be ahead of
        it and it has confirmed itself."""
        gate = screen(levels=None)
        verdicts(gate, garbage)
        rng = np.random.default_rng(seed)
        level = float(f"{level:.6g}")
        beat = BEAT + len(garbage) * STEP + AHEAD_MAX_MS
        for number in range(20):
            beat += STEP
            price = float(f"{level * (1 + rng.uniform(-0.02, 0.02)):.8g}")
            found = only(gate, at(price, beat), beat)
            assert (
                (found == (price, price, price))
                if number >= CONFIRMATIONS
                else found in {JUMP, UNCONFIRMED, (price,) * 3}
            )

    @given(st.lists(good_prices, min_size=1, max_size=10), st.floats(1e-6, 1e6), st.integers(0, 6))
    def test_a_true_change_passes_after_the_confirmations(
        self, before: list[float], factor: float, confirmations: int
    ) -> None:
        if 1 / 1.3 <= factor <= 1.3:
            factor = 2.0
        after = [float(f"{price * factor:.10g}") for price in [before[-1]] * (confirmations + 3)]
        found = verdicts(screen(confirmations=confirmations), map(at, [*before, *after]))
        assert found[len(before) :] == [JUMP] * confirmations + after[confirmations:]


async def test_the_tape_holds_all_that_passes(tmp_path: Path) -> None:
    """The gate's idea of what can be stored is the tape's."""
    rng = np.random.default_rng(4)
    prices = [float(f"{10.0 ** rng.uniform(-9, 14):.{digits}g}") for digits in range(1, 18) for _ in range(40)]
    async with open_database(tmp_path / "ledger.db") as ledger:
        tape = TickRepository(ledger)
        blocks: list[Block] = []
        for number, price in enumerate(prices):
            symbol = f"S{number}/USDT"
            gate = Screen((symbol,), stale_after_ms=STALE_AFTER, levels={symbol: price})
            block = gate.block(BEAT + number, {symbol: at(price)})
            if block.ticks:
                blocks.append(block)
        assert len(blocks) > 300
        async with ledger.transaction():
            for number, block in enumerate(blocks, start=1):
                await tape.add(block, number)
        read = await ledger.fetch("SELECT symbol, last FROM quotes ORDER BY id")
    assert read == [(block.symbols[0], float(block.last[0, 0])) for block in blocks]
