"""A running hash over the rows of a table, the same whatever blocks they came in and however often it was restarted.

The rows are hashed as JSON: their values in the order of the columns, each followed by a comma, row after row. Every
SPAN rows the hash begins again with what it came to as its seed, so that a restart needs to read the last span only.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import orjson

SPAN = 4096


class RunningDigest:
    """``seed`` is the hash of all full spans, ``count`` the number of rows so far, ``digest`` the hash of all rows."""

    def __init__(self, width: int, seed: str = "", count: int = 0) -> None:
        """For rows of ``width`` values; begins after the last full span before ``count``, the rest is to be added."""
        self.width, self.seed, self.count = width, seed, count // SPAN * SPAN
        self._hash = blake2b(bytes.fromhex(seed), digest_size=16)

    def copy(self) -> RunningDigest:
        twin = RunningDigest(self.width, self.seed)
        twin.count, twin._hash = self.count, self._hash.copy()
        return twin

    def add(self, values: Sequence[Any]) -> None:
        """Adds whole rows, their values one after the other."""
        start = 0
        while start < len(values):
            part = values[start : start + (SPAN - self.count % SPAN) * self.width]
            self._hash.update(orjson.dumps(part)[1:-1] + b",")
            self.count += len(part) // self.width
            start += len(part)
            if self.count % SPAN == 0:
                self.seed = self._hash.hexdigest()
                self._hash = blake2b(bytes.fromhex(self.seed), digest_size=16)

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()
