"""``paperloop optimize`` as its users run it."""

from __future__ import annotations

from pathlib import Path
from signal import SIGINT

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.integration.daemon import Daemon, together

HOUR_MS = 3_600_000
START_MS = 1_704_067_200_000
# Steps of the search that nobody outlives: the ninth and all after it.
STUCK = """
import threading
from dataclasses import dataclass
from pathlib import Path

print("hello")


@dataclass(frozen=True)
class Stuck:
    level: int = 1
    lookback = 1

    def targets(self, bars):
        if self.level > 8:
            Path(__file__).with_name(f"stuck-{self.level}").touch()
            threading.Event().wait()
        return (bars.close % self.level < 0.5 * self.level).astype(float)
"""
SEARCH = ("optimize", "--data", "prices.csv", "--quantity", "1", "--fee-rate", "0.0002", "--capital", "100000")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(7)
    prices = np.round(100 * np.exp(np.cumsum(rng.normal(0, 0.01, 600))), 2).tolist()
    lines = [f"{START_MS + row * HOUR_MS},{price},{price},{price},{price},1" for row, price in enumerate(prices)]
    (tmp_path / "prices.csv").write_text("\n".join(["timestamp,open,high,low,close,volume", *lines]) + "\n")
    (tmp_path / "strategies").mkdir()
    (tmp_path / "strategies" / "stuck.py").write_text(STUCK)
    return tmp_path


def test_the_same_whatever_the_processes(folder: Path) -> None:
    own = (
        "--strategy",
        "stuck",
        "--set",
        "strategy_folder=strategies",
        "--param",
        "level=1:8:1",
        "--top",
        "3",
        "--json",
    )
    grid = ("--strategy", "sma_cross", "--param", "fast=2:8:2", "--param", "slow=8,16", "--walk-forward", "2")
    calls = [
        (*SEARCH, *own, "--jobs", "1", "--output", "one.parquet"),
        (*SEARCH, *own, "--jobs", "2", "--output", "two.parquet"),
        (*SEARCH, *grid),
    ]
    one, two, table = together(calls, folder)
    assert (one.code, two.code, table.code) == (0, 0, 0), (one, two, table)
    assert one.document == two.document
    assert one.document["tried"] == 8
    assert [row["rank"] for row in one.document["windows"][0]["top"]] == [1, 2, 3]
    assert "hello" in two.err
    first, second = (pq.read_table(folder / f"{name}.parquet") for name in ("one", "two"))
    assert first.equals(second)
    assert first.num_rows == 8
    assert "1 refused by the strategy" in table.out
    assert "joined out of sample" in table.out


def test_an_interrupt_ends_all_and_shows_what_there_is(folder: Path) -> None:
    own = ("--strategy", "stuck", "--set", "strategy_folder=strategies", "--param", "level=1:16:1", "--jobs", "2")
    with Daemon(*SEARCH, *own, "--output", "found.parquet", folder=folder) as process:
        process.wait_until(lambda: len(list(folder.glob("strategies/stuck-*"))) == 2, "both processes are stuck")
        # What is left of them would keep its output open, and this would not end.
        result = process.stop(SIGINT)
    assert result.code == 130, result
    assert "16 combinations, 8 tried until it ended" in result.out
    assert result.err.endswith("paperloop: interrupted; what was done until then is above\n")
    rows = pq.read_table(folder / "found.parquet").to_pylist()
    assert [row["status"] for row in rows] == ["tried"] * 8 + ["not_tried"] * 8


def test_what_is_wrong_is_told_in_one_line(folder: Path) -> None:
    grid = (*SEARCH, "--strategy", "sma_cross")
    calls = {
        (*grid, "--param", "fast=5:50:0"): "--param fast=5:50:0: the step must be above 0, got 0",
        (*grid, "--param", "fsat=5", "--output", "x.parquet"): "no parameter called 'fsat' (did you mean fast?)",
    }
    for (call, problem), result in zip(calls.items(), together(list(calls), folder), strict=True):
        assert (result.code, result.out) == (2, ""), call
        assert result.err.count("\n") == 1
        assert problem in result.err
