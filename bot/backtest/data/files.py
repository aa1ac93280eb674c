"""From a file of candles to a series: what it is, which symbol it is of, how long its candles are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bot.backtest.data.errors import EXIT_USAGE, DataError
from bot.backtest.data.names import Named, Spec, named
from bot.backtest.data.report import Repair
from bot.backtest.data.rows import VOLUME, File, Kind
from bot.backtest.data.series import Checked, Series, market_of
from bot.backtest.data.text import TextFile
from bot.backtest.data.times import ROWS_SURE, makes, timeframe_in
from bot.domain import IntArray, iso8601
from bot.timeframes import TIMEFRAMES, Timeframe

SYMBOL_DEFAULT = "BTC/USDT"
BEGINNING_BYTES = 16
PARQUET = b"PAR1"
_FOREIGN = {
    b"PK\x03\x04": "a zip archive: unpack it first",
    b"ARROW1": "a feather file: make it parquet or csv first",
    b"\x28\xb5\x2f\xfd": "compressed with zstd: unpack it first",
}

# How it has to be, of what no row can be read for.
_WRITTEN = {
    Kind.TIME: "; a time is ISO 8601, such as 2024-01-31 23:00, or milliseconds or seconds since 1970",
    Kind.NUMBER: "; a number has a point and no thousands separators, such as 40000.5",
}


def beginning(path: Path) -> bytes:
    """The first bytes of a file, which tell what it is; none of a folder. Raises DataError."""
    if path.is_dir():
        return b""
    try:
        with path.open("rb") as file:
            return file.read(BEGINNING_BYTES)
    except FileNotFoundError:
        raise DataError(f"--data: there is no file {path}", EXIT_USAGE) from None
    except OSError as error:
        raise DataError(f"--data: cannot read {path}: {error.strerror}", EXIT_USAGE) from error


def series_of(
    spec: Spec,
    symbols: Sequence[str],
    timeframe: Timeframe | None,
    timerange: tuple[int, int],
    repair: frozenset[Repair],
    now_ms: int,
    *,
    is_single: bool,
) -> Series:
    """The candles of one file, of which only the beginning is read yet. ``symbols`` are the wanted ones, ``timeframe``
    the one that is traded on; ``is_single``: no other file was named. Raises DataError."""
    file, says = _opened(spec.path)
    symbol = _symbol(spec, says, symbols, is_single=is_single)
    head = file.head()
    if not len(head.rows):
        told = f": {head.faults[0].text}{_WRITTEN.get(head.faults[0].kind, '')}" if head.faults else ""
        raise DataError(f"{file.name} has no candles that can be read{told}")
    base = _base(file.name, np.unique(head.rows.timestamp), says.timeframe, timeframe)
    market = market_of(symbol, head.rows.values[:VOLUME])
    return Series(symbol, base, market, Checked(file, base, repair, now_ms), *timerange)


def _opened(path: Path) -> tuple[File, Named]:
    """The file, and what it says of itself, by what is in it or by its name."""
    start = beginning(path)
    for magic, what in _FOREIGN.items():
        if start.startswith(magic):
            raise DataError(f"{path} is {what}")
    if not start.startswith(PARQUET):
        if path.suffix == ".parquet":
            raise DataError(f"{path} is no Parquet file")
        return TextFile(path), named(path)
    try:
        from bot.backtest.data.parquet import ParquetFile
    except ModuleNotFoundError as error:
        if error.name != "pyarrow":
            raise
        raise DataError(
            f"{path}: Parquet needs pyarrow, which is not installed: pip install '.[parquet]'", EXIT_USAGE
        ) from None
    file = ParquetFile(path)
    return file, file.says or named(path)


def _symbol(spec: Spec, says: Named, symbols: Sequence[str], *, is_single: bool) -> str:
    found = spec.symbol or says.symbol
    if found is None and is_single and len(symbols) <= 1:
        found = symbols[0] if symbols else SYMBOL_DEFAULT
    if found is None:
        raise DataError(f"--data: {spec.path} does not say which symbol it is of: write SYMBOL={spec.path}", EXIT_USAGE)
    if symbols and found not in symbols:
        raise DataError(
            f"--symbol: {spec.path} is of {found}, which is not asked for; if it is of {symbols[0]}, write"
            f" {symbols[0]}={spec.path}",
            EXIT_USAGE,
        )
    return found


def _base(file: str, opens: IntArray, says: str | None, wanted: Timeframe | None) -> Timeframe:
    """How long a file's candles are, by the times of its first ones, each once and in order. Where they are too few to
    tell, what its name says counts, and then what is asked for."""
    if says is not None and says not in TIMEFRAMES:
        raise DataError(f"{file} has candles of {says}; there are {', '.join(TIMEFRAMES)}")
    found = timeframe_in(opens)
    if len(opens) >= ROWS_SURE:
        if found is None:
            shown = ", ".join(iso8601(time) for time in opens[:3].tolist())
            raise DataError(
                f"{file}: these times are not the opens of candles of {', '.join(TIMEFRAMES)}: {shown}, ..."
            )
        if says is not None and says != found.name:
            raise DataError(f"{file} says that it has candles of {says}, and has them of {found.name}: rename it")
    elif says is not None:
        found = TIMEFRAMES[says]
    elif found is None or (wanted is not None and not makes(found, wanted)):
        found = wanted
    if found is None:
        raise DataError(f"{file} has too few candles to tell how long they are: say it with --timeframe", EXIT_USAGE)
    if wanted is not None and not makes(found, wanted):
        raise DataError(
            f"--timeframe: {file} has candles of {found.name}, which make none of {wanted.name}", EXIT_USAGE
        )
    return found
