"""Works that take a process of their own: from its start to a printed result, and the most memory that it needs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.benchmarks.peers.engines.ours import command
from tests.benchmarks.peers.engines.serving import BAR_MS, START_MS
from tests.benchmarks.peers.processes import ENGINES, OURS, REFERENCE, ROOT, EngineFailed, Installed, running
from tests.benchmarks.peers.works import WARM_BARS, Row, Tapes

TIMED = Path(__file__).with_name("timed.py")
FRESH_BARS = 100_000
NET_PNL = "-153005.45"
SCRIPT = f"{ENGINES}.vectorbt_script"


class Start(NamedTuple):
    """``name`` is the peer's, ``engine`` what it is called in the table."""

    name: str
    engine: str
    command: list[str]


def fresh(found: Sequence[Installed], tapes: Tapes, rounds: int, quick: bool) -> list[Row]:
    """Whole processes on a file of candles, with warm caches; unless it is to be quick, once with nothing compiled."""
    file = _candles(tapes)
    starts = [
        Start(OURS.name, OURS.name, command(file)),
        Start(REFERENCE.name, "python, import numpy", [sys.executable, "-c", "import numpy"]),
    ]
    for each in found:
        if each.peer.module == "vectorbt":
            script = [each.python, "-W", "ignore", "-m", SCRIPT, *each.peer.arguments, str(file)]
            starts.append(Start(each.peer.name, each.peer.name, script))
    rows = _rounds(starts, rounds, warm=not quick)
    cache = f"NUMBA_CACHE_DIR={tapes.folder / 'numba'}"
    cold = [
        Start("", f"{start.engine}, nothing compiled", ["env", cache, *start.command])
        for start in starts
        if start.name == "vectorbt" and not quick
    ]
    return rows + _rounds([starts[0], *cold], 1, warm=False)[1:]


def _rounds(starts: Sequence[Start], rounds: int, *, warm: bool) -> list[Row]:
    title = f"file to figures, {FRESH_BARS:,} bars"
    rows = [Row(title, "fresh", start.engine, start.name, FRESH_BARS) for start in starts]
    for start, row in zip(starts, rows, strict=True):
        if warm:
            _launched(start, row)
    for _ in range(rounds):
        ours = None
        for start, row in zip(starts, rows, strict=True):
            found = _launched(start, row)
            if row.problem:
                continue
            row.seconds.append(found["seconds"])
            row.peak_mb = max(row.peak_mb or 0.0, found["peak_mb"])
            ours = found["seconds"] if start.name == OURS.name else ours
            if ours:
                row.ratios.append(found["seconds"] / ours)
    return rows


def _launched(start: Start, row: Row) -> dict[str, Any]:
    """What ``timed.py`` says of the command; a problem if it fails or does not print the net PnL."""
    if row.problem:
        return {}
    launcher = [sys.executable, "-S", "-E", str(TIMED), *start.command]
    done = subprocess.run(launcher, cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    if found["code"]:
        row.problem = (found["errors"].strip().splitlines() or ["it said nothing"])[-1]
    elif start.name != REFERENCE.name and NET_PNL not in found["output"].replace(",", ""):
        row.problem = f"a net PnL of {NET_PNL} is not in what it printed"
    return found


def _candles(tapes: Tapes) -> Path:
    path = tapes.folder / "candles.csv"
    closes = np.fromfile(tapes[FRESH_BARS]).tolist()
    with path.open("w", encoding="ascii") as file:
        file.write("timestamp,open,high,low,close,volume\n")
        for number, close in enumerate(closes):
            file.write(f"{START_MS + number * BAR_MS},{close},{close},{close},{close},0\n")
    return path


def memory(found: Sequence[Installed], tapes: Tapes, quick: bool) -> Iterator[Row]:
    """The most memory that the data and the work on it took, beyond what a warm process had before."""
    ours = Installed(OURS, sys.executable)
    many = 1_000_000 if quick else 10_000_000
    cases = [("vectorised", many), ("equity", many), ("sweep", 100_000), ("event", 100_000)]
    for work, bars in cases[1:2] if quick else cases:
        for each in (ours, Installed(REFERENCE, sys.executable), *found):
            yield from _memory(each, work, bars, tapes)
    yield from _memory(ours, "event", many, tapes)


def _memory(each: Installed, work: str, bars: int, tapes: Tapes) -> Iterator[Row]:
    row = Row(f"memory: {work}, {bars:,} bars", "memory", each.peer.name, each.peer.name, bars)
    try:
        with running(each.peer, each.python) as engine:
            if work not in engine.works:
                return
            row.engine = engine.label
            engine.ask(work, tapes[WARM_BARS])
            answer = engine.ask(work, tapes[bars])
            row.peak_mb, row.fills = answer["peak_mb"], sum(answer["fills"])
    except EngineFailed as error:
        row.problem = str(error)
    yield row
