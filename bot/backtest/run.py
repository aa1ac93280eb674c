"""``run_backtest``: one strategy over bars in memory, with its trades, equity curve and metrics."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Mapping
from decimal import Decimal

import numpy as np

from bot.backtest.result import Result
from bot.backtest.setup import Setup
from bot.backtest.source import FILLS, NEXT_OPEN, CandleSource, are_candles
from bot.backtest.vectorised import CHUNK
from bot.domain import AMOUNT_LIMIT, Bars, Market, quote_currency, to_decimal
from bot.engine import Sizing, SizingKind
from bot.fills import Terms
from bot.ports import Strategy
from bot.timeframes import DAY_MS, MINUTE_MS, TIMEFRAMES, Timeframe, timeframe_of

SYMBOL = "BTC/USDT"
# How long a candle is shows within so many of them, gaps or not; within a few there may be nothing but gaps.
_LOOKED_AT = 4_096
_FEW = 10
_EVER_MS = -(2**63)


def run_backtest(
    bars: Bars | Mapping[str, Bars],
    strategy: Strategy,
    *,
    capital: float | Decimal,
    quantity: float | Decimal | None = None,
    quote_amount: float | Decimal | None = None,
    equity_fraction: float | Decimal | None = None,
    fee_rate: float | Decimal | None = None,
    slippage_bps: float | Decimal = 0,
    fill: str = NEXT_OPEN,
    timeframe: str | None = None,
    markets: Mapping[str, Market] | None = None,
    start_ms: int | None = None,
) -> Result:
    """Trades a strategy over bars, all at once, as the loop would have traded it.

    ``bars`` is of shape [N], or a mapping of such by symbol, all of one length and in one quote currency: one account
    trades them all. ``capital`` is in that currency. A target of 1 means ``quantity`` units of the base currency,
    ``quote_amount`` in the quote currency or ``equity_fraction`` of the account, exactly one of them. ``fee_rate`` is a
    rate of each fill's cost (None: the market's own, 0.001 where it states none), ``slippage_bps`` basis points of the
    quote, against the order. ``fill`` is "next_open" (decided on bar N, filled at the open of the next) or "close"
    (filled at the bar's own close). With a ``timeframe`` the strategy sees bars of that length, made of these.
    ``markets`` sets steps and limits of orders. Bars before ``start_ms`` are looked back on and not traded.

    Volume is zero for the strategy, as it is live. Raises ValueError for an option that makes no sense, and for bars
    that are no candles or out of order. A strategy that raises holds where it does, and the last time is told in a
    RuntimeWarning.
    """
    setup = setup_of(
        bars,
        capital=capital,
        quantity=quantity,
        quote_amount=quote_amount,
        equity_fraction=equity_fraction,
        fee_rate=fee_rate,
        slippage_bps=slippage_bps,
        fill=fill,
        timeframe=timeframe,
        markets=markets,
        start_ms=start_ms,
    )
    raised: deque[Exception | SystemExit] = deque(maxlen=1)
    result = next(setup.results([strategy], raised.append))
    for error in raised:
        told = f"{strategy.name} raised, and held where it did: {type(error).__name__}: {error}".rstrip(": ")
        warnings.warn(told, RuntimeWarning, stacklevel=2)
    return result


def setup_of(
    bars: Bars | Mapping[str, Bars],
    *,
    capital: float | Decimal,
    quantity: float | Decimal | None = None,
    quote_amount: float | Decimal | None = None,
    equity_fraction: float | Decimal | None = None,
    fee_rate: float | Decimal | None = None,
    slippage_bps: float | Decimal = 0,
    fill: str = NEXT_OPEN,
    timeframe: str | None = None,
    markets: Mapping[str, Market] | None = None,
    start_ms: int | None = None,
) -> Setup:
    """All of a backtest but its strategy, from the options of ``run_backtest``. Raises ValueError as it does."""
    if fill not in FILLS:
        raise ValueError(f"fill must be {' or '.join(FILLS)}, got {fill!r}")
    sizing, decided_on = _sizing(quantity, quote_amount, equity_fraction), _named(timeframe)
    by_symbol = {SYMBOL: bars} if isinstance(bars, Bars) else dict(bars)
    _check(by_symbol)
    base = _base(by_symbol)
    if decided_on is not None and not base.makes(decided_on):
        raise ValueError(f"bars of {decided_on.name} cannot be made of bars of {base.name}")
    start = _EVER_MS if start_ms is None else start_ms
    sources = {
        symbol: CandleSource((markets or {}).get(symbol) or Market(symbol, Decimal("1e-8")), each, base, start, fill)
        for symbol, each in by_symbol.items()
    }
    rate = None if fee_rate is None else _decimal("fee_rate", fee_rate, zero=True)
    terms = Terms(rate, _decimal("slippage_bps", slippage_bps, zero=True))
    return Setup(sources, _decimal("capital", capital), sizing, terms, decided_on)


def _sizing(*sizes: float | Decimal | None) -> Sizing:
    given = [(kind, size) for kind, size in zip(SizingKind, sizes, strict=True) if size is not None]
    if len(given) != 1:
        raise ValueError(f"exactly one of {', '.join(SizingKind)} must be given")
    sizing = Sizing(given[0][0], _decimal(*given[0]))
    if sizing.kind is SizingKind.EQUITY_FRACTION and sizing.value > 1:
        raise ValueError(f"equity_fraction must be at most 1, got {sizing.value}")
    return sizing


def _decimal(name: str, value: float | Decimal, *, zero: bool = False) -> Decimal:
    number = value if isinstance(value, Decimal) else to_decimal(value)
    if not number.is_finite() or number < 0 or not (number or zero):
        raise ValueError(f"{name} must be {'zero or more' if zero else 'positive'}, got {value}")
    if number >= AMOUNT_LIMIT:
        raise ValueError(f"{name} must be below {AMOUNT_LIMIT:,}, got {value}")
    return number


def _named(timeframe: str | None) -> Timeframe | None:
    if timeframe is not None and timeframe not in TIMEFRAMES:
        raise ValueError(f"timeframe must be one of {', '.join(TIMEFRAMES)}, got {timeframe!r}")
    return None if timeframe is None else timeframe_of(timeframe)


def _check(by_symbol: Mapping[str, Bars]) -> None:
    if not by_symbol or any(bars.close.ndim != 1 for bars in by_symbol.values()):
        raise ValueError("bars must be of shape [N], or a mapping of such by symbol")
    currencies = {quote_currency(symbol) for symbol in by_symbol}
    if len(currencies) > 1:
        raise ValueError(f"an account has one currency, and bars are quoted in {', '.join(sorted(currencies))}")
    for symbol, bars in by_symbol.items():
        columns = bars.open, bars.high, bars.low, bars.close
        if any(len(column) != len(bars) for column in columns):
            raise ValueError(f"bars of {symbol} have columns of different lengths")
        if (bars.timestamp[1:] <= bars.timestamp[:-1]).any():
            raise ValueError(f"bars of {symbol} need strictly increasing timestamps")
        ticks = bars.open is bars.high is bars.low is bars.close
        for start in range(0, len(bars), CHUNK):
            chunk = slice(start, start + CHUNK)
            prices = [bars.close[chunk]] * 4 if ticks else [column[chunk] for column in columns]
            if not (sound := are_candles(*prices)).all():
                row = int(np.argmin(sound))
                told = ", ".join(str(float(column[row])) for column in prices)
                raise ValueError(f"bar {start + row} of {symbol} is no candle: open, high, low and close are {told}")


def _base(by_symbol: Mapping[str, Bars]) -> Timeframe:
    """The length of the bars, which is their least distance."""
    gaps = {symbol: np.diff(bars.timestamp[:_LOOKED_AT]) for symbol, bars in by_symbol.items() if len(bars) > 1}
    least = min((int(gap.min()) for gap in gaps.values()), default=MINUTE_MS)
    base = _of_length(least)
    for symbol, gap in gaps.items():
        if len(gap) >= _FEW and (other := _of_length(int(gap.min()))) != base:
            raise ValueError(f"bars of {symbol} are of {other.name}, and others of {base.name}: all need one length")
    return base


def _of_length(ms: int) -> Timeframe:
    if 28 <= ms // DAY_MS <= 31:
        return TIMEFRAMES["1M"]
    return next((each for each in TIMEFRAMES.values() if each.ms == ms), Timeframe(f"{ms} ms", ms))
