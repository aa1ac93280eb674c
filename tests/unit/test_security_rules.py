"""What is let past the security rules of ruff and bandit, and that it says why."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MARKED = re.compile(r"# (?:noqa: .*\bS\d{3}|nosec)")
EXPLAINED = re.compile(r"# nosec B\d{3} # [A-Za-z].{5,}$")
LINES = [
    pytest.param(line, id=f"{file.relative_to(ROOT)}:{number}")
    for file in sorted((*(ROOT / "bot").rglob("*.py"), ROOT / "main.py"))
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1)
    if MARKED.search(line)
]


@pytest.mark.parametrize("line", LINES)
def test_every_exception_is_explained_where_it_stands(line: str) -> None:
    assert EXPLAINED.search(line)


@pytest.mark.parametrize(
    "line",
    [
        "x  # noqa: S608",
        "x  # noqa: S608 # nosec B608",
        "x  # nosec",
        "x  # nosec B608",
        "x  # noqa: BLE001, S110 # nosec",
    ],
)
def test_one_without_a_word_is_none(line: str) -> None:
    assert MARKED.search(line)
    assert not EXPLAINED.search(line)
