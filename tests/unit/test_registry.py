from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bot.domain import Bars
from bot.ports import Strategy
from bot.strategies import StrategyError, build, known, load, names_in
from bot.strategies.crossovers import SmaCross
from bot.strategies.registry import BUILT_IN

CONTRARIAN = """
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Contrarian:
    period: int = 3

    @property
    def lookback(self):
        return self.period

    def targets(self, bars):
        return np.full(len(bars), np.nan)
"""


def problems(name: str, folder: Path | None = None, **params: Any) -> list[str]:
    with pytest.raises(StrategyError) as caught:
        load(name, params, folder)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


def strategy_file(folder: Path, name: str, source: str) -> Path:
    (folder / f"{name}.py").write_text(source)
    return folder


def test_every_built_in_is_known_and_builds_with_its_defaults() -> None:
    assert known() == sorted(BUILT_IN)
    for name in known():
        strategy = build(name)
        assert isinstance(strategy, Strategy)
        assert strategy.name == name


def test_parameters_reach_the_strategy() -> None:
    assert build("sma_cross", fast=5, slow=20, short=True) == SmaCross(5, 20, True)


def test_numbers_of_other_types_become_plain_ones() -> None:
    strategy = build("rsi_reversion", period=np.int64(7), oversold=20)
    assert repr(strategy) == "RsiReversion(period=7, oversold=20.0, overbought=70.0, short=False)"


@pytest.mark.parametrize(
    ("name", "params", "problem"),
    [
        ("sma_cross", {"fast": 30, "slow": 10}, "fast must be below slow, got fast=30 and slow=10."),
        ("sma_cross", {"fast": 10, "slow": 10}, "fast must be below slow, got fast=10 and slow=10."),
        ("sma_cross", {"fast": 0}, "fast must be a whole number from 1 to 10000, got 0."),
        ("sma_cross", {"slow": 10_001}, "slow must be a whole number from 1 to 10000, got 10001."),
        ("sma_cross", {"slow": 30.0}, "slow must be a whole number from 1 to 10000, got 30.0."),
        ("sma_cross", {"fast": True}, "fast must be a whole number from 1 to 10000, got True."),
        ("sma_cross", {"fast": "10"}, "fast must be a whole number from 1 to 10000, got '10'."),
        ("sma_cross", {"fast": None}, "fast must be a whole number from 1 to 10000, got None."),
        ("sma_cross", {"short": 1}, "short must be true or false, got 1."),
        (
            "sma_cross",
            {"fsat": 5},
            "no parameter called 'fsat' (did you mean fast?); it takes fast, slow, short.",
        ),
        ("buy_and_hold", {"period": 5}, "no parameter called 'period'; it takes none."),
        ("macd", {"fast": 26}, "fast must be below slow, got fast=26 and slow=26."),
        ("rsi_reversion", {"period": 1}, "period must be a whole number from 2 to 10000, got 1."),
        ("rsi_reversion", {"oversold": float("nan")}, "oversold must be a number from 1 to 99, got nan."),
        ("rsi_reversion", {"overbought": float("inf")}, "overbought must be a number from 1 to 99, got inf."),
        (
            "rsi_reversion",
            {"overbought": 10**400},
            f"overbought must be a number from 1 to 99, got {10**400}.",
        ),
        (
            "rsi_reversion",
            {"oversold": 70},
            "oversold must be below overbought, got oversold=70 and overbought=70.",
        ),
        (
            "bollinger_breakout",
            {"period": 5},
            (
                "deviations must be below sqrt(period - 1) = 2, or no close is ever outside the bands, "
                "got deviations=2 and period=5."
            ),
        ),
        (
            "donchian_breakout",
            {"short": True, "exit_period": 5},
            (
                "exit_period must be left out when short is true, as the opposite breakout is then the exit, "
                "got exit_period=5."
            ),
        ),
    ],
)
def test_a_bad_parameter_is_one_sentence(name: str, params: dict[str, Any], problem: str) -> None:
    assert problems(name, **params) == [f"{name}: {problem}"]


def test_all_problems_are_told_at_once() -> None:
    told = problems("sma_cross", fast=1.5, slow=0, shrt=True)
    assert [sentence.split()[1] for sentence in told] == ["no", "fast", "slow"]


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    (problem,) = problems("sma_crss")
    assert problem.startswith("unknown strategy 'sma_crss' (did you mean sma_cross?); known are ")
    assert all(name in problem for name in known())


def test_a_class_by_its_dotted_path() -> None:
    assert build("bot.strategies.crossovers:SmaCross", fast=3) == SmaCross(3)


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("no.such:Thing", "cannot import no.such: ModuleNotFoundError: No module named 'no'"),
        ("bot.strategies.crossovers:SmaCros", "has no class 'SmaCros' (did you mean SmaCross?)"),
        ("bot.domain:Bars", "timestamp must be given"),
        ("bot.domain:ZERO", "has no class 'ZERO'"),
        ("bot.domain:", "package.module:Class"),
        (":Bars", "package.module:Class"),
    ],
)
def test_a_dotted_path_that_leads_nowhere(path: str, problem: str) -> None:
    assert problem in problems(path)[0]


def test_a_class_that_is_no_strategy() -> None:
    told = problems("decimal:Decimal")
    assert told == [
        "Decimal: Decimal has no targets(bars) method.",
        "Decimal: Decimal has no lookback, the number of bars it looks at.",
    ]


