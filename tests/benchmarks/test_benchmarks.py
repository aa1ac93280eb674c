"""The benchmarks run, at a hundredth of their size; what they measure is nobody's assertion."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.benchmarks.measure import MEASUREMENTS
from tests.benchmarks.scenario import Line


@pytest.mark.parametrize("measure", MEASUREMENTS, ids=lambda measure: measure.__name__)
def test_a_benchmark_gives_its_lines(measure: Callable[[Path, float], list[Line]], tmp_path: Path) -> None:
    lines = measure(tmp_path, 0.01)
    assert lines
    assert all(line.what and line.figure for line in lines)
    assert all(line.ratio is None or line.ratio > 0 for line in lines)
