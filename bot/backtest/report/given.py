"""What a report is made of. Whoever ran a backtest fills these in; everything else in this package only reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass
from typing import Any, ClassVar, Protocol

from bot.backtest.curve import Curve
from bot.backtest.report.prices import PricePoints
from bot.backtest.trades import Trades
from bot.backtest.trips import RoundTrips


class Figures(Protocol):
    """A dataclass of plain numbers, texts, mappings and tuples of these: None for what is undefined, and UTC
    milliseconds in the fields that are named in ``document.TIMES``."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


@dataclass(frozen=True, slots=True)
class Run:
    """What was run, for all strategies alike.

    ``data`` names where the prices came from, ``bars`` counts those of all symbols, ``fill`` is "next_open" or "close",
    ``fee_rate`` is None where each market's own was charged; times are UTC milliseconds, from the first bar's open to
    the last one's end. ``files`` tell what was found in each file of candles, and what was repaired.
    """

    version: str
    engine: str
    data: tuple[str, ...]
    symbols: tuple[str, ...]
    currency: str
    timeframe: str
    bars: int
    start_ms: int
    end_ms: int
    fill: str
    fee_rate: float | None
    slippage_bps: float
    files: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """One strategy and what became of its account.

    ``metrics``, and the rows ``by_symbol``, ``by_reason`` and ``total``, are those of ``bot.backtest.metrics``.
    ``trips`` are the closed round trips, ``open_trips`` those that the end of the data found open.
    """

    account: str
    strategy: str
    params: Mapping[str, Any]
    timeframe: str
    sizing: str
    metrics: Figures
    by_symbol: Sequence[Figures]
    by_reason: Sequence[Figures]
    total: Figures
    trips: RoundTrips
    open_trips: RoundTrips
    fills: Trades
    curve: Curve


@dataclass(frozen=True, slots=True)
class Report:
    """``reasons`` are the words for the round trips' reasons, ``prices`` those of each of the run's symbols; they are
    needed for a page or a picture only."""

    run: Run
    outcomes: tuple[Outcome, ...]
    reasons: tuple[str, ...]
    prices: tuple[PricePoints, ...] = ()
