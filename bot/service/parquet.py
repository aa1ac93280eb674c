"""Parquet, for ``bot.service.export``. The one module that needs pyarrow."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bot.repositories import LedgerError
from bot.service.export import Column, Row, Source, Write

# What decimal128 holds; wider decimals are read by few.
DIGITS_MAX = 38
SCALE = 18
_TYPES = {"INTEGER": pa.int64(), "REAL": pa.float64(), "TEXT": pa.string(), "BLOB": pa.binary()}
_TIME = pa.timestamp("ms", tz="UTC")


@contextmanager
def parquet_sink(path: Path, source: Source) -> Iterator[Write]:
    """Money is decimal128, exact: 18 decimals, more or fewer where the values need it, and text where 38 digits
    cannot hold them. A batch of rows is a row group."""
    types = [_type(column) for column in source.columns]
    fields = [pa.field(column.name, kind) for column, kind in zip(source.columns, types, strict=True)]
    schema = pa.schema([*fields, *(pa.field(name, _TIME) for _, name in source.times)])

    def write(rows: list[Row]) -> None:
        columns = zip(source.columns, types, zip(*rows, strict=True), strict=True)
        arrays = [_array(column, kind, values) for column, kind, values in columns]
        arrays += [arrays[place].cast(_TIME) for place, _ in source.times]
        writer.write_batch(pa.record_batch(arrays, schema=schema))

    with path.open("wb") as file:
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            yield write
        file.flush()
        os.fsync(file.fileno())


def _type(column: Column) -> pa.DataType:
    if column.type != "MONEY":
        return _TYPES.get(column.type, pa.string())
    whole, decimals = column.digits
    if whole + decimals > DIGITS_MAX:
        return pa.string()
    return pa.decimal128(DIGITS_MAX, max(decimals, min(SCALE, DIGITS_MAX - whole)))


def _array(column: Column, kind: pa.DataType, values: tuple[object, ...]) -> pa.Array:
    if not pa.types.is_decimal(kind):
        return pa.array(values, kind)
    try:
        return pa.array(values, pa.string()).cast(kind)
    except pa.ArrowInvalid:
        raise LedgerError(f"the ledger is damaged: a {column.name} is no decimal number") from None
