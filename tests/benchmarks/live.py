"""A live feed on a fake exchange in a process of its own: how late polls start, and how long the loop stands still."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import structlog

from bot.clock import SystemClock
from bot.compose import plans_of, trading_loop
from bot.domain import Block, Market
from bot.exchange.catalogue import Loading
from bot.exchange.client import Access
from bot.feeds.ccxt_ticker import Caution, CcxtTickerFeed
from bot.loop import Pace
from bot.ports import Silent, Window
from bot.repositories import TickRepository, open_database
from bot.settings import load_settings
from tests.benchmarks.scenario import Line
from tests.exchange import markets

ROOT = Path(__file__).resolve().parents[2]
INTERVAL_MS = 500
PROBE_S = 0.002


class Watched:
    """The feed, with the time between each beat and the moment at which its poll begins and ends."""

    def __init__(self, feed: CcxtTickerFeed, clock: SystemClock) -> None:
        self.symbols = feed.symbols
        self._feed, self._clock = feed, clock
        self.late_ms: list[float] = []
        self.took_ms: list[float] = []

    @property
    def markets(self) -> Mapping[str, Market]:
        return self._feed.markets

    async def history(self, before_ms: int, window: Window) -> Block | None:
        return await self._feed.history(before_ms, window)

    async def poll(self, beat_ms: int, polls: int) -> Block:
        began_ms = time.time() * 1000
        self.late_ms.append(began_ms - beat_ms)
        block = await self._feed.poll(beat_ms, polls)
        self.took_ms.append(time.time() * 1000 - began_ms)
        return block

    async def close(self) -> None:
        await self._feed.close()


@contextmanager
def exchange(symbols: int) -> Iterator[str]:
    command = [sys.executable, "-m", "tests.exchange", "--kind", "binance", "--symbols", str(symbols)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()


async def _longest_block(lags: list[float]) -> None:
    """Notes by how much more than it asked for it slept: so long the loop had no time for anybody."""
    while True:
        began = time.perf_counter()
        await asyncio.sleep(PROBE_S)
        lags.append(time.perf_counter() - began - PROBE_S)


async def live_run(url: str, names: list[str], polls: int, ledger: Path) -> dict[str, float]:
    """300 symbols on a 1m strategy; the markets are read anew while it runs. All in milliseconds."""
    symbols = tuple(names)
    settings = load_settings([], [f"storage.path={ledger}"], {}, None)
    access = Access("binance", url, {"rateLimit": 1}, symbols)
    clock = SystemClock()
    log = structlog.wrap_logger(structlog.ReturnLogger(), wrapper_class=structlog.make_filtering_bound_logger(50))
    lags: list[float] = []
    async with asyncio.TaskGroup() as group:
        probe = group.create_task(_longest_block(lags))
        feed = CcxtTickerFeed(access, clock, Caution(5_000), Path(f"{ledger}.markets.json"), log)
        watched = Watched(feed, clock)
        try:
            async with open_database(ledger) as database:
                await asyncio.sleep(0.1)
                lags.clear()
                await feed.start({})
                starting, lags[:] = max(lags), []
                ticks = TickRepository(database)
                pace = Pace(INTERVAL_MS, 30.0, polls // 2, 5_000)
                plans = plans_of(settings)
                loop = await trading_loop(settings, plans, database, ticks, watched, clock, pace, Silent())
                lags.clear()
                await loop.run()
                trading = max(lags)
                lags.clear()
                loading = Loading(access, feed.client.gate)
                pace = Pace(INTERVAL_MS, 30.0, polls, 5_000)
                loop = await trading_loop(settings, plans, database, ticks, watched, clock, pace, Silent())
                await loop.run()
                assert loading.future.done()
                reloading = max(lags)
        finally:
            await feed.close()
            probe.cancel()
    late = sorted(watched.late_ms[2:])
    took = sorted(watched.took_ms)
    return {
        "late p50": late[len(late) // 2],
        "late p99": late[int(len(late) * 0.99)],
        "poll p50": took[len(took) // 2],
        "longest block, start": starting * 1000,
        "longest block, trading": trading * 1000,
        "longest block, markets read anew": reloading * 1000,
    }


def symbols_of(count: int) -> list[str]:
    return [market.symbol for market in markets(count)]


def live(folder: Path, scale: float) -> list[Line]:
    """300 symbols of an exchange of 3,000: when polls start, and how long nothing else could run."""
    polls = max(8, int(120 * scale))
    with exchange(3000) as url:
        found = asyncio.run(live_run(url, symbols_of(300), polls, folder / "live.db"))
    bars = {"late p99": "< 50 ms"} | {name: "< 100 ms" for name in found if name.startswith("longest")}
    return [
        Line(f"300 live symbols: {name}", f"{value:.1f} ms", "", None, bars.get(name, ""))
        for name, value in found.items()
    ]
