"""How much of the long reliability runs to do. The defaults keep the test command short; `.ci/run` asks for more."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

from tests.integration.daemon import NEW_PROCESSES

# The same examples everywhere and every time: a test that fails on one machine fails on all.
settings.register_profile("deterministic", derandomize=True, deadline=None)
settings.load_profile("deterministic")

OPTIONS = {
    "--kills": (8, "how often the real daemon is killed"),
    "--cuts": (200, "how many states a power cut could leave are looked at"),
    "--flips": (50, "how many bits in the rows of a ledger are flipped, one at a time"),
    "--io-every": (40, "every how many of a run's writes and fsyncs one is made to fail; 1: every single one"),
    "--seeds": (2, "how many seeds are simulated"),
    "--seed": (None, "simulates this one seed only, to see a failure again"),
    "--days": (0.25, "how many days the long simulation lasts"),
    "--soak-ticks": (40_000, "how many ticks go through one process in the soak test"),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("reliability")
    for name, (default, text) in OPTIONS.items():
        kind = float if isinstance(default, float) else int
        group.addoption(name, type=kind, default=default, help=f"{text} (default: {default})", metavar="N")
    group.addoption("--systemd", action="store_true", help="also what takes systemd seconds to do")
    group.addoption("--new-processes", action="store_true", help="each command is a new process, no fork of a warm one")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--new-processes"):
        os.environ[NEW_PROCESSES] = "1"
