"""The journal of a download: pages of candles, each on the disk before the next one is asked for."""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from bot.history.errors import HistoryError
from bot.history.ranges import Range
from bot.repositories.connect import make_private
from bot.repositories.errors import EXIT_LEDGER_LOCKED

CANDLE = np.dtype(
    [("timestamp", "<i8"), ("open", "<f8"), ("high", "<f8"), ("low", "<f8"), ("close", "<f8"), ("volume", "<f8")]
)
Candles = npt.NDArray[np.void]

_MAGIC = b"PLH1"
_HEAD = struct.Struct("<4sqqII")  # magic, from, to, rows, checksum
ROWS_MAX = 1_000_000


def candles_of(rows: Iterable[Any]) -> Candles:
    """ccxt's rows in order, each time once. Raises ValueError or TypeError for what is no candle."""
    found = np.array([(int(row[0]), *map(float, row[1:6])) for row in rows], CANDLE)
    if not all(np.isfinite(found[name]).all() for name in CANDLE.names or ()):
        raise ValueError("a candle has a value that is no number")
    return found[np.unique(found["timestamp"], return_index=True)[1]]


class _Place(NamedTuple):
    first: int  # of its range
    end: int
    rows: int
    offset: int


class Journal:
    """``<name>.pages`` beside a Parquet file, held by one process at a time. A page that was cut short is dropped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._places: list[_Place] = []
        self._is_gone = False

    def __enter__(self) -> Self:
        """Raises OSError, and HistoryError where another process downloads the same."""
        # Below the ledger's folder, unless told otherwise, and that may not be there yet.
        make_private(self.path.parent)
        while True:
            self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._is_there():
                    self._read()
                    return self
            except BlockingIOError:
                os.close(self._handle)
                raise HistoryError(f"another download writes to {self.path}", EXIT_LEDGER_LOCKED) from None
            except BaseException:
                os.close(self._handle)
                raise
            # Whoever had it has just finished, and the file is no longer the one under that name.
            os.close(self._handle)

    def _is_there(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._handle), self.path.stat())
        except FileNotFoundError:
            return False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._places and not self._is_gone:
            self.remove()
        os.close(self._handle)

    @property
    def covered(self) -> list[Range]:
        return [(place.first, place.end) for place in self._places]

    @property
    def rows(self) -> int:
        return sum(place.rows for place in self._places)

    def add(self, page: Range, candles: Candles) -> None:
        """All there is of the range ``page``. On the disk when this returns."""
        content = candles.tobytes()
        checksum = zlib.crc32(content, zlib.crc32(struct.pack("<qqI", *page, len(candles))))
        offset = os.fstat(self._handle).st_size
        try:
            _write(self._handle, _HEAD.pack(_MAGIC, *page, len(candles), checksum) + content, offset)
            os.fsync(self._handle)
        except BaseException:
            os.ftruncate(self._handle, offset)
            raise
        self._places.append(_Place(*page, len(candles), offset + _HEAD.size))

    def pages(self) -> Iterator[Candles]:
        """In the order of time."""
        for place in sorted(self._places):
            if place.rows:
                content = os.pread(self._handle, place.rows * CANDLE.itemsize, place.offset)
                yield np.frombuffer(content, CANDLE)

    def remove(self) -> None:
        self._places.clear()
        self._is_gone = True
        self.path.unlink(missing_ok=True)

    def _read(self) -> None:
        """Learns which pages there are, and cuts off what is behind the last whole one."""
        self._places.clear()
        offset = 0
        while len(head := os.pread(self._handle, _HEAD.size, offset)) == _HEAD.size:
            magic, first, end, rows, checksum = _HEAD.unpack(head)
            if magic != _MAGIC or rows > ROWS_MAX:
                break
            content = os.pread(self._handle, rows * CANDLE.itemsize, offset + _HEAD.size)
            found = zlib.crc32(content, zlib.crc32(struct.pack("<qqI", first, end, rows)))
            if len(content) < rows * CANDLE.itemsize or found != checksum:
                break
            self._places.append(_Place(first, end, rows, offset + _HEAD.size))
            offset += _HEAD.size + len(content)
        os.ftruncate(self._handle, offset)


def _write(handle: int, content: bytes, offset: int) -> None:
    while content:
        written = os.pwrite(handle, content, offset)
        content, offset = content[written:], offset + written
