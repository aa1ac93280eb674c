"""Whether a strategy keeps the promises of ``ports.Strategy``, in seconds."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

from bot.backtest.check.answers import answers, purity
from bot.backtest.check.case import Asked, Broken, Case, Hung, Unusable
from bot.backtest.check.causality import causality
from bot.backtest.check.live import event_driven
from bot.backtest.check.markets import parts_of, random_markets
from bot.backtest.check.parity import SIZINGS, EventDriven, parity, trials
from bot.backtest.check.warmup import warm_up
from bot.backtest.source import FILLS
from bot.ports import Strategy
from bot.timeframes import Timeframe

__all__ = ["Finding", "Hung", "Report", "checked", "examined"]

BARS = 1_000
# A strategy that looks back on many bars is asked about twice as many, up to here.
BARS_MAX = 100_000
# To trade in both engines, every sizing and fill rule.
_PARITY_S = 2.0

Limit = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found, as a line for people. ``ok`` is None where it was not made. ``bar``, counted from 0, is the
    first that breaks the promise, in ``market``."""

    name: str
    ok: bool | None
    detail: str
    market: str | None = None
    bar: int | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Report:
    """All findings on one strategy, with what it was asked about."""

    strategy: str
    lookback: int
    timeframe: str
    bars: int
    seed: int
    checks: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        return all(check.ok is not False for check in self.checks)

    def document(self) -> dict[str, Any]:
        return {"ok": self.ok, **asdict(self)}


def checked(
    build: Callable[[], Strategy],
    *,
    timeframe: Timeframe,
    monotonic: Callable[[], float],
    bars: int | None = None,
    seed: int = 7,
    event_driven: EventDriven = event_driven,
    limit: Limit = nullcontext,
) -> Report:
    """Checks a strategy on random markets of so many bars (None: about a thousand).

    ``build`` makes the strategy, anew each time, and what it raises is raised. ``limit`` is entered for each question
    and may raise ``Hung`` inside of it. Of a strategy that takes its time, by ``monotonic``, fewer bars are looked at.
    """
    with warnings.catch_warnings():
        # A warning of a division by zero, as numpy gives them, is no mistake: what comes out of it is judged.
        warnings.simplefilter("ignore")
        asked = Asked(build(), limit)
        length = bars or max(BARS, 2 * asked.lookback)
        problem = _no_bars(asked.lookback, length)
        if problem:
            return Report(asked.name, asked.lookback, timeframe.name, 0, seed, (Finding("bars", False, problem),))
        case = Case(build, asked, random_markets(seed, length, timeframe), seed, monotonic, limit)
        checks = examined(case, lambda: _compared(case, timeframe, event_driven))
        return Report(asked.name, asked.lookback, timeframe.name, length, seed, tuple(checks))


def examined(case: Case, compared: Callable[[], str]) -> Iterator[Finding]:
    """One check after the other, over any bars; ``compared`` is that of the two engines. Where a check fails without
    which the later ones mean nothing, these are not made."""
    without = ""
    for name, check, needed in (
        ("answers", lambda: answers(case), False),
        ("purity", lambda: purity(case), True),
        ("causality", lambda: causality(case), True),
        ("warm-up", lambda: warm_up(case), False),
        ("parity", compared, False),
    ):
        if without:
            yield Finding(name, None, f"not checked: nothing follows from it while {without} fails")
        else:
            finding, usable = _made(name, check, case)
            yield finding
            if not finding.ok and (needed or not usable):
                without = name


def _made(name: str, check: Callable[[], str], case: Case) -> tuple[Finding, bool]:
    """The finding, and whether the strategy can be asked further."""
    elapsed = case.elapsed()
    try:
        told = check()
    except Broken as error:
        usable = not isinstance(error, Unusable)
        return Finding(name, False, str(error), error.market, error.bar, round(elapsed(), 3)), usable
    except Hung as error:
        return Finding(name, False, str(error), seconds=round(elapsed(), 3)), False
    return Finding(name, True, told, seconds=round(elapsed(), 3)), True


def _no_bars(lookback: int, length: int) -> str | None:
    """Why a lookback and so many bars do not go together."""
    if lookback < length <= BARS_MAX:
        return None
    if 2 * lookback <= BARS_MAX:
        return f"it looks back on {lookback:,} bars, more than there are: give --bars {2 * lookback}"
    return f"it looks back on {lookback:,} bars, and there are {BARS_MAX:,} at most: check it with a shorter lookback"


def _compared(case: Case, timeframe: Timeframe, event_driven: EventDriven) -> str:
    """Parity on candles of which several make a bar."""
    length = len(case)
    # Both engines ask about all markets in each run.
    asked_s = 2 * len(SIZINGS) * len(FILLS) * case.timed(lambda: case.asked.of_all(case.bars))
    if asked_s > _PARITY_S:
        length = min(length, max(2 * case.asked.lookback, int(length * _PARITY_S / asked_s)))
    candle = parts_of(timeframe)
    candles = random_markets(case.seed, length * max(1, round(timeframe.ms / candle.ms)), candle)
    return parity(trials(case.asked, timeframe, candles, candle, FILLS), event_driven)
