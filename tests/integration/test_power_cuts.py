"""A power cut at any moment takes nothing that was acknowledged, and leaves nothing half."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.daemon import MAIN, settings
from tests.integration.powercut import Disk, Outcome, cut_power, reported
from tests.integration.strace import Event, Resized, Written, events, need_strace, traced

# The first is long enough for the WAL to be checkpointed and begun again on the way, which SQLite does after 1,000
# pages; the second starts on a ledger that is there.
POLLS = (300, 30)
FILLS_MIN = 50
LEDGER = "ledger.db"
OVERRIDES = settings(
    storage__path=LEDGER,
    feed__poll_interval_s=0.01,
    strategy='[{name="sma_cross", params={fast=2, slow=3}}]',
    log__level="debug",  # every trade, whatever there is room for
)
FULL = "FULL"


@pytest.fixture(autouse=True)
def strace_works(tmp_path: Path) -> None:
    need_strace(tmp_path)


def after_cuts(folder: Path, synchronous: str, states: int) -> Outcome:
    """Two runs to their ends, one after the other, and so many states that a power cut could have left of them."""
    happened: list[Event] = []
    words = []
    for polls in POLLS:
        if synchronous == FULL:
            result, found = traced("run", *OVERRIDES, "--polls", str(polls), folder=folder)
        else:
            program = ("-m", "tests.integration.unsynced", synchronous, str(polls))
            keys = [word for word in OVERRIDES if word != "--set"]
            result, found = traced(*keys, folder=folder, program=program, environment={"PYTHONPATH": str(MAIN.parent)})
        assert result.code == 0, result
        words += result.err.splitlines()
        happened += events(found, folder / LEDGER)
    expect_complete(happened, words, folder / LEDGER)
    outcome = cut_power(happened, LEDGER, states)
    assert outcome.states == states
    return outcome


def expect_complete(happened: list[Event], words: list[str], ledger: Path) -> None:
    """The runs were worth looking at, and what was seen is all that they did: played back, it comes to their file."""
    disk = Disk()
    for event in happened:
        disk.happens(event)
    assert disk.uncut() == {LEDGER: ledger.read_bytes()}
    assert disk.acknowledged == reported(words)
    assert sum(row.table == "trades" for row in disk.acknowledged) >= FILLS_MIN
    heads = [event for event in happened if isinstance(event, Written) and event.file != LEDGER and event.offset == 0]
    assert len(heads) > len(POLLS) + 1, "the WAL was never begun again"
    assert Resized(f"{LEDGER}-wal", 0) in happened


@pytest.mark.timeout(300)
def test_nothing_acknowledged_is_lost_and_nothing_is_half(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    outcome = after_cuts(tmp_path, FULL, pytestconfig.getoption("--cuts"))
    assert (outcome.lossy, outcome.broken) == (0, 0), outcome.first


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("synchronous", "breaks"), [("NORMAL", False), ("OFF", True)])
def test_without_synced_commits_the_same_cuts_are_seen_to_do_harm(
    tmp_path: Path, pytestconfig: pytest.Config, synchronous: str, breaks: bool
) -> None:
    """The control: a simulator that finds nothing here finds nothing anywhere."""
    outcome = after_cuts(tmp_path, synchronous, pytestconfig.getoption("--cuts") // 4)
    assert outcome.lossy > outcome.states // 10, outcome
    assert bool(outcome.broken) == breaks, outcome
