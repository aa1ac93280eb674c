"""The measurements. Each returns lines for the table: what, the figure, the reference's figure, and their ratio."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bot.app import RunOptions, run
from bot.compose import tune_collector
from bot.ports import Strategy
from bot.service.stop import StopSignals
from bot.settings import Settings, load_settings
from bot.strategies import build
from tests.benchmarks.live import live
from tests.benchmarks.reference import BareCommits, block_loop, bulk_insert_s
from tests.benchmarks.scenario import BLOCK_TICKS, Flip, Line, loop_over, tape

ROOT = Path(__file__).resolve().parents[2]


def recording(folder: Path, scale: float) -> list[Line]:
    """``run --max-speed`` with ticks recorded, against a bare executemany of as many rows."""
    polls = max(1_000, int(250_000 * scale))
    ratios, speeds, bare = [], [], []
    for turn in range(3):
        settings = load_settings([], [f"storage.path={folder}/recording{turn}.db", "log.level=error"], {}, None)
        start = time.perf_counter()
        _run(settings, RunOptions(max_speed=True, polls=polls))
        ours = 2 * polls / (time.perf_counter() - start)
        rows = [
            (n, n & 1, 1_735_689_600_000 + n, 5_000_012 + n, 5_000_112 + n, 5_000_112 + n, 0) for n in range(2 * polls)
        ]
        reference = len(rows) / bulk_insert_s(folder / f"bulk{turn}.db", rows, BLOCK_TICKS)
        speeds.append(ours)
        bare.append(reference)
        ratios.append(ours / reference)
    name = "run --max-speed, 2 symbols, 2 strategies, recorded"
    return [Line(name, _rate(speeds), _rate(bare), statistics.median(ratios), ">= 0.5")]


def replay(folder: Path, scale: float) -> list[Line]:
    """sma_cross 10/30 over the tape, each fill a durable signal, order and trade."""
    one, many = tape(1, max(2_000, int(1_000_000 * scale))), tape(100, max(2_000, int(20_000 * scale)))
    lines = []
    cases = (
        ("replay, 1 symbol, blocks of 65,536", one, BLOCK_TICKS, False, ">= 1.5M ticks/s"),
        ("replay, 100 symbols, blocks of 655 polls", many, BLOCK_TICKS // 100, False, ">= 2.5M ticks/s"),
        ("replay, 1 symbol, one poll a beat, commits of 1,024", one, 1024, True, ">= 150k ticks/s"),
    )
    for number, (name, block, ahead, one_by_one, bar) in enumerate(cases):
        ratios, speeds, bare = [], [], []
        for turn in range(3):
            path = folder / f"replay{number}-{turn}"
            start = time.perf_counter()
            fills = asyncio.run(_replay(block, path.with_suffix(".db"), ahead, one_by_one))
            ours = block.last.size / (time.perf_counter() - start)
            seconds, expected = block_loop(block, 10, 30, ahead, path.with_suffix(".ref"))
            if fills != expected:
                raise AssertionError(f"{name}: {fills} fills, the reference has {expected}")
            speeds.append(ours)
            bare.append(block.last.size / seconds)
            ratios.append(ours * seconds / block.last.size)
        lines.append(Line(f"{name} ({fills:,} fills)", _rate(speeds), _rate(bare), statistics.median(ratios), bar))
    return lines


def replay_of_a_ledger(folder: Path, scale: float) -> list[Line]:
    """``run`` with feed.kind = "replay" from the file of a recorded session, against the run that recorded it."""
    polls = max(1_000, int(250_000 * scale))
    recorded = folder / "source.db"
    common = ["log.level=error", 'strategy=[{name="sma_cross", quantity=0.01, capital=100000000}]']
    start = time.perf_counter()
    settings = load_settings([], [f"storage.path={recorded}", *common], {}, None)
    _run(settings, RunOptions(max_speed=True, polls=polls))
    recording_s = time.perf_counter() - start
    target = [f"storage.path={folder}/again.db", "storage.record_ticks=false", *common]
    settings = load_settings([], [*target, "feed.kind=replay", f"feed.replay.path={recorded}"], {}, None)
    start = time.perf_counter()
    _run(settings, RunOptions())
    seconds = time.perf_counter() - start
    name = "replay of a recorded ledger's file, 2 symbols"
    return [Line(name, _rate([2 * polls / seconds]), _rate([2 * polls / recording_s]), recording_s / seconds, "")]


def proof(folder: Path, scale: float) -> list[Line]:
    """audit and verify of a recorded session of a million ticks, as processes, and the start on it."""
    polls = max(1_000, int(500_000 * scale))
    ledger = folder / "session.db"
    settings = load_settings([], [f"storage.path={ledger}", "log.level=error"], {}, None)
    start = time.perf_counter()
    _run(settings, RunOptions(max_speed=True, polls=polls))
    recording_s = time.perf_counter() - start
    lines = []
    for verb, bar in (("verify", "< 5 s"), ("audit", "")):
        start = time.perf_counter()
        command = [sys.executable, "main.py", verb, "--set", f"storage.path={ledger}"]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        seconds = time.perf_counter() - start
        figure, reference = f"{seconds:.2f} s", f"{recording_s:.2f} s (recording it)"
        lines.append(Line(f"{verb} of {2 * polls:,} ticks", figure, reference, seconds / recording_s, bar))
    return lines


def latency(folder: Path, scale: float) -> list[Line]:
    """From a price in hand to its trades on the disk, a poll at a time, ticks recorded."""
    steps = max(20, int(400 * scale))
    five = ["sma_cross", "ema_cross", "macd", "rsi_reversion", "bollinger_breakout"]
    cases: tuple[tuple[str, int, list[Strategy], int, str], ...] = (
        ("price to durable trade, 1 symbol, 1 trade", 1, [Flip()], steps, "p50 <= 2x the bare commit"),
        ("one step, 100 symbols, 100 trades", 100, [Flip()], max(10, steps // 4), "<= 3 ms"),
        ("one step, 300 symbols, 5 strategies", 300, [build(name) for name in five], max(10, steps // 4), "<= 30 ms"),
    )
    lines = []
    for number, (name, symbols, strategies, count, bar) in enumerate(cases):
        path, settled = folder / f"latency{number}.db", max(50, int(400 * min(scale, 1)))
        ours, bare = asyncio.run(_latency(path, symbols, strategies, count, settled))
        p50, p99 = _quantile(ours, 0.5), _quantile(ours, 0.99)
        reference = _quantile(bare, 0.5)
        figure = f"p50 {p50 * 1e3:.2f} ms, p99 {p99 * 1e3:.2f} ms"
        lines.append(Line(name, figure, f"p50 {reference * 1e3:.2f} ms", p50 / reference, bar))
    return lines


async def _latency(
    path: Path, symbols: int, strategies: Sequence[Strategy], steps: int, settled: int
) -> tuple[list[float], list[float]]:
    """``settled`` steps are not measured: they fill the windows."""
    block = tape(symbols, settled + steps)
    ours, bare = [], []
    async with loop_over(block, strategies, path, one_by_one=True, record=True) as (loop, database):
        feed = loop._feed
        for _ in range(settled):
            await _step(loop, feed, int(database.cursor.timestamp))
        before = database.cursor.trades
        for _ in range(steps):
            ours.append(await _step(loop, feed, int(database.cursor.timestamp)))
        rows = symbols + 5 * (database.cursor.trades - before) // steps + 1
    commits = BareCommits(path.with_suffix(".bare"), rows)
    for _ in range(steps):
        start = time.perf_counter()
        commits.commit()
        bare.append(time.perf_counter() - start)
    commits.close()
    return ours, bare


async def _step(loop: object, feed: object, after: int) -> float:
    block = await feed.poll(after + 1, 1)  # type: ignore[attr-defined]
    start = time.perf_counter()
    await loop.step(block)  # type: ignore[attr-defined]
    return time.perf_counter() - start


def start_up(folder: Path, scale: float) -> list[Line]:
    """Whole processes: the version, the first committed tick, memory, and what is not imported."""
    turns = 5 if scale >= 1 else 2
    python = [sys.executable, "-c", "pass"]
    bare = [_process_s(python) for _ in range(turns)]
    version = [_process_s([sys.executable, "main.py", "--version"]) for _ in range(turns)]
    stack = [_process_s([sys.executable, "-c", _STACK]) for _ in range(turns)]
    first, resident = zip(*(_first_tick(folder / f"first{turn}.db") for turn in range(turns)), strict=True)
    heavy = subprocess.run([sys.executable, "-c", _HEAVY], cwd=ROOT, capture_output=True, text=True, check=True)
    return [
        Line("--version", _seconds(version), f"{_seconds(bare)} (bare python)", _ratio(version, bare), "<= 0.15 s"),
        Line(
            "first committed tick",
            _seconds(first),
            f"{_seconds(stack)} (its imports)",
            _ratio(first, stack),
            "<= 0.8 s",
        ),
        Line("resident after the first ticks", f"{max(resident):.0f} MB", "", None, "<= 70 MB"),
        Line("ccxt, aiohttp or pandas imported", heavy.stdout.strip() or "none", "", None, "none"),
    ]


def memory(folder: Path, scale: float) -> list[Line]:
    """Resident memory of one process after the first tenth and after all of a long replay."""
    ticks = max(100_000, int(10_000_000 * scale))
    code = _MEMORY.format(ticks=ticks, path=folder / "memory.db")
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    early, late = (float(word) for word in told.stdout.split())
    name = f"memory from {ticks // 10:,} to {ticks:,} replayed ticks"
    return [Line(name, f"{late - early:+.1f} MB", f"{early:.0f} MB", None, "<= +10 MB")]


_STACK = "import asyncio, aiosqlite, numpy, pydantic_settings, structlog, typer"
_HEAVY = (
    "import sys, bot.cli, bot.app; print(*sorted({'ccxt', 'aiohttp', 'pandas', 'polars', 'talib'} & set(sys.modules)))"
)
_MEMORY = """
import asyncio, pathlib
from bot.compose import tune_collector
from bot.strategies import build
from tests.benchmarks.scenario import INTERVAL_MS, START_MS, loop_over, tape
from tests.benchmarks.measure import resident_mb

