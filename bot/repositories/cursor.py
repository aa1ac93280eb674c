"""How far a ledger is."""

from __future__ import annotations

from dataclasses import dataclass

# The hash of no rows at all.
EMPTY = "cae66941d9efbd404e4d88758ea67670"


@dataclass(slots=True)
class Cursor:
    """How far the ledger is. ``decisions`` is the last number given out; a new decision takes the next one."""

    polls: int = 0
    timestamp: int = 0
    ticks: int = 0
    decisions: int = 0
    signals: int = 0
    orders: int = 0
    trades: int = 0

    def values(self) -> tuple[int, ...]:
        return (self.polls, self.timestamp, self.ticks, self.decisions, self.signals, self.orders, self.trades)

    def set(self, values: tuple[int, ...]) -> None:
        """In place: the loop and the repositories hold on to this object."""
        for name, value in zip(COUNTS, values, strict=True):
            setattr(self, name, value)


COUNTS = Cursor.__slots__
