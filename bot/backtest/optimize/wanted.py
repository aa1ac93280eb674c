"""A search as it is asked for on the command line: options, settings and data in, a study out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bot.backtest.data import MarketData
from bot.backtest.optimize import figures
from bot.backtest.optimize.grid import Combinations, combinations
from bot.backtest.optimize.ranges import axes
from bot.backtest.optimize.study import Study, example
from bot.backtest.optimize.windows import Window, split, walk_forward
from bot.backtest.session import Progress, on_data, sources_of
from bot.backtest.setup import Setup
from bot.compose import plans_of
from bot.fills import Terms
from bot.settings import Settings
from bot.strategies.registry import Factory
from bot.timeframes import MINUTE_MS, Timeframe

# Where ticks are split.
_MINUTE = Timeframe("1m", MINUTE_MS)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is tried, and what for. ``windows`` None: one, else a walk forward of so many."""

    combinations: Combinations
    by: str
    figures: tuple[str, ...]
    split: float
    windows: int | None
    is_anchored: bool

    @classmethod
    def of(
        cls,
        params: Sequence[str],
        by: str,
        *,
        draws: int | None,
        seed: int,
        share: float,
        windows: int | None,
        is_anchored: bool,
    ) -> Wanted:
        """``params`` as they are written on the command line. Raises GridError."""
        return cls(combinations(axes(params), draws, seed), by, figures.chosen(by), share, windows, is_anchored)

    def study(self, settings: Settings, data: MarketData, progress: Progress) -> Study:
        """Of the settings' only strategy. Raises GridError, StrategyError, SettingsError and DataError."""
        (entry,) = settings.strategy
        folder = Path(settings.strategy_folder) if settings.strategy_folder else None
        params = example(Factory.of(entry.name, folder), self.combinations)
        entry = entry.model_copy(update={"params": params})
        settings = on_data(settings.model_copy(update={"strategy": (entry,)}), data)
        (plan,) = plans_of(settings, polled=False)
        terms = Terms(settings.execution.fee_rate, settings.execution.slippage_bps)
        sources = sources_of(settings, data, None, progress)
        setup = Setup(sources, entry.capital, plan.sizing, terms, plan.timeframe)
        windows = self._windows(setup, plan.timeframe or data.timeframe or _MINUTE)
        return Study(setup, entry.name, folder, self.combinations, windows, self.figures)

    def _windows(self, setup: Setup, timeframe: Timeframe) -> list[Window]:
        if self.windows is None:
            return [split(*setup.span, self.split, timeframe)]
        return walk_forward(*setup.span, self.windows, self.split, timeframe, anchored=self.is_anchored)
