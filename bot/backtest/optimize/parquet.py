"""Every combination of a search as a row of a Parquet file. The one module here that needs pyarrow."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bot.backtest.optimize.figures import WHOLE
from bot.backtest.optimize.found import Found
from bot.backtest.optimize.study import IN_SAMPLE, OUT_OF_SAMPLE, Status
from bot.domain import FloatArray

_TIME = pa.timestamp("ms", tz="UTC")


def write(found: Found, path: Path) -> None:
    """Replaces what is there once the whole file is written. Raises OSError.

    The columns: ``window`` from 1 and when it starts, is split and ends; a ``param_`` for each parameter; ``status``;
    the ``rank`` in sample; each figure in sample and out of sample. Null is what is not defined.
    """
    aside = path.with_name(f".{path.name}.new")
    try:
        with aside.open("wb") as file:
            pq.write_table(_table(found), file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        with suppress(OSError):
            aside.unlink()


def _table(found: Found) -> pa.Table:
    """The windows one after the other, each with all combinations in their order."""
    study = found.study
    windows, count = found.status.shape
    columns: dict[str, Any] = {"window": pa.array(np.repeat(np.arange(1, windows + 1), count))}
    for name in ("start", "split", "end"):
        times = [getattr(window, f"{name}_ms") for window in study.windows]
        columns[name] = pa.array(np.repeat(times, count)).cast(_TIME)
    for name in study.combinations.names:
        values = _values([params[name] for params in study.combinations])
        columns[f"param_{name}"] = pa.concat_arrays([values] * windows)
    columns["status"] = pa.array([Status(value).name.lower() for value in found.status.ravel().tolist()])
    columns["rank"] = _ranks(found)
    sides = {"in_sample": IN_SAMPLE}
    if any(window.has_out_of_sample for window in study.windows):
        sides["out_of_sample"] = OUT_OF_SAMPLE
    for prefix, side in sides.items():
        for place, name in enumerate(study.figures):
            columns[f"{prefix}_{name}"] = _figure(name, found.values[:, side, :, place].ravel())
    return pa.table(columns)


def _values(values: list[Any]) -> pa.Array:
    """Of one type, or else as text."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([str(value) for value in values])


def _ranks(found: Found) -> pa.Array:
    ranks = np.zeros(found.status.shape, np.int64)
    for window, row in enumerate(ranks):
        ranked = found.ranked(window)
        row[ranked] = np.arange(1, len(ranked) + 1)
    return pa.array(ranks.ravel(), mask=ranks.ravel() == 0)


def _figure(name: str, values: FloatArray) -> pa.Array:
    column = pa.array(values, mask=np.isnan(values))
    return column.cast(pa.int64()) if name in WHOLE else column
