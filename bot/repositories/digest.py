"""Running hashes over rows, the same whatever blocks the rows came in and however often it was restarted.

Every SPAN rows a hash begins again with what it came to as its seed, so that a restart reads the last span only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

SPAN = 4096
TICK_WIDTH = 7


class RunningDigest:
    """``seed`` is the hash of all full spans, ``count`` the number of rows so far, ``digest`` the hash of all rows."""

    def __init__(self, width: int, encoded: Callable[[Any], bytes], seed: str = "", count: int = 0) -> None:
        """For rows of ``width`` values; begins after the last full span before ``count``, the rest is to be added."""
        self.width, self.encoded, self.seed, self.count = width, encoded, seed, count // SPAN * SPAN
        self._hash = blake2b(bytes.fromhex(seed), digest_size=16)

    def copy(self) -> RunningDigest:
        twin = RunningDigest(self.width, self.encoded, self.seed)
        twin.count, twin._hash = self.count, self._hash.copy()
        return twin

    def add(self, values: Sequence[Any] | npt.NDArray[np.int64]) -> None:
        """Adds whole rows, their values one after the other."""
        start = 0
        while start < len(values):
            part = values[start : start + (SPAN - self.count % SPAN) * self.width]
            self._hash.update(self.encoded(part))
            self.count += len(part) // self.width
            start += len(part)
            if self.count % SPAN == 0:
                self.seed = self._hash.hexdigest()
                self._hash = blake2b(bytes.fromhex(self.seed), digest_size=16)

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()


def of_decisions(width: int, seed: str = "", count: int = 0) -> RunningDigest:
    """Over signals, orders and trades: rows as JSON, each value followed by a comma, in the order of the columns."""
    return RunningDigest(width, lambda part: orjson.dumps(part)[1:-1] + b",", seed, count)


def of_ticks(seed: str = "", count: int = 0) -> RunningDigest:
    """Over the tape: rows as 64-bit whole numbers, lowest byte first, in the order of the columns, without the id."""
    return RunningDigest(TICK_WIDTH, lambda part: np.ascontiguousarray(part, "<i8").tobytes(), seed, count)


def checksum(values: Any) -> str:
    """One hash over anything that is made of lists, texts and numbers."""
    return blake2b(orjson.dumps(values), digest_size=16).hexdigest()
