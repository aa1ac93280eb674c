"""Rows of a file as they were read, before anybody has judged them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from bot.backtest.data.errors import DataError
from bot.domain import Bars, FloatArray, IntArray

BoolArray = npt.NDArray[np.bool_]

TIME = "timestamp"
VALUES = ("open", "high", "low", "close", "volume")
OPEN, HIGH, LOW, CLOSE, VOLUME = range(5)
# How files call them, lower case and with "_" for blanks; of several times in a file the first one here is taken.
_NAMES = {
    TIME: ("timestamp", "open_time", "opentime", "time", "unix", "datetime", "date"),
    **{name: (name,) for name in VALUES[:VOLUME]},
    "volume": ("volume", "vol"),
}
_OPTIONAL = ("volume",)


class Kind(StrEnum):
    """What can be wrong with a row, by the name that it has in a JSON document."""

    COLUMNS = "columns"
    NUMBER = "not_a_number"
    MISSING = "missing"
    TIME = "impossible_time"
    OFF = "misaligned"
    PRICE = "impossible_price"
    HIGH = "high_too_low"
    LOW = "low_too_high"
    VOLUME = "impossible_volume"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    DISORDER = "disorder"
    CUT = "cut_short"


class Fault(NamedTuple):
    """What is wrong with the row of that number, which is a file's line, counted from 1, or a table's row."""

    kind: Kind
    number: int
    text: str


@dataclass(frozen=True, slots=True)
class Rows:
    """N rows in the order of their file. ``number`` is where each stands, ``timestamp`` its time in UTC milliseconds,
    ``values`` open, high, low, close and volume, shape [5, N]; NaN is what is not there."""

    number: IntArray
    timestamp: IntArray
    values: FloatArray

    @classmethod
    def empty(cls) -> Rows:
        return cls(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((len(VALUES), 0)))

    @classmethod
    def joined(cls, parts: Sequence[Rows]) -> Rows:
        if len(parts) == 1:
            return parts[0]
        return cls(
            np.concatenate([part.number for part in parts]),
            np.concatenate([part.timestamp for part in parts]),
            np.concatenate([part.values for part in parts], axis=1),
        )

    def __len__(self) -> int:
        return len(self.number)

    def chosen(self, rows: slice | BoolArray | IntArray) -> Rows:
        return Rows(self.number[rows], self.timestamp[rows], self.values[:, rows])

    @property
    def bars(self) -> Bars:
        return Bars(self.timestamp, *self.values)


class Part(NamedTuple):
    """Some of a file: its rows, and what could not even be read."""

    rows: Rows
    faults: list[Fault]


class File(Protocol):
    """A file of candles. ``unit`` is what its rows are called, ``rows_about`` how many there are, more or less."""

    @property
    def name(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def rows_about(self) -> int: ...
    def head(self) -> Part:
        """Its first rows. Raises DataError for what is no such file at all."""

    def parts(self) -> Iterator[Part]:
        """All of it, in memory that does not depend on its length. Raises DataError."""


def is_header(names: Sequence[str]) -> bool:
    """Whether any of these is the name of a column of a candle."""
    spelt = {spelling for spellings in _NAMES.values() for spelling in spellings}
    return any(_plain(name) in spelt for name in names)


def places_of(names: Sequence[str], file: str) -> dict[str, int]:
    """Where the columns of a candle are among these. Raises DataError where one is not there, or there twice."""
    known = [_plain(name) for name in names]
    places = {}
    for column, spellings in _NAMES.items():
        found = next((spelling for spelling in spellings if spelling in known), None)
        if found is None and column in _OPTIONAL:
            continue
        if found is None:
            shown = ", ".join(name.strip() or '""' for name in names)
            others = f" (or {', '.join(spellings[1:])})" if spellings[1:] else ""
            raise DataError(f"{file} has no column {column}{others}; it has {shown}")
        if known.count(found) > 1:
            raise DataError(f"{file} has the column {found} more than once: leave one of them")
        places[column] = known.index(found)
    return places


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_")
