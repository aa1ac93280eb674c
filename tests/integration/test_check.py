"""``check`` from the outside: the verb, and both engines compared by the loop itself."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer

from bot.backtest.check import Finding, Hung, checked
from bot.backtest.check.live import event_driven
from bot.backtest.check.markets import random_markets
from bot.backtest.check.parity import Trial, first_difference, parity, trials, vectorised
from bot.backtest.source import FILLS, NEXT_OPEN
from bot.backtest.trades import Trades
from bot.cli.check import deadline
from bot.cli.shared import application, params_of
from bot.strategies import build
from bot.timeframes import TIMEFRAMES
from tests.integration.daemon import paperloop
from tests.scripted import Momentum

AHEAD = """
import numpy as np


class Ahead:
    name, lookback = "ahead", 5

    def __init__(self, ahead=1, least=0.0):
        self.ahead, self.least = ahead, least

    def targets(self, bars):
        print("looking")
        found = np.full(len(bars), np.nan)
        if len(bars) > self.ahead:
            change = bars.close[self.ahead :] - bars.close[: len(bars) - self.ahead]
            found[: len(change)] = np.where(change > self.least, 1.0, 0.0)
        found[:4] = np.nan
        return found
"""


class TestParity:
    @pytest.mark.parametrize(
        ("strategy", "timeframe", "candle"),
        [
            (build("sma_cross", fast=3, slow=8, short=True), "1m", "1m"),
            (build("donchian_breakout", period=5), "1h", "30m"),
            (Momentum(), "5m", "1m"),
        ],
    )
    def test_every_sizing(self, strategy: Any, timeframe: str, candle: str) -> None:
        each = TIMEFRAMES[candle]
        given = trials(strategy, TIMEFRAMES[timeframe], random_markets(3, 300, each), each, FILLS)
        told = parity(given, event_driven)
        assert "trades in 6 runs" in told
        assert int(told.split()[0].replace(",", "")) > 50

    def test_engines_that_part(self) -> None:
        """One sees a candle that the other does not."""
        minute = TIMEFRAMES["1m"]
        trial = next(trials(Momentum(), minute, random_markets(3, 300, minute), minute, [NEXT_OPEN]))
        shorter = {symbol: bars[:-30] for symbol, bars in trial.candles.items()}
        difference = first_difference(vectorised(trial), event_driven(replace(trial, candles=shorter)))
        assert difference is not None
        assert "trades over arrays" in difference

    def test_as_one_of_the_checks(self) -> None:
        def without_the_last(trial: Trial) -> Trades:
            found = event_driven(trial)
            return Trades(found.symbols, *(getattr(found, column)[:-1] for column in Trades.__slots__[1:]))

        def last(engine: Any) -> Finding:
            minute = TIMEFRAMES["1m"]
            return checked(Momentum, timeframe=minute, monotonic=lambda: 0.0, bars=100, event_driven=engine).checks[-1]

        whole = last(event_driven)
        assert (whole.name, whole.ok) == ("parity", True)
        found = last(without_the_last)
        assert (found.ok, found.bar) == (False, None)
        assert found.detail.startswith("with quantity and fills at next_open, ")
        assert found.detail.endswith(" is only over arrays")


class TestDeadline:
    def test_it_ends_what_never_ends(self) -> None:
        def never_ending() -> None:
            with deadline(0.01):
                while True:
                    pass

        with pytest.raises(Hung, match=r"no answer within 0\.01 s"):
            never_ending()

    def test_the_alarm_that_was_set_before_is_set_after(self) -> None:
        handler, before = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)
        with deadline(5):
            assert signal.getsignal(signal.SIGALRM) is not handler
        assert signal.getsignal(signal.SIGALRM) is handler
        assert (signal.getitimer(signal.ITIMER_REAL)[0] > 0) is (before[0] > 0)


class TestParams:
    def test_values_are_read_as_those_of_set(self) -> None:
        given = ["fast=5", "ratio=0.5", "short=true", "mode=slow", 'text="5"', "list=[1, 2]", "fast=6"]
        expected = {"fast": 6, "ratio": 0.5, "short": True, "mode": "slow", "text": "5", "list": [1, 2]}
        assert params_of(given) == expected
        assert isinstance(params_of(given)["ratio"], float)
        assert params_of(None) == {}

    @pytest.mark.parametrize("text", ["fast", "=5", "fast= 5", "fast=nan", 'fast="5', "fast=[1", " fast=5"])
    def test_nonsense_is_told(self, text: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(typer.Exit) as caught:
            params_of([text])
        assert caught.value.exit_code == 2
        assert f"paperloop: --param {text}: " in capsys.readouterr().err


class TestVerb:
    def test_one_that_keeps_its_promises(self, tmp_path: Path) -> None:
        result = paperloop("check", "sma_cross", "--param", "fast=3", "-p", "slow=8", "--bars", "100", folder=tmp_path)
        assert (result.code, result.err) == (0, "")
        heading, *lines = result.out.splitlines()
        assert heading.startswith("sma_cross: looks back on 8 bars; asked about 100 bars of 1m")
        assert [line.split()[1] for line in lines] == ["answers", "purity", "causality", "warm-up", "parity"]

    def test_one_that_does_not(self, tmp_path: Path) -> None:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine/ahead.py").write_text(AHEAD)
        by_name = ("ahead", "--set", "strategy_folder=mine", "--json")
        result = paperloop("check", *by_name, "--bars", "60", "--param", "ahead=2", "-t", "1h", folder=tmp_path)
        assert (result.code, result.err) == (1, "")
        checks = {check["name"]: check for check in result.document["checks"]}
        assert (result.document["ok"], result.document["strategy"]) == (False, "ahead")
        assert (checks["answers"]["ok"], checks["causality"]["ok"], checks["warm-up"]["ok"]) == (False, False, None)
        assert "prints 'looking'" in checks["answers"]["detail"]
        assert checks["causality"]["bar"] == 4
        assert "looks 2 bars ahead" in checks["causality"]["detail"]

    def test_a_file(self, tmp_path: Path) -> None:
        """Its neighbours are left alone."""
        (tmp_path / "ahead.py").write_text(AHEAD)
        (tmp_path / "other.py").write_text('raise SystemExit("not asked for")')
        result = paperloop("check", "ahead.py", "--bars", "60", folder=tmp_path)
        assert (result.code, result.err) == (1, "")
        assert "FAILED   causality  bar 4 " in result.out
        assert "looks 1 bar ahead" in result.out

    def test_those_of_the_configuration(self, tmp_path: Path) -> None:
        result = paperloop("check", "--bars", "60", "--json", "--config", "c.toml", folder=written(tmp_path))
        assert result.code == 0
        told = [(each["strategy"], each["timeframe"], each["ok"]) for each in result.document["strategies"]]
        assert told == [("sma_cross", "1h", True), ("buy_and_hold", "1m", True)]

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["smacross"], "did you mean sma_cross?"),
            (["sma_cross", "--param", "fast=50"], "fast must be below slow"),
            (["none.py"], "none.py: there is no such file"),
            (["sma_cross", "-t", "7m"], "--timeframe 7m: must be one of 1m, 3m"),
            (["-p", "fast=5"], "--param needs the name of a STRATEGY"),
        ],
    )
    def test_slips_are_told_in_one_line(
        self, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as ended:
            application(["check", *arguments])
        told = capsys.readouterr()
        assert (ended.value.code, told.out, told.err.count("\n")) == (2, "", 1)
        assert told.err.startswith("paperloop: ")
        assert words in told.err


def written(folder: Path) -> Path:
    (folder / "c.toml").write_text(
        '[[strategy]]\nname = "sma_cross"\nparams = { fast = 3, slow = 8 }\ntimeframe = "1h"\n'
        '[[strategy]]\nname = "buy_and_hold"\n'
    )
    return folder
