"""What every price feed promises, and what is special to those that play a tape again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.bars import Candles
from bot.domain import Block, Market
from bot.feeds import ArrayFeed, ReplayFeed, SimulatedFeed
from bot.ports import PriceFeed, Window
from bot.repositories import TickRepository, open_database
from bot.timeframes import TIMEFRAMES
from tests.scripted import part

SYMBOLS = ("BTC/USDT", "ETH/USDT", "DOGE/USDT")
MARKETS = {symbol: Market(symbol, Decimal("0.01")) for symbol in SYMBOLS}
INTERVAL_MS = 1000
START_MS = 1_735_689_600_000
POLLS = 60
COLUMNS = ("timestamp", "bid", "ask", "last")

Check = Callable[[PriceFeed], Awaitable[None]]


def tape(polls: int = POLLS, *, seed: int = 3, gaps: float = 0.0) -> Block:
    """Prices of two decimals; every poll has the price of one symbol at least."""
    rng = np.random.default_rng(seed)
    last = np.round(100 + np.cumsum(rng.integers(-5, 6, (len(SYMBOLS), polls)), axis=1) / 100, 2)
    missing = rng.random(last.shape) < gaps
    missing[rng.integers(0, len(SYMBOLS), polls), np.arange(polls)] = False
    last[missing] = np.nan
    timestamp = START_MS + np.arange(polls, dtype=np.int64) * INTERVAL_MS
    return Block(SYMBOLS, timestamp, np.round(last - 0.01, 2), np.round(last + 0.01, 2), last)


def assert_same(actual: Block | None, expected: Block) -> None:
    assert actual is not None
    assert actual.symbols == expected.symbols
    assert actual.warmup == expected.warmup
    for name in COLUMNS:
        assert getattr(actual, name).dtype == getattr(expected, name).dtype
        assert np.array_equal(getattr(actual, name), getattr(expected, name), equal_nan=name != "timestamp"), name


@asynccontextmanager
async def replayed(
    *blocks: Block, symbols: tuple[str, ...] = SYMBOLS, interval_ms: int = INTERVAL_MS
) -> AsyncIterator[ReplayFeed]:
    """A feed on a tape that was recorded block by block."""
    with TemporaryDirectory() as folder:
        ledger = Path(folder) / "ledger.db"
        async with open_database(ledger) as database:
            ticks = TickRepository(database)
            await ticks.register(dict.fromkeys(SYMBOLS, 2))
            for block in blocks:
                async with database.transaction():
                    await ticks.add(block, database.cursor.polls + 1)
                    database.cursor.polls += block.polls
                    database.cursor.timestamp = int(block.timestamp[-1])
        async with open_database(ledger, read_only=True) as database:
            yield ReplayFeed(TickRepository(database), symbols, MARKETS, interval_ms)


@asynccontextmanager
async def from_array() -> AsyncIterator[PriceFeed]:
    yield ArrayFeed(tape(), MARKETS)


@asynccontextmanager
async def one_by_one() -> AsyncIterator[PriceFeed]:
    yield ArrayFeed(tape(), MARKETS, one_by_one=True)


@asynccontextmanager
async def with_gaps() -> AsyncIterator[PriceFeed]:
    yield ArrayFeed(tape(gaps=0.5), MARKETS)


@asynccontextmanager
async def from_tape() -> AsyncIterator[PriceFeed]:
    async with replayed(tape()) as feed:
        yield feed


@asynccontextmanager
async def from_tape_with_gaps() -> AsyncIterator[PriceFeed]:
    async with replayed(tape(gaps=0.5)) as feed:
        yield feed


@asynccontextmanager
async def simulated() -> AsyncIterator[PriceFeed]:
    yield SimulatedFeed(SYMBOLS, seed=3, volatility=0.001, interval_ms=INTERVAL_MS)


@pytest.fixture(
    params=[from_array, one_by_one, with_gaps, from_tape, from_tape_with_gaps, simulated], ids=lambda f: f.__name__
)
def on_feed(request: pytest.FixtureRequest) -> Callable[[Check], None]:
    """Runs a check on a fresh feed of each kind."""

    def run(check: Check) -> None:
        async def checked() -> None:
            async with request.param() as feed:
                await check(feed)
                await feed.close()

        asyncio.run(checked())

    return run


async def read(feed: PriceFeed, sizes: list[int], start_ms: int = START_MS, limit: int = POLLS) -> Block:
    """What ``limit`` polls bring when asked for so many at a time, over and over."""
    blocks: list[Block] = []
    beat_ms, seen = start_ms, 0
    while seen < limit:
        block = await feed.poll(beat_ms, min(sizes[len(blocks) % len(sizes)], limit - seen))
        if block is None:
            break
        blocks.append(block)
        seen += block.polls
        beat_ms = int(block.timestamp[-1]) + INTERVAL_MS
    return Block.joined(blocks)


class TestEveryFeed:
    def test_is_one(self, on_feed: Callable[[Check], None]) -> None:
        async def check(feed: PriceFeed) -> None:
            assert isinstance(feed, PriceFeed)
            assert feed.symbols == SYMBOLS
            assert set(SYMBOLS) <= set(feed.markets)
            assert all(feed.markets[symbol].symbol == symbol for symbol in SYMBOLS)

        on_feed(check)

    def test_a_block_is_of_the_promised_shape(self, on_feed: Callable[[Check], None]) -> None:
        async def check(feed: PriceFeed) -> None:
            block = await feed.poll(START_MS, 20)
            assert block is not None
            assert block.symbols == feed.symbols
            assert 1 <= block.polls <= 20
            assert block.timestamp.dtype == np.int64
            for column in (block.bid, block.ask, block.last):
                assert column.dtype == np.float64
                assert column.shape == (len(SYMBOLS), len(block))
            assert (block.timestamp >= START_MS).all()
            assert (np.diff(block.timestamp) > 0).all()
            missing = np.isnan(block.last)
            assert np.array_equal(missing, np.isnan(block.bid))
            assert np.array_equal(missing, np.isnan(block.ask))
            assert (block.bid <= block.ask)[~missing].all()
            assert (block.bid > 0)[~missing].all()
            assert block.ticks == np.count_nonzero(~missing)

        on_feed(check)

    @pytest.mark.parametrize("sizes", [[1], [7], [1, 2, 30], [1000]], ids=str)
    def test_prices_do_not_depend_on_the_sizes_of_blocks(
        self, on_feed: Callable[[Check], None], sizes: list[int]
    ) -> None:
        found: list[Block] = []

        async def whole(feed: PriceFeed) -> None:
            found.append(await read(feed, [POLLS]))

        async def in_parts(feed: PriceFeed) -> None:
            found.append(await read(feed, sizes))

        on_feed(whole)
        on_feed(in_parts)
        assert len(found[0]) == POLLS
        assert_same(found[1], found[0])

    def test_goes_on_from_any_beat(self, on_feed: Callable[[Check], None]) -> None:
        found: list[Block] = []

        async def whole(feed: PriceFeed) -> None:
            found.append(await read(feed, [POLLS]))

        async def later(feed: PriceFeed) -> None:
            found.append(await read(feed, [10], START_MS + 23 * INTERVAL_MS, POLLS - 23))

        on_feed(whole)
        on_feed(later)
        assert_same(found[1], part(found[0], 23, POLLS))

    def test_history_is_older_and_marked(self, on_feed: Callable[[Check], None]) -> None:
        async def check(feed: PriceFeed) -> None:
            before_ms = START_MS + 30 * INTERVAL_MS
            history = await feed.history(before_ms, Window(10))
            if history is not None:
                assert 1 <= np.isfinite(history.last).sum(axis=1).max() <= 10
                assert history.warmup == len(history)
                assert history.polls == 0
                assert history.timestamp[-1] == before_ms - INTERVAL_MS
                assert (np.diff(history.timestamp) > 0).all()
            following = await feed.poll(before_ms, 1)
            assert following is not None
            assert following.timestamp[0] == before_ms
            assert await feed.history(before_ms, Window(0)) is None

        on_feed(check)

    @pytest.mark.parametrize("ticks", [0, 3])
    @pytest.mark.parametrize("after_s", [0, 12])
    def test_history_makes_bars(self, on_feed: Callable[[Check], None], after_s: int, ticks: int) -> None:
        """Of more than a window holds, too; what is there already does not matter, for the loop leaves it out."""
        minute, three = TIMEFRAMES["1m"], TIMEFRAMES["3m"]

        async def check(feed: PriceFeed) -> None:
            before_ms = START_MS + 50 * INTERVAL_MS
            window = Window(ticks, ((minute, 2), (three, 1)), START_MS + after_s * 1000 if after_s else 0)
            history = await feed.history(before_ms, window)
            assert history is not None
            assert history.warmup == len(history)
            assert (np.diff(history.timestamp) > 0).all()
            assert history.timestamp[-1] == before_ms - INTERVAL_MS
            assert history.after(window.after_ms) is not None
            polled = await read(feed, [50], START_MS, 50)
            made, lived = [Candles.empty(minute, 3, 2).after(block)[0] for block in (history, polled)]
            seen = ~np.isnan(lived.open_prices[0])
            if not isinstance(feed, SimulatedFeed):
                assert np.array_equal(made.open_prices[:, seen], lived.open_prices[:, seen])
            elif not after_s:
                # As far back as is asked for, though it has more prices of that time than it tells.
                assert made.times.tolist() == [[START_MS - 120_000, START_MS - 60_000]] * 3
                assert len(history) < 30
            following = await feed.poll(before_ms, 1)
            assert following is not None

        on_feed(check)

    def test_history_is_what_a_poll_would_have_brought(self, on_feed: Callable[[Check], None]) -> None:
        async def check(feed: PriceFeed) -> None:
            history = await feed.history(START_MS + 30 * INTERVAL_MS, Window(10))
            if history is None:
                pytest.skip("it tells no history by itself")
            polled = await read(feed, [10], START_MS + 20 * INTERVAL_MS, 10)
            # A symbol with gaps has its ten ticks from further back; the last ten beats are all there.
            assert_same(part(history, len(history) - 10, len(history), warmup=10), part(polled, 0, 10, warmup=10))

        on_feed(check)


@pytest.mark.parametrize("source", [from_array, one_by_one, from_tape, from_tape_with_gaps], ids=lambda f: f.__name__)
async def test_a_recording_ends(source: Callable[[], AsyncIterator[PriceFeed]]) -> None:
    async with source() as feed:  # type: ignore[attr-defined]
        everything = await read(feed, [7], limit=10 * POLLS)
        assert len(everything) == POLLS
        for beat_ms in (START_MS + POLLS * INTERVAL_MS, START_MS + 10 * POLLS * INTERVAL_MS):
            assert await feed.poll(beat_ms, 5) is None
            assert await feed.poll(beat_ms, 5) is None


class TestReplay:
    async def test_bit_for_bit(self) -> None:
        recorded = tape(gaps=0.3)
        async with replayed(recorded) as feed:
            assert_same(await feed.poll(START_MS, POLLS), recorded)

    async def test_an_empty_tape_ends_at_once(self) -> None:
        async with replayed() as feed:
            assert await feed.first_ms() == 0
            assert await feed.poll(START_MS, 5) is None

    async def test_the_first_price(self) -> None:
        async with replayed(tape()) as feed:
            assert await feed.first_ms() == START_MS

    async def test_history_comes_as_history(self) -> None:
        """As the daemon records it: history, some polls, a pause, what was missed as history, and more polls."""
        everything = tape()
        first, second = part(everything, 0, 25, warmup=10), part(everything, 30, 60, warmup=5)
        async with replayed(first, second) as feed:
            assert_same(await feed.poll(START_MS, 4), part(everything, 0, 14, warmup=10))
            assert_same(await feed.poll(START_MS + 14_000, 100), part(everything, 14, 25))
            assert_same(await feed.poll(START_MS + 25_000, 2), part(everything, 30, 37, warmup=5))
            assert_same(await feed.poll(START_MS + 37_000, 100), part(everything, 37, 60))
            assert await feed.poll(START_MS + 60_000, 1) is None

    async def test_history_waits_for_a_poll_of_its_symbol(self) -> None:
        whole = tape()
        whole.last[0, 10:30] = whole.bid[0, 10:30] = whole.ask[0, 10:30] = np.nan
        for polls in (1, 7, POLLS):
            async with replayed(replace(whole, warmup=10), symbols=SYMBOLS[:1]) as feed:
                block = await feed.poll(START_MS, polls)
                assert block is not None
                assert (block.warmup, block.timestamp[10]) == (10, START_MS + 30 * INTERVAL_MS)

    async def test_some_of_the_symbols_in_another_order(self) -> None:
        recorded = tape()
        async with replayed(recorded, symbols=(SYMBOLS[2], SYMBOLS[0])) as feed:
            block = await feed.poll(START_MS, POLLS)
        assert block is not None
        assert np.array_equal(block.last, recorded.last[[2, 0]])

    async def test_a_symbol_that_was_rarely_seen(self) -> None:
        """A beat without any wanted price is none of its polls, whatever the size of the block."""
        recorded = tape()
        recorded.last[1, 5:50] = recorded.bid[1, 5:50] = recorded.ask[1, 5:50] = np.nan
        async with replayed(recorded, symbols=(SYMBOLS[1],)) as feed:
            whole = await feed.poll(START_MS, POLLS)
        async with replayed(recorded, symbols=(SYMBOLS[1],)) as feed:
            parts = await read(feed, [3])
        assert whole is not None
        seen = ~np.isnan(recorded.last[1])
        assert np.array_equal(whole.last[0], recorded.last[1, seen])
        assert np.array_equal(whole.timestamp, recorded.timestamp[seen])
        assert_same(parts, whole)

    async def test_another_interval_does_not_change_the_tape(self) -> None:
        async with replayed(tape(), interval_ms=250) as feed:
            beat_ms, times = START_MS, []
            for _ in range(POLLS):
                block = await feed.poll(beat_ms, 1)
                assert block is not None
                times += block.timestamp.tolist()
                beat_ms = times[-1] + 250
        assert times == tape().timestamp.tolist()

    async def test_finer_steps_from_some_time_on(self) -> None:
        coarse, fine = tape(20), tape(40, seed=4)
        last = fine.last + 0.0005
        finer = Block(
            SYMBOLS,
            fine.timestamp + 20 * INTERVAL_MS,
            np.round(last - 0.001, 4),
            np.round(last + 0.001, 4),
            np.round(last, 4),
        )
        async with replayed(coarse, finer) as feed:
            block = await feed.poll(START_MS, 100)
        assert_same(block, Block.joined([coarse, finer]))

    @settings(max_examples=15)
    @given(
        seed=st.integers(0, 1000),
        gaps=st.sampled_from([0.0, 0.2, 0.8]),
        written=st.lists(st.integers(1, 20), min_size=1, max_size=5),
        asked=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    )
    def test_however_written_and_asked(self, seed: int, gaps: float, written: list[int], asked: list[int]) -> None:
        recorded = tape(40, seed=seed, gaps=gaps)
        cuts = [0, *(cut for cut in np.cumsum(written).tolist() if cut < 40), 40]
        blocks = [part(recorded, start, end) for start, end in pairwise(cuts)]

        async def check() -> None:
            async with replayed(*blocks) as feed:
                assert_same(await read(feed, asked, limit=40), recorded)

        asyncio.run(check())


class TestArray:
    async def test_later_beats_skip_rows(self) -> None:
        feed = ArrayFeed(tape(), MARKETS)
        assert_same(await feed.poll(START_MS + 4_500, 3), part(tape(), 5, 8))

    async def test_one_by_one_ignores_how_many_are_wanted(self) -> None:
        feed = ArrayFeed(tape(), MARKETS, one_by_one=True)
        for number in range(3):
            assert_same(await feed.poll(START_MS, 50), part(tape(), number, number + 1))

    async def test_history_before_the_first_row(self) -> None:
        feed = ArrayFeed(tape(), MARKETS)
        assert await feed.history(START_MS, Window(5)) is None
        assert_same(await feed.history(START_MS + 3000, Window(5)), part(tape(), 0, 3, warmup=3))
