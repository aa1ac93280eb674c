"""Many rows a statement: what binds and steps cost in Python is paid once for a hundred rows."""

from __future__ import annotations

import sqlite3
from functools import lru_cache
from typing import Any, NamedTuple

# SQLite takes 32,766 since 3.32; beyond some hundred rows there is nothing left to gain.
PARAMETERS_MAX = 4096


class Insert(NamedTuple):
    """An INSERT for rows of ``width`` values: ``head`` ends in VALUES, ``tail`` is what may follow the rows."""

    head: str
    width: int
    tail: str = ""

    def execute(self, connection: sqlite3.Connection, values: list[Any]) -> None:
        """Inserts rows whose values stand one after the other."""
        step = PARAMETERS_MAX // self.width * self.width
        whole = len(values) // step * step
        if whole:
            parts = (values[start : start + step] for start in range(0, whole, step))
            connection.executemany(_statement(self, step // self.width), parts)
        if rest := (len(values) - whole) // self.width:
            connection.execute(_statement(self, rest), values[whole:])


@lru_cache(maxsize=256)
def _statement(insert: Insert, rows: int) -> str:
    row = f"({', '.join('?' * insert.width)})"
    return f"{insert.head} {', '.join([row] * rows)} {insert.tail}"
