"""Days of trading in seconds, with everything going wrong that can; a seed that fails fails again.

What is checked, and when, is in ``world`` and ``checks``; the mistakes that it must be able to find are in ``bugs``.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from tests.simulation.bugs import BUGS
from tests.simulation.chance import Chance
from tests.simulation.checks import Violation
from tests.simulation.daemon import Parts
from tests.simulation.eventloop import Deadlock, SimulatedLoop, passed, simulate
from tests.simulation.world import Outcome, lived

HOURS = 6.0
DAY_S = 86_400
# A day, and with as many restarts as there are in it.
LOG_BYTES_MAX = 10**6
# Days have fewer accidents an hour, and stretches of trading between them.
CALMER = 0.3
# Of seed 1 for half an hour, on every Python version. It changes with what the daemon does, and then it may.
GOLDEN = ("478a1c2cbd213f3818466a1b67e09593", 0.5)
SEEDS_FOR_BUGS = 8
# Seeds that found a mistake once: 154 a price that was traded on after the wall clock had been set back.
REMEMBERED = (154,)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    option = metafunc.config.getoption
    if "seed" in metafunc.fixturenames:
        only = option("--seed")
        metafunc.parametrize("seed", [*range(1, option("--seeds") + 1), *REMEMBERED] if only is None else [only])
    if "days" in metafunc.fixturenames:
        # Ten times what it takes, and more for the first one: the machine may have other things to do.
        limit = pytest.mark.timeout(240 + 60 * option("--days"))
        metafunc.parametrize("days", [pytest.param(option("--days"), marks=limit)])


def simulated(seed: int, hours: float, calmer: float = 1.0, options: str = "") -> Outcome:
    try:
        return lived(seed, hours, calmer=calmer)
    except Violation as error:
        cause = "".join(traceback.format_exception(error.__cause__)) if error.__cause__ else ""
        repeat = f"to see it again: python -m pytest tests/simulation --seed {seed}{options}"
        pytest.fail(f"{cause}{error}\n{repeat}", pytrace=False)


def test_days(days: float, request: pytest.FixtureRequest) -> None:
    """The first one, because it takes the longest."""
    seed = request.config.getoption("--seed") or 1
    outcome = simulated(seed, days * DAY_S / 3600, CALMER, f" --days {days:g}")
    assert outcome.polls > 5000 * days
    assert outcome.trades > 500 * days
    assert len(outcome.log.encode()) < LOG_BYTES_MAX * max(days, 1)


@pytest.mark.timeout(120)
def test_hours_of_a_seed(seed: int) -> None:
    outcome = simulated(seed, HOURS)
    assert outcome.seconds >= HOURS * 3600
    assert outcome.polls > 100


class TestRepeats:
    """The same seed is the same world, or nobody could look at a failure again."""

    @pytest.mark.parametrize("world", [2, 3, 4])
    def test_twice(self, world: int) -> None:
        assert lived(world, 1) == lived(world, 1)

    def test_seeds_differ(self) -> None:
        assert len({lived(seed, 0.2).trace for seed in (1, 2, 3)}) == 3

    def test_whatever_the_hashes_are(self) -> None:
        found = {trace_of_another_process(PYTHONHASHSEED=number) for number in ("1", "2")}
        assert found == {GOLDEN[0]}

    def test_whatever_the_python_version(self) -> None:
        trace, hours = GOLDEN
        assert lived(1, hours).trace == trace


def trace_of_another_process(**environment: str) -> str:
    command = [sys.executable, "-m", "tests.simulation", "1", f"{GOLDEN[1]}"]
    folder = Path(__file__).parents[2]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, check=True, timeout=50
    )
    return done.stdout.strip()


class TestBugs:
    @pytest.mark.parametrize("name", BUGS)
    @pytest.mark.timeout(180)
    def test_a_planted_bug_is_found(self, name: str) -> None:
        with pytest.raises(Violation):
            several_lived(BUGS[name])

    @pytest.mark.timeout(180)
    def test_without_one_the_same_seeds_pass(self) -> None:
        several_lived(Parts())


def several_lived(parts: Parts) -> None:
    for seed in range(1, SEEDS_FOR_BUGS + 1):
        lived(seed, 1, parts)


class TestTime:
    def test_an_hour_is_over_at_once(self) -> None:
        loop = SimulatedLoop()
        simulate(passed(3600), loop)
        assert loop.time() == 3600

    def test_who_waits_for_nothing_waits_for_ever(self) -> None:
        async def wait() -> None:
            await asyncio.Event().wait()

        with pytest.raises(Deadlock):
            simulate(wait())

    def test_the_seed_decides_what_happens_first(self) -> None:
        def order(seed: int) -> tuple[int, ...]:
            done: list[int] = []

            async def several() -> None:
                async with asyncio.TaskGroup() as group:
                    for number in range(5):
                        group.create_task(one(number))

            async def one(number: int) -> None:
                done.append(number)

            simulate(several(), SimulatedLoop(Chance(seed)))
            return tuple(done)

        assert len({order(seed) for seed in range(10)}) > 5
        assert order(1) == order(1)