class Endless:
    "The same tape over and over, so that the tape itself does not count."
    def __init__(self, feed, ticks):
        self.symbols, self.markets, self.left, self.block = feed.symbols, feed.markets, ticks, feed._block
        self.early, self.tenth = None, ticks * 9 // 10
    async def history(self, before_ms, window):
        return None
    async def poll(self, beat_ms, polls):
        if self.left <= 0:
            return None
        if self.early is None and self.left <= self.tenth:
            self.early = resident_mb()
        import dataclasses
        shift = beat_ms - START_MS
        self.left -= len(self.block)
        return dataclasses.replace(self.block, timestamp=self.block.timestamp + shift)
    async def close(self): ...

async def main():
    tune_collector()
    block = tape(1, 50_000)
    async with loop_over(block, [build("sma_cross")], pathlib.Path({path!r}), polls_ahead=50_000) as (loop, database):
        loop._feed = Endless(loop._feed, {ticks})
        await loop.run()
        print(loop._feed.early, resident_mb())
asyncio.run(main())
""".replace("{path!r}", "'{path}'")


def resident_mb(pid: int | str = "self") -> float:
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))


def _run(settings: Settings, options: RunOptions) -> None:
    asyncio.run(run(settings, options, StopSignals()))


async def _replay(block: object, path: Path, ahead: int, one_by_one: bool) -> int:
    tune_collector()
    strategy = build("sma_cross", fast=10, slow=30)
    async with loop_over(block, [strategy], path, polls_ahead=ahead, one_by_one=one_by_one) as (loop, database):  # type: ignore[arg-type]
        await loop.run()
        return database.cursor.trades


def _process_s(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - start


def _first_tick(path: Path) -> tuple[float, float]:
    """Seconds from the start of the daemon to a poll in its ledger, and its resident memory some polls later."""
    command = [sys.executable, "main.py", "--set", f"storage.path={path}", "--set", "feed.poll_interval_s=0.25"]
    start = time.perf_counter()
    daemon = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        assert daemon.stderr is not None
        for line in daemon.stderr:
            if "first prices are in the ledger" in line:
                break
        seconds = time.perf_counter() - start
        time.sleep(1.5)
        return seconds, resident_mb(daemon.pid)
    finally:
        daemon.terminate()
        daemon.communicate()


def _rate(values: Sequence[float]) -> str:
    value = statistics.median(values)
    return f"{value / 1e6:.2f}M/s" if value >= 1e6 else f"{value / 1e3:.0f}k/s"


def _seconds(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.3f} s"


def _ratio(ours: Sequence[float], reference: Sequence[float]) -> float:
    return statistics.median(ours) / statistics.median(reference)


def _quantile(values: list[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


MEASUREMENTS: tuple[Callable[[Path, float], list[Line]], ...] = (
    recording,
    replay,
    replay_of_a_ledger,
    proof,
    latency,
    start_up,
    memory,
    live,
)
