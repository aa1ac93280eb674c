"""Look-ups that take longer than anybody wants to wait."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from bot.exchange.lookups import Lookups

STUCK = """
import asyncio, threading
from bot.exchange.lookups import Lookups

async def main():
    loop = asyncio.get_running_loop()
    loop.set_default_executor(Lookups())
    with_nobody_there = loop.run_in_executor(None, threading.Event().wait, 60)
    await asyncio.wait([with_nobody_there], timeout=0.1)

asyncio.run(main())
"""


def test_one_that_is_stuck_does_not_hold_up_the_end_of_the_process() -> None:
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run([sys.executable, "-c", STUCK], cwd=root, timeout=20, capture_output=True, check=False)
    assert (result.returncode, result.stderr) == (0, b"")


async def test_answers_and_failures_come_back() -> None:
    loop = asyncio.get_running_loop()
    with Lookups() as lookups:
        assert await loop.run_in_executor(lookups, int, "5") == 5
        with pytest.raises(ValueError, match="five"):
            await loop.run_in_executor(lookups, int, "five")
