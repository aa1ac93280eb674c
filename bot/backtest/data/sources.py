"""From what is named on the command line to the data of a backtest.

``--data`` is one of these, told apart by their content:

- a file of candles, CSV (gzipped or not) or Parquet; several of them are a symbol each. A file's symbol is what stands
  before it (``ETH/USDT=prices.csv``), else what a downloaded file says of itself, else what its name says
  (``BTC_USDT-1m.parquet``, ``BTC_USDT_USDT-1h.csv`` for a swap, ``BTCUSDT-1m-2024-01.csv``); a single file that says
  nothing is of the one symbol that is asked for, or of BTC/USDT;
- a folder with such names: those of the wanted symbols, or all of them;
- a recorded ledger: ticks, by themselves;
- the word ``simulated``: candles of the simulated market.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from bot.backtest.data.errors import EXIT_USAGE, DataError
from bot.backtest.data.files import beginning, series_of
from bot.backtest.data.marketdata import MarketData, SimulatedMarket
from bot.backtest.data.names import Spec, files_in, symbol_of
from bot.backtest.data.report import Repair
from bot.backtest.data.series import Series
from bot.backtest.data.times import END_MS
from bot.timeframes import DAY_MS, TIMEFRAMES, Timeframe

SIMULATED = "simulated"
SIMULATED_DAYS = 30
SQLITE = b"SQLite format 3\0"


def open_data(
    specs: Sequence[str],
    *,
    now_ms: int,
    symbols: Sequence[str] = (),
    timeframe: Timeframe | None = None,
    timerange: str | None = None,
    repair: Collection[str] = (),
    simulated: SimulatedMarket | None = None,
) -> MarketData:
    """The data that ``specs`` name, of the ``symbols`` (all, where none is named) and in the ``timerange`` (as
    ``paperloop download`` takes it; None: all there is).

    ``timeframe`` is what is traded on. The candles that come are those of the files, which may be shorter ones that
    make it, and in a folder the longest of these. ``simulated`` is what ``--data simulated`` is made of.

    Of a file only the beginning is read here, to learn its columns, its timeframe and its price step; a ledger is read
    whole, by an event loop of its own: where one is running, await ``ledger.read_ticks``. Raises DataError with the
    exit code that it is worth, and LedgerError.
    """
    if not specs:
        raise DataError("--data: name a file of candles, a folder of them, a ledger, or simulated", EXIT_USAGE)
    wanted = tuple(dict.fromkeys(_symbol(text) for text in symbols))
    times = start_ms, end_ms = _range(timerange, now_ms)
    if SIMULATED in specs:
        _alone(SIMULATED, specs, repair)
        if simulated is None:
            raise ValueError("there is nothing to simulate by")
        return _simulated(simulated, wanted, timeframe or TIMEFRAMES["1m"], times, has_range=timerange is not None)
    found = [Spec.of(text) for text in specs]
    for spec in found:
        if beginning(spec.path).startswith(SQLITE):
            _alone(str(spec.path), specs, repair)
            return _ledger(spec, wanted, times)
    files: list[Spec] = []
    for spec in found:
        if spec.path.is_dir():
            files += map(Spec, files_in(spec.path, [spec.symbol] if spec.symbol else wanted, timeframe))
        else:
            files.append(spec)
    policies = _policies(repair)
    series: dict[str, Series] = {}
    for spec in files:
        each = series_of(spec, wanted, timeframe, times, policies, now_ms, is_single=len(files) == 1)
        if each.symbol in series:
            raise DataError(f"--data: {spec.path} is of {each.symbol}, as a file before it is", EXIT_USAGE)
        series[each.symbol] = each
    if missing := [symbol for symbol in wanted if symbol not in series]:
        raise DataError(f"--symbol: no file is of {', '.join(missing)}; there is {', '.join(series)}", EXIT_USAGE)
    bases = {each.timeframe.name: symbol for symbol, each in series.items()}
    if len(bases) > 1:
        told = ", ".join(f"{name} of {symbol}" for name, symbol in bases.items())
        raise DataError(f"--data: candles of one timeframe go together, and these are {told}", EXIT_USAGE)
    base = next(iter(series.values())).timeframe
    return MarketData(start_ms, end_ms, base, {symbol: series[symbol] for symbol in wanted or series})


def _range(timerange: str | None, now_ms: int) -> tuple[int, int]:
    if timerange is None:
        return 0, END_MS
    from bot.history.errors import HistoryError
    from bot.history.ranges import parsed

    try:
        first, end = parsed(timerange, now_ms)
    except HistoryError as error:
        raise DataError(str(error), error.exit_code) from None
    return first or 0, end


def _symbol(text: str) -> str:
    symbol = symbol_of(text)
    if symbol is None:
        raise DataError(f"--symbol {text}: a symbol is written like BTC/USDT or BTC/USDT:USDT", EXIT_USAGE)
    return symbol


def _policies(names: Collection[str]) -> frozenset[Repair]:
    try:
        return frozenset(map(Repair, names))
    except ValueError as error:
        raise DataError(f"--repair: {error}; there is {', '.join(Repair)}", EXIT_USAGE) from None


def _alone(name: str, specs: Sequence[str], repair: Collection[str]) -> None:
    if len(specs) > 1:
        raise DataError(f"--data: {name} does not go with other data", EXIT_USAGE)
    if repair:
        raise DataError(f"--repair is for files of candles: nothing in {name} needs it", EXIT_USAGE)


def _ledger(spec: Spec, symbols: Sequence[str], times: tuple[int, int]) -> MarketData:
    import asyncio

    from bot.backtest.data.ledger import read_ticks

    wanted = [spec.symbol] if spec.symbol else symbols
    return MarketData(*times, ticks=asyncio.run(read_ticks(spec.path, wanted, *times)))


def _simulated(
    given: SimulatedMarket, symbols: Sequence[str], timeframe: Timeframe, times: tuple[int, int], *, has_range: bool
) -> MarketData:
    from bot.backtest.data.simulated import SimulatedSource

    if timeframe.ms < given.interval_ms:
        raise DataError(
            f"--timeframe {timeframe.name} is shorter than feed.poll_interval_s = {given.interval_ms / 1000:g}: every"
            " candle needs a poll at least",
            EXIT_USAGE,
        )
    start_ms, end_ms = times
    if not has_range:
        end_ms = given.start_ms + SIMULATED_DAYS * DAY_MS
    start_ms = start_ms or given.start_ms
    if end_ms <= start_ms:
        raise DataError("--timerange: it ends before the simulated market begins: set feed.simulated.start", EXIT_USAGE)
    series = {}
    for symbol in symbols or given.symbols:
        source = SimulatedSource(symbol, given, timeframe, start_ms, end_ms)
        series[symbol] = Series(symbol, timeframe, source.market, source, start_ms, end_ms)
    return MarketData(start_ms, end_ms, timeframe, series)
