"""Months in one process: what it holds in its second half is what it held in its first, and the ledger grows as the
README says."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.integration.daemon import MAIN, Daemon
from tests.integration.soak import Ledger, Sample

# With so many, memory must have settled in the first half; then it grows by less than a byte a tick: 1 MB a million.
TICKS_SETTLED = 5_000_000
BYTES_A_TICK_MAX = 1
# Before that, a heap that still finds its size; a leak of objects shows all the same.
SETTLING_BYTES_MAX = 24 * 2**20
OBJECTS_BESIDES_MAX = 100
# A run, with its configuration, and a seal now and then; and the tables' first pages.
RUN_BYTES, FIRST_BYTES = 4096, 100_000
Soaked = tuple[list[Sample], list[Ledger]]
README = (MAIN.parent / "README.md").read_text()


@pytest.fixture(scope="module")
def ticks(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--soak-ticks"))


@pytest.fixture(scope="module")
def soaked(ticks: int, tmp_path_factory: pytest.TempPathFactory) -> Soaked:
    folder = tmp_path_factory.mktemp("soak")
    with (folder / "stderr").open("w") as stderr:
        program, path = ("-m", "tests.integration.soak"), {"PYTHONPATH": f"{MAIN.parent}"}
        with Daemon(f"{ticks}", program=program, folder=folder, environment=path, stderr=stderr) as process:
            done = process.finish(60 + ticks / 20_000)
    assert done.code == 0, (folder / "stderr").read_text()
    document: dict[str, Any] = json.loads(done.out)
    for ledger in folder.glob("*.db"):
        # Of ten million ticks they are half a gigabyte, and pytest keeps what it finds.
        ledger.unlink()
    return [Sample(**sample) for sample in document["samples"]], [Ledger(**ledger) for ledger in document["ledgers"]]


@pytest.mark.timeout(1200)
def test_descriptors_threads_and_objects_are_the_same_after_every_life(soaked: Soaked) -> None:
    samples = soaked[0]
    assert len(samples) >= 12
    # After the first one, which imports what is imported when it is needed.
    assert len({(sample.descriptors, sample.threads) for sample in samples[1:]}) == 1
    first, second = halves(samples)
    # The list of samples grows by one a life.
    besides = max(sample.objects for sample in second) - max(sample.objects for sample in first) - len(second)
    assert besides < OBJECTS_BESIDES_MAX


@pytest.mark.timeout(1200)
def test_memory_does_not_grow_with_the_ticks(soaked: Soaked, ticks: int) -> None:
    first, second = halves(soaked[0])
    grown = max(sample.memory_bytes for sample in second) - max(sample.memory_bytes for sample in first)
    traded = second[-1].ticks - first[-1].ticks
    print(f"{grown:,} bytes more after {traded:,} more ticks, {second[-1].memory_bytes:,} in all")  # noqa: T201
    assert grown < (BYTES_A_TICK_MAX * traded if ticks >= TICKS_SETTLED else SETTLING_BYTES_MAX)


@pytest.mark.timeout(1200)
def test_the_ledger_grows_as_documented(soaked: Soaked) -> None:
    tick, refused, filled = documented()
    for ledger in soaked[1]:
        rows = tick * ledger.ticks + refused * (ledger.signals - ledger.trades) + filled * ledger.trades
        assert 0.9 * rows - FIRST_BYTES < ledger.bytes < 1.05 * rows + RUN_BYTES * ledger.runs + FIRST_BYTES, ledger


def halves(samples: list[Sample]) -> tuple[list[Sample], list[Sample]]:
    middle = len(samples) // 2
    return samples[:middle], samples[middle:]


def documented() -> tuple[int, int, int]:
    """Bytes of a tick, of a signal that was refused, and of one that was filled with its order and its trade."""
    found = re.search(r"A tick takes (\d+)\s+bytes or so, a refused signal (\d+), a filled one .*?(\d+)", README, re.S)
    assert found, "the README says how large they are"
    tick, refused, filled = map(int, found.groups())
    return tick, refused, filled
