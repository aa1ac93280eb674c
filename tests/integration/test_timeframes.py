"""Strategies on candles: the same books whether a tape is lived poll by poll, in blocks, in parts, or replayed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from bot.app import RunOptions, run
from bot.clock import VirtualClock
from bot.compose import plans_of
from bot.domain import Block
from bot.engine import Plan
from bot.feeds import ArrayFeed, ReplayFeed, SimulatedFeed
from bot.feeds.candles import block_of_candles, ladder
from bot.ports import Window
from bot.proof import audited, verified
from bot.repositories import TickRepository, open_database
from bot.service import inspect
from bot.service.stop import StopSignals
from bot.settings import SettingsError, load_settings
from bot.strategies import build
from bot.timeframes import DAY_MS, HOUR_MS, MINUTE_MS, TIMEFRAMES, timeframe_of
from tests.integration.daemon import rows, settings
from tests.integration.test_loop import FEES, MARKETS, START_MS, SYMBOLS, UNIT, Setup, digest_of, everything

INTERVAL_MS = 7_000
POLLS = 900


def plan(timeframe: str, name: str, account: str, **params: Any) -> Plan:
    return Plan(build(name, **params), account, UNIT, timeframe=timeframe_of(timeframe))


def plans() -> list[Plan]:
    return [
        plan("1m", "sma_cross", "minutes", fast=1, slow=4, short=True),
        plan("tick", "donchian_breakout", "ticks", period=12),
        plan("5m", "sma_cross", "fives", fast=1, slow=2, short=True),
        plan("1m", "rsi_reversion", "dips", period=2),
        plan("1h", "sma_cross", "hours", fast=1, slow=2, short=True),
    ]


def setup(ledger: Path) -> Setup:
    return Setup(ledger, plans(), FEES, interval_ms=INTERVAL_MS)


def simulated() -> SimulatedFeed:
    return SimulatedFeed(SYMBOLS, seed=11, volatility=0.001, interval_ms=INTERVAL_MS)


async def until(made: Setup, polls: int, ahead: int, feed: Any = None) -> str:
    made.until = polls
    return await made.run(feed or simulated(), VirtualClock(START_MS, ahead))


def gappy(seed: int, polls: int = POLLS) -> Block:
    """A tape on which symbols come and go for minutes and hours."""
    rng = np.random.default_rng(seed)
    last = np.round(100 + np.cumsum(rng.integers(-9, 10, (3, polls)), axis=1) / 100, 2)
    away = rng.random((3, polls // 30)) < 0.5
    away[rng.integers(0, 3, polls // 30), np.arange(polls // 30)] = False
    last[np.repeat(away, 30, axis=1)] = np.nan
    times = START_MS + np.cumsum(np.where(rng.random(polls) < 0.01, rng.integers(1, 2000, polls), 1)) * INTERVAL_MS
    return Block(SYMBOLS, times, np.round(last - 0.01, 2), np.round(last + 0.01, 2), last)


class TestOneTape:
    async def test_whatever_the_blocks(self, tmp_path: Path) -> None:
        whole = setup(tmp_path / "whole.db")
        digest = await until(whole, POLLS, POLLS)
        expected = everything(whole.ledger)
        assert {row["account"] for row in expected["trades"]} == {each.account for each in plans()}
        for ahead in (1, 13):
            made = setup(tmp_path / f"{ahead}.db")
            assert await until(made, POLLS, ahead) == digest
            assert everything(made.ledger) == expected

    @examples(max_examples=12, deadline=None)
    @given(
        seed=st.integers(0, 1000),
        stops=st.lists(st.integers(1, POLLS), max_size=4),
        aheads=st.lists(st.integers(1, 200), min_size=5, max_size=5),
    )
    def test_whatever_the_restarts(self, seed: int, stops: list[int], aheads: list[int]) -> None:
        async def check(folder: Path) -> None:
            whole, parted = setup(folder / "whole.db"), setup(folder / "parts.db")
            digest = await until(whole, POLLS, POLLS, ArrayFeed(gappy(seed), MARKETS))
            for stop, ahead in zip([*sorted(stops), POLLS], aheads, strict=False):
                await until(parted, stop, ahead, ArrayFeed(gappy(seed), MARKETS))
            assert await digest_of(parted.ledger) == digest
            assert everything(parted.ledger) == everything(whole.ledger)

        with TemporaryDirectory() as folder:
            asyncio.run(check(Path(folder)))

    @pytest.mark.parametrize("record", [True, False], ids=["tape", "no tape"])
    async def test_replayed_in_parts(self, tmp_path: Path, record: bool) -> None:
        recorded = setup(tmp_path / "recorded.db")
        digest = await until(recorded, POLLS, 11)
        again = setup(tmp_path / "again.db")
        again.record = record
        async with open_database(recorded.ledger, read_only=True) as database:
            for stop in (100, 101, 640, POLLS):
                feed = ReplayFeed(TickRepository(database), SYMBOLS, MARKETS, INTERVAL_MS)
                again.until = stop
                await again.run(feed, VirtualClock(await feed.first_ms(), 17))
        assert await digest_of(again.ledger) == digest

    async def test_a_start_reads_the_tape_in_parts(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        digest = await until(setup(tmp_path / "whole.db"), POLLS, POLLS, ArrayFeed(gappy(5), MARKETS))
        monkeypatch.setattr("bot.repositories.ticks.AT_ONCE", 50)
        parted = setup(tmp_path / "parts.db")
        for stop in range(60, POLLS + 1, 60):
            await until(parted, stop, 30, ArrayFeed(gappy(5), MARKETS))
        assert await digest_of(parted.ledger) == digest


STRATEGIES = (
    '[{name="sma_cross", params={fast=1, slow=4}, timeframe="1m", capital=1e6},'
    ' {name="sma_cross", params={fast=1, slow=3, short=true}, timeframe="15m", account="slow", capital=1e6},'
    ' {name="rsi_reversion", account="dips", capital=1e6}]'
)
OTHERS = (
    '[{name="donchian_breakout", params={period=4}, timeframe="3m", account="slow", capital=1e6},'
    ' {name="sma_cross", params={fast=1, slow=2}, capital=1e6, timeframe="1h"}]'
)


def trade(ledger: Path, polls: int, **keys: object) -> str:
    overrides = settings(
        storage__path=ledger, log__level="error", **{"strategy": STRATEGIES, "feed__poll_interval_s": 5, **keys}
    )[1::2]
    summary = asyncio.run(run(load_settings((), overrides), RunOptions(max_speed=True, polls=polls), StopSignals()))
    return summary.digest


def proven(ledger: Path, *, steps: bool = False) -> None:
    audit, verify = asyncio.run(audited(ledger)), asyncio.run(verified(ledger, steps=steps))
    assert audit["ok"], audit
    assert verify["ok"], verify


class TestDaemon:
    def test_in_parts_and_as_one(self, tmp_path: Path) -> None:
        whole = trade(tmp_path / "whole.db", 4_000)
        for polls in (1, 999, 7, 2_000, 993):
            digest = trade(tmp_path / "parts.db", polls)
        assert digest == whole
        for ledger in ("whole.db", "parts.db"):
            proven(tmp_path / ledger)
        accounts = {row[0] for row in rows(tmp_path / "whole.db", "SELECT account FROM trades")}
        assert accounts == {"sma_cross", "slow", "dips"}

    def test_changed_strategies_and_symbols(self, tmp_path: Path) -> None:
        ledger = tmp_path / "ledger.db"
        trade(ledger, 1_000, feed__symbols='["BTC/USDT", "ETH/USDT", "SOL/USDT"]')
        trade(ledger, 400, strategy=OTHERS)
        trade(ledger, 300, strategy=OTHERS, feed__symbols='["BTC/USDT", "SOL/USDT"]')
        trade(ledger, 500, feed__symbols='["ETH/USDT", "SOL/USDT"]')
        trade(ledger, 600, strategy=OTHERS, feed__poll_interval_s=30)
        proven(ledger)
        proven(ledger, steps=True)

    def test_status_at_and_why(self, tmp_path: Path) -> None:
        ledger = tmp_path / "ledger.db"
        trade(ledger, 2_000)
        time, symbol = rows(ledger, "SELECT timestamp, symbol FROM signals WHERE account = 'slow' ORDER BY id")[1]

        async def ask() -> tuple[dict[str, Any], dict[str, Any]]:
            async with open_database(ledger, read_only=True) as database:
                return await inspect.status_at(database, time), await inspect.why(database, symbol, time)

        status, why = asyncio.run(ask())
        assert status["signals"] > 0
        (told,) = [each for each in why["accounts"] if each["account"] == "slow"]
        assert told["last_signal"]["timestamp"] == time

    def test_a_bar_closes_at_the_first_tick_of_the_next_one(self, tmp_path: Path) -> None:
        ledger = tmp_path / "ledger.db"
        trade(ledger, 2_000)
        for account, timeframe in (("sma_cross", "1m"), ("slow", "15m")):
            times = [row[0] for row in rows(ledger, f"SELECT timestamp FROM signals WHERE account = '{account}'")]  # noqa: S608
            assert len(times) > 10
            # At a start the last bar of all is decided on, whenever that was closed.
            assert {time % TIMEFRAMES[timeframe].ms for time in times} == {0}
        fills = "SELECT price, bid, ask FROM trades JOIN quotes USING (symbol, timestamp)"
        assert all(float(price) in (bid, ask) for price, bid, ask in rows(ledger, fills))

    def test_a_bar_without_a_poll(self) -> None:
        overrides = ["feed.poll_interval_s=61", 'strategy=[{name="sma_cross", timeframe="1m"}]']
        with pytest.raises(SettingsError) as caught:
            plans_of(load_settings((), overrides, {}, None))
        assert caught.value.problems == [
            'strategy#1.timeframe = "1m" is shorter than feed.poll_interval_s = 61: every bar needs a poll at least'
        ]
        plans_of(load_settings((), ["feed.poll_interval_s=60", *overrides[1:]], {}, None))

    def test_what_is_looked_back_on_is_recorded(self, tmp_path: Path) -> None:
        trade(tmp_path / "ledger.db", 1)
        (config,) = rows(tmp_path / "ledger.db", "SELECT config FROM runs")[0]
        assert '"bars":{"15m":3,"1m":4}' in config


class Exchange:
    """Has candles of the past, and a price at each beat from the present on."""

    def __init__(self, minutes: int, *, polls: int = 60) -> None:
        rng = np.random.default_rng(3)
        self.symbols, self.markets = SYMBOLS[:1], MARKETS
        prices = np.round(100 + np.cumsum(rng.integers(-9, 10, (minutes, 4)).ravel()) / 100, 2).reshape(minutes, 4)
        self.first_ms = START_MS - minutes * MINUTE_MS
        self.minutes = prices
        last = np.round(100 + rng.integers(-99, 100, (1, polls)) / 100, 2)
        times = START_MS + np.arange(polls, dtype=np.int64) * 20_000
        self._live = ArrayFeed(Block(self.symbols, times, last, last, last), MARKETS)
        self.asked: list[Window] = []

    def candle(self, start_ms: int, length_ms: int) -> tuple[int, float, float, float, float, int]:
        first = (start_ms - self.first_ms) // MINUTE_MS
        four = self.minutes[first : first + length_ms // MINUTE_MS]
        return start_ms, float(four[0, 0]), float(four.max()), float(four.min()), float(four[-1, 3]), length_ms

    async def history(self, before_ms: int, window: Window) -> Block | None:
        self.asked.append(window)
        found = []
        for name, start_ms, end_ms in ladder(window.after_ms, before_ms, window.bars, ("1m", "1h", "1d")):
            length_ms = TIMEFRAMES[name].ms
            found += [self.candle(time, length_ms) for time in range(start_ms, end_ms, length_ms)]
        return block_of_candles(self.symbols, {self.symbols[0]: found})

    async def poll(self, beat_ms: int, polls: int) -> Block | None:
        return await self._live.poll(beat_ms, polls)

    async def close(self) -> None: ...


class TestWarmUp:
    async def test_windows_are_full_at_the_first_poll(self, tmp_path: Path) -> None:
        feed = Exchange(4 * DAY_MS // MINUTE_MS)
        asked = [
            plan("1m", "sma_cross", "minutes", fast=2, slow=30),
            plan("1h", "sma_cross", "hours", fast=2, slow=50, short=True),
        ]
        made = Setup(tmp_path / "ledger.db", asked, FEES, interval_ms=20_000, until=1)
        async with made.loop(feed, VirtualClock(START_MS, 1)) as loop:
            await loop.run()
            for candles in loop.state.candles:
                length_ms = candles.timeframe.ms
                opens = [START_MS - age * length_ms for age in range(candles.count, 0, -1)]
                assert candles.times[0].tolist() == opens
                expected = [feed.candle(start, length_ms)[1:5] for start in opens]
                assert candles.prices[:, 0].T.tolist() == [list(four) for four in expected]
        assert [window.bars for window in feed.asked] == [((TIMEFRAMES["1m"], 30), (TIMEFRAMES["1h"], 50))]
        # Hours up to where the minutes begin, and each of either at most four ticks.
        warmup = rows(made.ledger, "SELECT count(*) FROM ticks WHERE warmup = 1")[0][0]
        assert 100 < warmup <= 4 * (49 + 60)
        assert {row["account"] for row in everything(made.ledger)["signals"]} <= {"minutes", "hours"}
        assert rows(made.ledger, "SELECT min(poll) FROM signals") == [(1,)]

    async def test_what_was_missed_is_filled(self, tmp_path: Path) -> None:
        """Stopped and started again some minutes later: the bars are those of candles and of ticks, without a hole."""
        feed = Exchange(2 * DAY_MS // MINUTE_MS)
        made = Setup(tmp_path / "ledger.db", [plan("1m", "sma_cross", "minutes", fast=2, slow=30)], FEES)
        made.interval_ms, made.until = 20_000, 5
        feed.first_ms += HOUR_MS
        await made.run(feed, VirtualClock(START_MS, 1))
        made.until = 6
        async with made.loop(feed, VirtualClock(START_MS + 10 * MINUTE_MS, 1)) as loop:
            await loop.run()
            assert np.diff(loop.state.candles[0].times[0]).tolist() == [MINUTE_MS] * 29
            assert feed.asked[-1].after_ms == START_MS + 80_000
        assert (
            rows(made.ledger, "SELECT count(DISTINCT timestamp) FROM ticks WHERE timestamp > 1735689680000")[0][0] > 8
        )
