"""``python -m tests.integration.soak TICKS``: months of the daemon in one process, one life after the other, and what
it is after each of them.

Most ticks go through ``bot.app.run`` at full speed, with the ledger's thread and the log's; after each such life comes
one that polls as a daemon does that is left running, on simulated time.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bot.app import RunOptions, run
from bot.service.stop import StopSignals
from bot.settings import Settings
from tests.simulation.polled import polled

TICKS_A_LIFE = 100_000
LIVES_MIN = 12
# So many of the ticks of a life, one poll at a time.
PART_POLLED = 100
STRATEGIES: list[dict[str, Any]] = [
    {"name": "sma_cross", "params": {"fast": 5, "slow": 20}},
    {"name": "rsi_reversion"},
    {"name": "donchian_breakout", "timeframe": "1m"},
]
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Sample:
    """What the process is after a life: all that it has traded so far, and what it holds."""

    ticks: int
    memory_bytes: int
    objects: int
    descriptors: int
    threads: int


@dataclass(frozen=True)
class Ledger:
    """What a ledger holds, and how large it is."""

    ticks: int
    signals: int
    trades: int
    runs: int
    bytes: int


def lives(ticks: int, folder: Path) -> Iterator[Sample]:
    count = max(LIVES_MIN, ticks // TICKS_A_LIFE)
    fast, slow = _settings(folder / "fast.db"), _settings(folder / "polled.db")
    symbols = len(fast.feed.symbols)
    polls_slow = ticks // count // PART_POLLED // symbols
    options = RunOptions(max_speed=True, polls=ticks // count // symbols - polls_slow)
    stop = StopSignals()
    done = 0
    with (folder / "polled.log").open("w") as log:
        for _ in range(count):
            before = done
            done = asyncio.run(run(fast, options, stop)).ticks
            polled(slow, polls_slow, log, failures=0.01)
            # A life's garbage is that of a process that would have ended: what it froze must not count as kept.
            gc.unfreeze()
            gc.collect()
            assert done > before
            yield Sample(
                done,
                _memory_bytes(),
                len(gc.get_objects()),
                len(os.listdir("/proc/self/fd")),
                threading.active_count(),
            )


def _settings(ledger: Path) -> Settings:
    return Settings.model_validate(
        {"strategy": STRATEGIES, "storage": {"path": f"{ledger}"}, "log": {"format": "json"}}
    )


def _memory_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


def ledger_of(path: Path) -> Ledger:
    with closing(sqlite3.connect(path)) as connection:
        (ticks, signals, trades) = connection.execute("SELECT ticks, signals, trades FROM cursor").fetchone()
        (runs,) = connection.execute("SELECT count(*) FROM runs").fetchone()
    return Ledger(ticks, signals, trades, runs, path.stat().st_size)


if __name__ == "__main__":
    where = Path.cwd()
    samples = [asdict(sample) for sample in lives(int(sys.argv[1]), where)]
    ledgers = [asdict(ledger_of(where / name)) for name in ("fast.db", "polled.db")]
    sys.stdout.write(json.dumps({"samples": samples, "ledgers": ledgers}) + "\n")
