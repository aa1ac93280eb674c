"""Candles from a Parquet file, some thousand rows at a time. The one module of these that needs pyarrow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bot.backtest.data import times
from bot.backtest.data.errors import DataError
from bot.backtest.data.names import Named
from bot.backtest.data.rows import TIME, VALUES, BoolArray, Fault, Kind, Part, Rows, places_of
from bot.domain import FloatArray, IntArray

BATCH_ROWS = 65_536
HEAD_ROWS = 1_000
# Where `paperloop download` says what its file holds.
_KEY = b"paperloop"


class ParquetFile:
    """Implements ``rows.File``. Columns by name, as in a CSV file; times are numbers, dates or text."""

    unit = "row"

    def __init__(self, path: Path, batch_rows: int = BATCH_ROWS) -> None:
        self.path, self.name = path, str(path)
        self._batch_rows = batch_rows
        try:
            with pq.ParquetFile(path) as file:
                self.rows_about: int = file.metadata.num_rows
                names, metadata = file.schema_arrow.names, file.schema_arrow.metadata or {}
        except (pa.ArrowException, OSError) as error:
            raise self._broken(error) from error
        self._columns = {name: names[place] for name, place in places_of(names, self.name).items()}
        self.says = _said(metadata.get(_KEY))

    def head(self) -> Part:
        if not self.rows_about:
            raise DataError(f"{self.name} is empty")
        return next(self._parts(HEAD_ROWS))

    def parts(self) -> Iterator[Part]:
        yield from self._parts(self._batch_rows)

    def _parts(self, rows: int) -> Iterator[Part]:
        number = 1
        try:
            # pyarrow would read ahead, and keep all that it has read.
            with pq.ParquetFile(self.path, pre_buffer=False) as file:
                for batch in file.iter_batches(rows, columns=list(self._columns.values())):
                    yield self._read(batch, number)
                    number += len(batch)
        except (pa.ArrowException, OSError) as error:
            raise self._broken(error) from error

    def _broken(self, error: Exception) -> DataError:
        return DataError(f"{self.name} cannot be read as a Parquet file: {str(error).splitlines()[0]}")

    def _read(self, batch: pa.RecordBatch, first: int) -> Part:
        values = np.zeros((len(VALUES), len(batch)))
        for row, name in enumerate(VALUES):
            if name in self._columns:
                values[row] = self._numbers(batch.column(self._columns[name]), name)
        number = np.arange(first, first + len(batch))
        stamps, is_time, faults = self._times(batch.column(self._columns[TIME]), number)
        rows = Rows(number, stamps, values)
        return Part(rows.chosen(is_time) if faults else rows, faults)

    def _numbers(self, column: pa.Array, name: str) -> FloatArray:
        kind = column.type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
            raise DataError(f"{self.name}: the column {name} holds {kind}, not numbers")
        numbers: FloatArray = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        return numbers

    def _times(self, column: pa.Array, number: IntArray) -> tuple[IntArray, BoolArray, list[Fault]]:
        """The times, which of them are some, and what is wrong with the others."""
        kind = column.type
        found: IntArray | None = None
        if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
            if not column.null_count:
                found = times.checked(_milliseconds(column).to_numpy())
        elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
            if not column.null_count:
                found = times.of_numbers(column.cast(pa.float64(), safe=False).to_numpy())
        elif not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise DataError(f"{self.name}: the column {self._columns[TIME]} holds {kind}, no times")
        if found is not None:
            return found, np.ones(len(found), np.bool_), []
        faults: list[Fault] = []
        stamps = np.zeros(len(column), np.int64)
        for place, written in enumerate(column.to_pylist()):
            time = None if written is None else times.of_text(str(written))
            if time is not None:
                stamps[place] = time
            elif written is None:
                faults.append(Fault(Kind.MISSING, int(number[place]), f"{TIME} is missing"))
            else:
                faults.append(Fault(Kind.TIME, int(number[place]), f'{TIME} is "{written}"'))
        return stamps, stamps > 0, faults


def _milliseconds(column: pa.Array) -> pa.Array:
    zone = getattr(column.type, "tz", None)
    return column.cast(pa.timestamp("ms", zone), safe=False).cast(pa.int64())


def _said(stored: bytes | None) -> Named | None:
    """What ``paperloop download`` says of its own file; None of somebody else's."""
    try:
        found = json.loads(stored or b"")
        return Named(str(found["symbol"]), str(found["timeframe"]))
    except (ValueError, LookupError, TypeError):
        return None
