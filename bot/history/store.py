"""Candles in a Parquet file, with what was asked for in its metadata. The one module of these that needs pyarrow."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bot.history.errors import HistoryError
from bot.history.pages import CANDLE, Candles
from bot.history.ranges import Range, joined

NAMES = CANDLE.names or ()
ROW_GROUP = 65_536
GAPS_SHOWN = 5
_KEY = b"paperloop"
_SCHEMA = pa.schema([pa.field(name, pa.int64() if name == "timestamp" else pa.float64()) for name in NAMES])


@dataclass(frozen=True, slots=True)
class Series:
    """Which candles; ``step_ms`` is how long one is."""

    exchange: str
    symbol: str
    timeframe: str
    step_ms: int

    def path(self, folder: Path) -> Path:
        name = self.symbol.replace("/", "_").replace(":", "_")
        return folder / self.exchange / f"{name}-{self.timeframe}.parquet"

    @property
    def identity(self) -> dict[str, str]:
        return {"exchange": self.exchange, "symbol": self.symbol, "timeframe": self.timeframe}


@dataclass(slots=True)
class Contents:
    """What a file holds. ``gaps`` are candles that the exchange does not have between others, ``holes`` those that were
    never asked for: from the first one that is missing to the next one that is there."""

    rows: int = 0
    first: int | None = None
    last: int | None = None
    gaps: int = 0
    candles_missing: int = 0
    first_gaps: list[Range] = field(default_factory=list)
    holes: list[Range] = field(default_factory=list)


def covered(path: Path, series: Series) -> list[Range]:
    """What of its times was asked for already; empty if there is no file. Raises HistoryError for a foreign one."""
    try:
        schema = pq.read_schema(path)
        stored = json.loads((schema.metadata or {})[_KEY])
        if {name: stored[name] for name in series.identity} != series.identity:
            raise HistoryError(f"{path} holds other candles ({stored}): move it away, or choose another --output")
        if not schema.equals(_SCHEMA):
            raise _altered(path)
        return [(int(first), int(end)) for first, end in stored["covered"]]
    except FileNotFoundError:
        return []
    except (pa.ArrowInvalid, LookupError, ValueError, TypeError):
        text = f"{path} was not written by `paperloop download`: move it away, or choose another --output"
        raise HistoryError(text) from None


def _altered(path: Path) -> HistoryError:
    return HistoryError(f"{path} was altered by another program: move it away, or choose another --output")


def write(path: Path, series: Series, asked: Iterable[Range], pages: Iterable[Candles]) -> Contents:
    """The file's own candles and ``pages``, which are in order, as one file in place of the old one, or not at all.

    Raises OSError.
    """
    asked = joined(asked)
    stored = json.dumps({**series.identity, "covered": asked})
    schema = _SCHEMA.with_metadata({_KEY: stored.encode()})
    aside = path.with_name(f".{path.name}.new")
    contents = Contents()
    with open(aside, "wb") as file:
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for part in _grouped(_merged(_read(path), iter(pages))):
                _count(contents, part["timestamp"], series.step_ms, asked)
                arrays = [pa.array(np.ascontiguousarray(part[name])) for name in NAMES]
                writer.write_batch(pa.record_batch(arrays, schema=schema))
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return contents


def read(path: Path, series: Series) -> Contents:
    """What a file holds, without writing it."""
    contents = Contents()
    asked = joined(covered(path, series))
    for part in _read(path):
        _count(contents, part["timestamp"], series.step_ms, asked)
    return contents


def _read(path: Path) -> Iterator[Candles]:
    """The file's candles. Raises HistoryError where they are not as they were written: whole, and in order."""
    if not path.exists():
        return
    last = -(2**62)
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(ROW_GROUP, columns=list(NAMES)):
            part = np.empty(batch.num_rows, CANDLE)
            for name in NAMES:
                if batch.column(name).null_count:
                    raise _altered(path)
                part[name] = batch.column(name).to_numpy()
            if (np.diff(part["timestamp"], prepend=last) <= 0).any():
                raise _altered(path)
            last = int(part["timestamp"][-1])
            yield part


def _merged(old: Iterator[Candles], new: Iterator[Candles]) -> Iterator[Candles]:
    """Both in order, each time once; where both have it, the new one."""
    a, b = next(old, None), next(new, None)
    while a is not None or b is not None:
        if a is not None and (b is None or a["timestamp"][-1] < b["timestamp"][0]):
            yield a
            a = next(old, None)
        elif b is not None and (a is None or b["timestamp"][-1] < a["timestamp"][0]):
            yield b
            b = next(new, None)
        elif a is None or b is None:
            return
        elif ahead := int(np.searchsorted(a["timestamp"], b["timestamp"][0])):
            yield a[:ahead]
            a = a[ahead:]
        elif ahead := int(np.searchsorted(b["timestamp"], a["timestamp"][0])):
            yield b[:ahead]
            b = b[ahead:]
        else:
            a = a[1:] if len(a) > 1 else next(old, None)


def _grouped(parts: Iterator[Candles]) -> Iterator[Candles]:
    """Parts large enough for a row group each."""
    waiting: list[Candles] = []
    last: int | None = None
    for part in parts:
        # Pages of one journal may overlap: a time that was there is not there again.
        fresh = part if last is None else part[np.searchsorted(part["timestamp"], last, side="right") :]
        if len(fresh):
            waiting.append(fresh)
            last = int(fresh["timestamp"][-1])
        if sum(map(len, waiting)) >= ROW_GROUP:
            yield np.concatenate(waiting)
            waiting.clear()
    if waiting:
        yield np.concatenate(waiting)


def _count(contents: Contents, times: np.ndarray, step_ms: int, asked: list[Range]) -> None:
    contents.rows += len(times)
    before = times[:1] if contents.last is None else np.array([contents.last])
    contents.first = int(times[0]) if contents.first is None else contents.first
    contents.last = int(times[-1])
    known = np.concatenate([before, times])
    for place in np.flatnonzero(np.diff(known) > step_ms):
        first, end = int(known[place]) + step_ms, int(known[place + 1])
        if not any(begins <= first and end <= ends for begins, ends in asked):
            contents.holes.append((first, end))
            continue
        contents.gaps += 1
        contents.candles_missing += (end - first) // step_ms
        if len(contents.first_gaps) < GAPS_SHOWN:
            contents.first_gaps.append((first, end))
