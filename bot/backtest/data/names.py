"""What the name of a file says of the candles in it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bot.backtest.data.errors import EXIT_USAGE, DataError
from bot.backtest.data.times import makes
from bot.timeframes import TIMEFRAMES, Timeframe

_SYMBOL = re.compile(r"([A-Z0-9]{1,20})[/-]([A-Z0-9]{1,20})(:[A-Z0-9]{1,20})?")
_ENDING = r"\.(?:parquet|csv|csv\.gz)"
# BTC_USDT-1m.parquet, and BTC_USDT_USDT-1m-futures.parquet as freqtrade calls a swap.
_OURS = re.compile(rf"([A-Z0-9]+)_([A-Z0-9]+)(?:_([A-Z0-9]+))?-(\d+[A-Za-z])(?:-futures)?{_ENDING}")
# BTCUSDT-1m-2024-01.csv as Binance publishes them.
_JOINED = re.compile(rf"([A-Z0-9]+?)(USDT|USDC|FDUSD|BUSD|USD|EUR|BTC|ETH)-(\d+[A-Za-z])(?:-[\d-]+)?{_ENDING}")


class Named(NamedTuple):
    """None: the name does not say."""

    symbol: str | None = None
    timeframe: str | None = None


def named(path: Path) -> Named:
    if match := _OURS.fullmatch(path.name):
        return Named(*_of(match))
    if match := _JOINED.fullmatch(path.name):
        return Named(f"{match[1]}/{match[2]}", match[3])
    return Named()


def symbol_of(text: str) -> str | None:
    """A symbol as it is written everywhere else, from BTC-USDT or btc/usdt too; None for what is none."""
    match = _SYMBOL.fullmatch(text.strip().upper())
    return f"{match[1]}/{match[2]}{match[3] or ''}" if match else None


class Spec(NamedTuple):
    """One ``--data``: where the data is, and of which symbol where somebody has said so."""

    path: Path
    symbol: str | None = None

    @classmethod
    def of(cls, text: str) -> Spec:
        symbol, equals, path = text.partition("=")
        if equals and (known := symbol_of(symbol)) is not None:
            return cls(Path(path), known)
        return cls(Path(text))


def files_in(folder: Path, symbols: Sequence[str], wanted: Timeframe | None) -> list[Path]:
    """A folder's file of each symbol (left out: of every symbol that it has), all of one timeframe: the wanted one, or
    the longest that makes it. Where a candle is there in several formats, Parquet goes before CSV. Raises DataError."""
    found: dict[str, dict[str, Path]] = {}
    # By name, so that of one candle's files .parquet comes last, and stays.
    for path in sorted(folder.iterdir()):
        if match := _OURS.fullmatch(path.name):
            symbol, timeframe = _of(match)
            found.setdefault(symbol, {})[timeframe] = path
    if not found:
        folders = ", ".join(path.name for path in sorted(folder.iterdir()) if path.is_dir())
        hint = f"; is it one of its folders {folders}?" if folders else ""
        raise DataError(f"{folder} has no files named like BTC_USDT-1m.parquet or BTC_USDT-1m.csv{hint}", EXIT_USAGE)
    chosen = tuple(symbols) or tuple(found)
    if missing := [symbol for symbol in chosen if symbol not in found]:
        raise DataError(f"{folder} has no file of {', '.join(missing)}; it has {', '.join(found)}", EXIT_USAGE)
    timeframe = _common(folder, {symbol: tuple(found[symbol]) for symbol in chosen}, wanted)
    return [found[symbol][timeframe] for symbol in chosen]


def _common(folder: Path, found: dict[str, tuple[str, ...]], wanted: Timeframe | None) -> str:
    usable = [
        each
        for each in TIMEFRAMES.values()
        if all(each.name in names for names in found.values()) and (wanted is None or makes(each, wanted))
    ]
    if len(usable) == 1 or (usable and wanted is not None):
        return max(usable, key=lambda each: each.ms).name
    has = "; ".join(f"{symbol} in {', '.join(names)}" for symbol, names in found.items())
    asked = (
        "say which one with --timeframe" if usable else f"of which none of {wanted.name} can be made" if wanted else ""
    )
    raise DataError(f"{folder} has {has}: {asked or 'there is no timeframe that all of them have'}", EXIT_USAGE)


def _of(match: re.Match[str]) -> tuple[str, str]:
    base, quote, settle, timeframe = match.groups()
    return f"{base}/{quote}{f':{settle}' if settle else ''}", timeframe
