"""What every engine's process does: it works through requests, one JSON line each, and says what it took.

This file runs under the interpreter of the peer, which may lack all but numpy: it imports nothing of the project.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

START_MS = 1_735_689_600_000
BAR_MS = 60_000
CAPITAL = 10_000_000
FEE_RATE = 0.001
FAST, SLOW = 10, 30
# The sweep: 10 x 10 pairs, fast outside.
FASTS, SLOWS = tuple(range(2, 22, 2)), tuple(range(25, 75, 5))
PAIRS = tuple((fast, slow) for fast in FASTS for slow in SLOWS)

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Tape:
    """A file of N one-minute prices, plain float64."""

    path: Path

    def __len__(self) -> int:
        return self.path.stat().st_size // 8

    @cached_property
    def prices(self) -> FloatArray:
        """Shape [N]."""
        return np.fromfile(self.path)

    @property
    def timestamp(self) -> IntArray:
        """UTC milliseconds, shape [N]."""
        return START_MS + BAR_MS * np.arange(len(self), dtype=np.int64)


class Outcome(NamedTuple):
    """Fills and realised profit after all fees, of each run: one, or one for each pair of a sweep.

    ``max_drawdown`` is the largest fall of the equity from its peak, as a share of that peak.
    """

    fills: list[int]
    net_pnl: list[float]
    max_drawdown: float | None = None


# Puts the tape into the shape that the engine wants, off the clock; the function it returns is what is timed.
Work = Callable[[Tape], Callable[[], Outcome]]


def serve(version: str, works: Mapping[str, Work]) -> None:
    """Answers requests until its input ends. What the engine itself prints goes to the standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(message: Mapping[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    say({"version": version, "works": list(works)})
    for line in sys.stdin:
        try:
            say(_answer(works, json.loads(line)))
        except Exception as error:  # noqa: BLE001  (whoever asked is told)
            traceback.print_exc()
            say({"error": f"{type(error).__name__}: {error}".splitlines()[0]})


def _answer(works: Mapping[str, Work], request: Mapping[str, Any]) -> dict[str, Any]:
    """The best of as many runs as are asked for, and the most memory that was needed beyond what there was."""
    before_mb = resident_mb()
    forget_peak()
    run = works[request["work"]](Tape(Path(request["tape"])))
    seconds = []
    for _ in range(request["repeat"]):
        gc.collect()
        start = time.perf_counter()
        outcome = run()
        seconds.append(time.perf_counter() - start)
    return {"seconds": min(seconds), "peak_mb": peak_mb() - before_mb, **outcome._asdict()}


def resident_mb() -> float:
    return _status("VmRSS")


def peak_mb() -> float:
    return _status("VmHWM")


def forget_peak() -> None:
    """Sets the peak back to what is resident now: imports need more than they keep."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _status(name: str) -> float:
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(name))