def test_a_file_offers_its_class_under_the_file_name(tmp_path: Path) -> None:
    path_before = list(sys.path)
    folder = strategy_file(tmp_path, "contrarian", CONTRARIAN)
    strategy = load("contrarian", {"period": 5}, folder)
    assert (strategy.name, strategy.lookback) == ("contrarian", 5)
    assert known(folder) == sorted([*BUILT_IN, "contrarian"])
    assert sys.path == path_before
    assert isinstance(strategy, Strategy)
    ones = np.ones(3)
    assert len(strategy.targets(Bars.from_ticks(np.arange(3), ones))) == 3


def test_a_name_attribute_wins_over_the_file_name(tmp_path: Path) -> None:
    source = CONTRARIAN.replace("    period", "    name = 'against'\n    period")
    folder = strategy_file(tmp_path, "contrarian", source + "\n\nclass _Private(Contrarian): ...\n")
    assert load("against", {}, folder).name == "against"
    assert "contrarian" not in known(folder)


def test_built_ins_stay_available_beside_a_folder(tmp_path: Path) -> None:
    assert load("sma_cross", {}, tmp_path) == SmaCross()


def test_imported_names_and_private_files_are_not_offered(tmp_path: Path) -> None:
    strategy_file(tmp_path, "mine", "from bot.strategies.crossovers import SmaCross\n" + CONTRARIAN)
    strategy_file(tmp_path, "_helper", "raise RuntimeError\n")
    assert known(tmp_path) == sorted([*BUILT_IN, "mine"])


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("def f(:\n", "mine.py: SyntaxError: invalid syntax (mine.py, line 1)."),
        ("import math\nmath.sqrt(-1)\n", "mine.py line 2: ValueError: math domain error."),
        ("import nowhere_at_all\n", "line 1: ModuleNotFoundError: No module named 'nowhere_at_all'."),
        ("raise SystemExit(3)\n", "mine.py line 1: SystemExit: 3."),
        ("raise KeyError\n", "mine.py line 1: KeyError."),
        (
            "class Mine:\n    lookback = 1\n",
            "mine.py: has no class with a targets(bars) method and a lookback.",
        ),
        (
            "class Mine:\n    def targets(self, bars): ...\n",
            "mine: Mine has no lookback, the number of bars it looks at.",
        ),
        (
            "class Mine:\n    lookback = 0\n    def targets(self, bars): ...\n",
            "mine: lookback must be a whole number from 1 up, got 0.",
        ),
        (
            "class Mine:\n    lookback = 2.5\n    def targets(self, bars): ...\n",
            "mine: lookback must be a whole number from 1 up, got 2.5.",
        ),
        (
            "class Mine:\n    lookback = property(lambda self: 1 // 0)\n    def targets(self, bars): ...\n",
            "mine: Mine refused no parameters: ZeroDivisionError: integer division or modulo by zero.",
        ),
        (
            "class Mine:\n    name = 'macd'\n    lookback = 1\n    def targets(self, bars): ...\n",
            "mine.py: macd is the name of a built-in strategy; rename the file or the class's name.",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_told_in_a_sentence(tmp_path: Path, source: str, problem: str) -> None:
    (told,) = problems("mine", strategy_file(tmp_path, "mine", source))
    assert told.endswith(problem)


def test_what_a_constructor_refuses_is_told(tmp_path: Path) -> None:
    source = (
        "class Mine:\n"
        "    lookback = 1\n"
        "    def __init__(self, odd, *, even=2):\n"
        "        if odd % 2 == 0: raise ValueError('odd is even')\n"
        "    def targets(self, bars): ...\n"
    )
    folder = strategy_file(tmp_path, "mine", source)
    assert problems("mine", folder, odd=2) == ["mine: Mine refused odd=2: ValueError: odd is even."]
    assert problems("mine", folder, eve=3) == [
        "mine: no parameter called 'eve' (did you mean even?); it takes odd, even.",
        "mine: odd must be given.",
    ]
    assert load("mine", {"odd": 1}, folder).lookback == 1


def test_a_broken_neighbour_does_not_hide_a_good_file(tmp_path: Path) -> None:
    strategy_file(tmp_path, "broken", "1 / 0\n")
    strategy_file(tmp_path, "contrarian", CONTRARIAN)
    assert load("contrarian", {}, tmp_path).lookback == 3
    unknown, broken = problems("contrary", tmp_path)
    assert "did you mean contrarian?" in unknown
    assert broken == "broken.py line 1: ZeroDivisionError: division by zero."


def test_two_classes_of_one_name_are_refused(tmp_path: Path) -> None:
    folder = strategy_file(tmp_path, "mine", CONTRARIAN + CONTRARIAN.replace("Contrarian", "Other"))
    assert problems("mine", folder) == [
        "mine: mine.py:Contrarian and mine.py:Other share this name; give each class its own name attribute."
    ]


def test_a_file_named_like_a_built_in_is_refused_rather_than_ignored(tmp_path: Path) -> None:
    (told,) = problems("sma_cross", strategy_file(tmp_path, "sma_cross", CONTRARIAN))
    assert "built-in" in told


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    assert "does not exist" in problems("mine", tmp_path / "nowhere")[0]
    with pytest.raises(StrategyError, match="does not exist"):
        known(tmp_path / "nowhere")


def test_one_file_by_itself(tmp_path: Path) -> None:
    strategy_file(tmp_path, "mine", CONTRARIAN)
    strategy_file(tmp_path, "broken", "1 / 0")
    assert names_in(tmp_path / "mine.py") == ["mine"]
    assert load("mine", {"period": 5}, tmp_path / "mine.py").lookback == 5
    with pytest.raises(StrategyError, match=r"broken\.py line 1: ZeroDivisionError"):
        names_in(tmp_path / "broken.py")
    with pytest.raises(StrategyError, match="unknown strategy 'other'"):
        load("other", {}, tmp_path / "mine.py")
