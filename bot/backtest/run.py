"""``run_backtest``: one strategy over bars in memory, with its trades, equity curve and metrics."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import numpy as np

from bot.backtest.outcome import Result
from bot.backtest.source import FILLS, NEXT_OPEN, CandleSource
from bot.backtest.vectorised import simulated
from bot.domain import Account, Bars, Market, quote_currency, to_decimal
from bot.engine import Plan, Sizing, SizingKind
from bot.fills import Terms
from bot.ports import Strategy
from bot.timeframes import MINUTE_MS, TIMEFRAMES, Timeframe, timeframe_of

SYMBOL = "BTC/USDT"
# How long a candle is shows within so many of them, gaps or not.
_LOOKED_AT = 4_096


def run_backtest(
    bars: Bars | Mapping[str, Bars],
    strategy: Strategy,
    *,
    capital: float | Decimal,
    quantity: float | Decimal | None = None,
    quote_amount: float | Decimal | None = None,
    equity_fraction: float | Decimal | None = None,
    fee_rate: float | Decimal = 0,
    slippage_bps: float | Decimal = 0,
    fill: str = NEXT_OPEN,
    timeframe: str | None = None,
    markets: Mapping[str, Market] | None = None,
    start_ms: int | None = None,
) -> Result:
    """Trades a strategy over bars, all at once, as the loop would have traded it.

    ``bars`` is of shape [N], or a mapping of such by symbol: one account trades them all. A target of 1 means
    ``quantity`` units of the base currency, ``quote_amount`` in the quote currency or ``equity_fraction`` of the account,
    exactly one of them. ``capital`` is in the quote currency, ``fee_rate`` a rate of each fill's cost, ``slippage_bps``
    basis points of the quote, against the order. ``fill`` is "next_open" (decided on bar N, filled at the open of the
    next) or "close" (filled at the bar's own close). With a ``timeframe`` the strategy sees bars of that length, made of
    these. ``markets`` sets steps and limits of orders. Bars before ``start_ms`` are looked back on and not traded.

    Volume is zero for the strategy, as it is live. Raises ValueError for an option that makes no sense.
    """
    if fill not in FILLS:
        raise ValueError(f"fill must be {' or '.join(FILLS)}, got {fill!r}")
    plan = Plan(strategy, strategy.name, _sizing(quantity, quote_amount, equity_fraction), timeframe=_named(timeframe))
    by_symbol = {SYMBOL: bars} if isinstance(bars, Bars) else dict(bars)
    base = _base(by_symbol)
    if plan.timeframe is not None and plan.timeframe.ms % base.ms and plan.timeframe.name != "1M":
        raise ValueError(f"bars of {plan.timeframe.name} cannot be made of bars of {base.name}")
    sources = {
        symbol: CandleSource(
            (markets or {}).get(symbol) or Market(symbol, Decimal("1e-8")), each, base, start_ms or 0, fill
        )
        for symbol, each in by_symbol.items()
    }
    money = _decimal("capital", capital)
    account = Account(plan.account, quote_currency(next(iter(sources))), money, money)
    terms = Terms(_decimal("fee_rate", fee_rate, zero=True), _decimal("slippage_bps", slippage_bps, zero=True))
    booked = simulated(plan, account, sources, terms)
    return Result.of(plan, money, sources, booked)


def _sizing(*sizes: float | Decimal | None) -> Sizing:
    given = [(kind, size) for kind, size in zip(SizingKind, sizes, strict=True) if size is not None]
    if len(given) != 1:
        raise ValueError(f"exactly one of {', '.join(SizingKind)} must be given")
    kind, size = given[0]
    return Sizing(kind, _decimal(kind.value, size))


def _decimal(name: str, value: float | Decimal, *, zero: bool = False) -> Decimal:
    number = value if isinstance(value, Decimal) else to_decimal(value)
    if not number.is_finite() or number < 0 or not (number or zero):
        raise ValueError(f"{name} must be {'zero or more' if zero else 'positive'}, got {value}")
    return number


def _named(timeframe: str | None) -> Timeframe | None:
    if timeframe is not None and timeframe not in TIMEFRAMES:
        raise ValueError(f"timeframe must be one of {', '.join(TIMEFRAMES)}, got {timeframe!r}")
    return None if timeframe is None else timeframe_of(timeframe)


def _base(by_symbol: Mapping[str, Bars]) -> Timeframe:
    """The length of the bars, which is their least distance."""
    if not by_symbol or any(bars.close.ndim != 1 for bars in by_symbol.values()):
        raise ValueError("bars must be of shape [N], or a mapping of such by symbol")
    gaps = [np.diff(bars.timestamp[:_LOOKED_AT]) for bars in by_symbol.values()]
    least = min((int(gap.min()) for gap in gaps if len(gap)), default=MINUTE_MS)
    known = [timeframe for timeframe in TIMEFRAMES.values() if timeframe.ms == least]
    if 28 <= least // 86_400_000 <= 31:
        known = [TIMEFRAMES["1M"]]
    return known[0] if known else Timeframe(f"{least} ms", least)
