"""Chance that repeats itself: every number comes from the seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from hashlib import blake2b
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Chance:
    """A stream of its own for every key, so that one more question to one of them does not change the others."""

    def __init__(self, *key: object) -> None:
        digest = blake2b(repr(key).encode(), digest_size=8).digest()
        self._bits = np.random.PCG64(int.from_bytes(digest, "big"))
        self._numbers: list[float] = []

    def number(self) -> float:
        """In [0, 1)."""
        if not self._numbers:
            # Plain bits and one exact division: nothing that a later numpy might draw in another way.
            self._numbers = ((self._bits.random_raw(1024) >> np.uint64(11)) / 2.0**53).tolist()
        return self._numbers.pop()

    def hits(self, rate: float) -> bool:
        return rate > 0 and self.number() < rate

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.number()

    def one_of(self, things: Sequence[T]) -> T:
        return things[int(self.number() * len(things))]

    def shuffled(self, things: list[T]) -> list[T]:
        return [things.pop(int(self.number() * len(things))) for _ in range(len(things))]


@dataclass(frozen=True)
class Rates:
    """How often each fault comes: per answer of the venue, per write, per hour (the last two), or while waiting."""

    error: float = 0.01
    hang: float = 0.002
    slow: float = 0.02
    outage: float = 0.0003
    bad_quote: float = 0.06
    no_history: float = 0.1
    slow_write: float = 0.03
    failed_write: float = 0.003
    slow_order: float = 0.01
    pause: float = 0.001
    disturbed: float = 0.006
    disturbed_write: float = 0.05
    clock_steps: float = 0.3
    ends: float = 0.5

    @classmethod
    def of(cls, chance: Chance, calmer: float = 1.0) -> Rates:
        """Some faults not at all, some as usual, some much too often: another world for every seed."""
        weights = (0.0, 0.5, 1.0, 1.0, 3.0)
        return cls(**{field.name: field.default * calmer * chance.one_of(weights) for field in fields(cls)})  # type: ignore[operator]


QUIET = Rates(**{field.name: 0.0 for field in fields(Rates)})
