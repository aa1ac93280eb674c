"""``kill -9`` at seeded moments of the real process's life, and what must be in the file whatever they were.

``--kills N`` says how often; ``--seed N`` does only the ledger of that seed again.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any

import numpy as np
import pytest

from tests.integration.daemon import Daemon, Result, books, monotonic, paperloop, pause, polls_in, rows, settings
from tests.integration.proofs import audited, said, unkept, verified

SYMBOLS = tuple(f"{base}/USDT" for base in ("BTC", "ETH", *(letter * 3 for letter in "ABCDEFGHIJKLMN")))
BLOCK = 65_536 // len(SYMBOLS)
# At full speed: some thousand decisions a block.
BUSY = (
    '[{name="sma_cross"}, {name="donchian_breakout", params={short=true}}, {name="rsi_reversion"},'
    ' {name="sma_cross", account="minutes", timeframe="1m", params={fast=1, slow=3}}]'
)
# At the pace of the wall clock: some decisions a poll, many of them refused for want of cash.
HASTY = (
    '[{name="sma_cross", params={fast=1, slow=2}, equity_fraction=0.4}, {name="donchian_breakout", params={period=2}}]'
)
LIVE_INTERVAL_S = 0.02
LIVE_SPAN_S = 0.5
REPORT_S_MAX = 2.0
AT_ONCE_S = 0.0001
LEDGER_KILLS_MAX = 10
# Two at a time keep two cores busy.
LEDGERS_MIN = 2
Event = dict[str, Any]
WATCH_S = 0.004
# A process that had ended before the kill came is started again, and the kill comes sooner.
TRIES_MAX = 12
SOONER = 0.7
HANGS_S = 60.0


class Stage(StrEnum):
    """Where in a process's life a kill is aimed at, and, of the last three, what it hit."""

    LOADING = "before it had the ledger"
    START = "before the first commit"
    TRADING = "between commits"
    END = "after the last commit"


@dataclass(frozen=True, slots=True)
class Moment:
    """A share of a stage; TRADING is counted from the commit of that number, and on the wall clock those of the first
    commit wait for the next line of the log."""

    stage: Stage
    share: float
    commits: int

    def tries(self) -> Iterator[Moment]:
        return (replace(self, share=self.share * SOONER**number) for number in range(TRIES_MAX))


@dataclass(frozen=True, slots=True)
class Pace:
    """How long an undisturbed process takes: to get its ledger, to its first commit, from one commit to the next, and
    from the last one to its end."""

    loading_s: float
    start_s: float
    block_s: float
    end_s: float


@dataclass(slots=True)
class History:
    """One ledger and the kills it has seen; as text it is all that is needed to see a failure again."""

    seed: int
    ledger: Path
    kills: list[str] = field(default_factory=list)
    hits: Counter[Stage] = field(default_factory=Counter)

    def add(self, aim: Moment, hit: Stage, lived_s: float, polls: int) -> None:
        self.hits[hit] += 1
        aimed = f"{aim.stage.name}+{aim.share:.2f}" + (
            f" of commit {aim.commits}" if aim.stage == Stage.TRADING else ""
        )
        self.kills.append(f"{lived_s:.3f} s after a start, {polls} polls in the file, {hit} (aimed at {aimed})")

    def __str__(self) -> str:
        kills = "\n".join(f"  kill {number}: {kill}" for number, kill in enumerate(self.kills, start=1))
        return f"--seed {self.seed}, ledger {self.ledger}\n{kills or '  not killed yet'}"


@contextmanager
def told(history: History) -> Iterator[None]:
    """Whatever fails inside says which ledger it was and what had happened to it."""
    try:
        yield
    except Exception as error:
        error.add_note(str(history))
        raise


def moments(seed: int, kills: int) -> list[Moment]:
    """A life of so many deaths: starts and trading in any order, a beginning first and the end last."""
    random = np.random.default_rng(seed)
    ends = max(1, kills // 5)
    stages = [Stage.START, Stage.TRADING, Stage.TRADING, Stage.LOADING]
    middle = [stages[number % len(stages)] for number in range(kills - ends)]
    order = [*random.permutation(len(middle))]
    plan = [*(middle[number] for number in order), *[Stage.END] * ends]
    return [Moment(stage, float(random.uniform()), int(random.integers(1, 3))) for stage in plan]


def shares(kills: int, only: int | None) -> dict[int, int]:
    """Seed -> how many kills; as even as can be, for a ledger is one run and bears only so many."""
    ledgers = max(LEDGERS_MIN, -(-kills // LEDGER_KILLS_MAX))
    per = {seed: kills // ledgers + (seed < kills % ledgers) for seed in range(ledgers)}
    return per if only is None else {only: per.get(only, LEDGER_KILLS_MAX)}


def holds_lock(daemon: Daemon, ledger: Path) -> bool:
    try:
        return ledger.with_name(ledger.name + ".lock").read_text() == str(daemon.pid)
    except FileNotFoundError:
        return False


def watch(daemon: Daemon, condition: Callable[[], bool]) -> bool:
    """Waits as closely as a kill must be aimed; False if the process ended before."""
    end = monotonic() + HANGS_S
    while not condition():
        if daemon.ended:
            return condition()
        assert monotonic() < end, "the daemon hangs"
        pause(WATCH_S)
    return True


def beyond(ledger: Path, polls: int) -> bool:
    return polls_in(ledger) > polls


def killed(daemon: Daemon) -> Result | None:
    """What it left behind; None if it had ended by itself before the kill came."""
    daemon.send(SIGKILL)
    result = daemon.finish()
    assert "Traceback" not in result.err, result.err
    if result.code == -SIGKILL:
        return result
    assert result.code == 0, result
    return None


def spread(histories: Sequence[History], kills: int, what: str, took_s: float) -> None:
    """The kills were as many as asked for and hit every stage."""
    hits = sum((history.hits for history in histories), Counter[Stage]())
    counted = ", ".join(f"{hits[stage]} {stage}" for stage in Stage if stage is not Stage.LOADING)
    sys.stdout.write(f"{what}: {hits.total()} kills in {took_s:.1f} s ({hits.total() / took_s:.1f}/s), {counted}\n")
    assert hits.total() == kills
    if kills >= 32:
        # Aimed at: a half, a quarter to a third, a quarter. A busy machine is late, so less will do.
        assert min(hits[Stage.START], hits[Stage.TRADING], hits[Stage.END]) >= max(1, kills // 16), counted


# At full speed


def at_speed(ledger: Path, polls: int) -> list[str]:
    keys: list[str] = settings(storage__path=ledger, feed__symbols=json.dumps(SYMBOLS), strategy=BUSY)
    return [*keys, "--max-speed", "--until-poll", str(polls)]


def undisturbed(ledger: Path, polls: int) -> Pace:
    """The ledger to compare with, and how long each part of making it took."""
    began = monotonic()
    with Daemon(*at_speed(ledger, polls), folder=ledger.parent) as daemon:
        times = []
        for condition in (
            partial(holds_lock, daemon, ledger),
            partial(beyond, ledger, 0),
            partial(beyond, ledger, polls - 1),
        ):
            assert watch(daemon, condition), daemon.finish()
            times.append(monotonic() - began)
        result = daemon.finish()
    assert result.code == 0, result
    loading, first, last = times
    blocks = max(1, polls // BLOCK - 1)
    return Pace(loading, first - loading, (last - first) / blocks, monotonic() - began - last)


def aim_at_speed(daemon: Daemon, ledger: Path, aim: Moment, pace: Pace, polls: int) -> None:
    """Waits for the moment of the kill; comes back earlier if the process ends before."""
    before = polls_in(ledger)
    if aim.stage is Stage.LOADING or (before == polls and aim.stage is not Stage.END):
        pause(aim.share * pace.loading_s)
    elif aim.stage is Stage.START or before == polls:
        # A ledger that is done only begins and ends.
        if watch(daemon, partial(holds_lock, daemon, ledger)):
            pause(aim.share * (pace.start_s if before < polls else pace.end_s))
    elif aim.stage is Stage.TRADING:
        target = min(before + aim.commits * BLOCK, polls) - 1
        if watch(daemon, partial(beyond, ledger, target)):
            pause(aim.share * pace.block_s)
    elif watch(daemon, partial(beyond, ledger, polls - 1)):
        pause(aim.share * pace.end_s)


def kill_at_speed(history: History, moment: Moment, pace: Pace, polls: int) -> None:
    """One kill, however many starts it takes."""
    ledger = history.ledger
    for aim in moment.tries():
        before = polls_in(ledger)
        began = monotonic()
        with Daemon(*at_speed(ledger, polls), folder=ledger.parent) as daemon:
            aim_at_speed(daemon, ledger, aim, pace, polls)
            seen = polls_in(ledger)
            lived_s = monotonic() - began
            hit = killed(daemon)
        after = polls_in(ledger)
        # What a reader has seen is not taken back, and a block is there or not.
        assert before <= seen <= after, (before, seen, after)
        assert after % BLOCK == 0 or after == polls, after
        if hit is not None:
            stage = Stage.END if after == polls else Stage.TRADING if after > before else Stage.START
            history.add(aim, stage, lived_s, after)
            return
    pytest.fail("it always ended before the kill")


def killed_at_speed(folder: Path, original: Path, pace: Pace, polls: int, share: tuple[int, int]) -> History:
    seed, kills = share
    history = History(seed, folder / f"killed-{seed}.db")
    with told(history):
        for aim in moments(seed, kills):
            kill_at_speed(history, aim, pace, polls)
        result = paperloop(*at_speed(history.ledger, polls), folder=folder)
        assert (result.code, "Traceback" in result.err) == (0, False), result
        assert alike(history.ledger, original)["digest"] == result.summary["digest"]
    for file in folder.glob(f"{history.ledger.name}*"):
        file.unlink()
    return history


def alike(ledger: Path, original: Path) -> dict[str, Any]:
    """All that may not depend on kills, row for row, and the ledger's own account of itself."""
    mine = audited(ledger)
    assert mine["ok"], mine
    assert books(ledger) == books(original)
    for table in ("accounts", "positions", "symbols"):
        query = f"SELECT * FROM {table} ORDER BY 1, 2"  # noqa: S608 - constants
        assert rows(ledger, query) == rows(original, query), table
    assert equal_ticks(ledger, original) == mine["ticks"]
    return mine


def equal_ticks(ledger: Path, original: Path) -> int:
    """How many rows of the tape are the same in both, at the same place; in SQL, because they are millions."""
    columns = ("poll", "symbol_id", "timestamp", "bid", "ask", "last", "warmup")
    same = " AND ".join(f"a.{name} = b.{name}" for name in columns)
    query = f"SELECT count(*) FROM main.ticks AS a JOIN original.ticks AS b ON a.rowid = b.rowid WHERE {same}"  # noqa: S608
    with closing(sqlite3.connect(f"{ledger.as_uri()}?mode=ro", uri=True)) as connection:
        connection.execute("ATTACH ? AS original", (f"{original.as_uri()}?mode=ro",))
        return int(connection.execute(query).fetchone()[0])


@pytest.mark.timeout(900)
def test_killed_at_full_speed(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    kills: int = pytestconfig.getoption("--kills")
    per_seed = shares(kills, pytestconfig.getoption("--seed"))
    # A kill while trading costs up to three blocks of the run, and the last kills need one that is left.
    polls = BLOCK * (2 + 3 * -(-max(per_seed.values()) // 2))
    original = tmp_path / "undisturbed.db"
    pace = undisturbed(original, polls)
    # What all the others must be equal to.
    assert verified(original)
    began = monotonic()
    with ThreadPoolExecutor(2) as pool:
        work = partial(killed_at_speed, tmp_path, original, pace, polls)
        histories = list(pool.map(work, per_seed.items()))
    spread(histories, sum(per_seed.values()), "full speed", monotonic() - began)


# At the pace of the wall clock


def live(ledger: Path) -> list[str]:
    keys: list[str] = settings(
        storage__path=ledger,
        feed__symbols=json.dumps(SYMBOLS),
        feed__simulated__volatility=0.002,
        feed__poll_interval_s=LIVE_INTERVAL_S,
        strategy=HASTY,
        log__level="debug",  # every trade, whatever there is room for
    )
    return keys


def undisturbed_live(ledger: Path) -> Pace:
    began = monotonic()
    with Daemon(*live(ledger), folder=ledger.parent) as daemon:
        assert watch(daemon, partial(holds_lock, daemon, ledger)), daemon.finish()
        loading = monotonic() - began
        assert watch(daemon, partial(beyond, ledger, 1)), daemon.finish()
        first, asked = monotonic() - began, monotonic()
        assert daemon.stop(SIGTERM).code == 0
    return Pace(loading, first - loading, LIVE_SPAN_S, monotonic() - asked)


def aim_live(daemon: Daemon, ledger: Path, aim: Moment, pace: Pace, log: Path) -> None:
    """Waits for the moment of the kill; the end is one that was asked for, and overtaken by the kill."""
    if aim.stage is Stage.LOADING:
        pause(aim.share * pace.loading_s)
        return
    assert watch(daemon, partial(holds_lock, daemon, ledger)), daemon.finish()
    if aim.stage is Stage.START:
        pause(aim.share * pace.start_s)
        return
    assert watch(daemon, partial(beyond, ledger, polls_in(ledger))), daemon.finish()
    if aim.stage is Stage.END:
        daemon.send(SIGTERM)
        pause(aim.share * pace.end_s)
        return
    pause(aim.share * pace.block_s)
    if aim.commits == 1:
        # At the very line that reports something: what was not committed by then is lost.
        size = log.stat().st_size
        end = monotonic() + REPORT_S_MAX
        while log.stat().st_size == size and monotonic() < end:
            pause(AT_ONCE_S)


def kill_live(history: History, moment: Moment, pace: Pace) -> list[Event]:
    """One kill, however many starts it takes; returns what was reported by then."""
    ledger = history.ledger
    reported: list[Event] = []
    for aim in moment.tries():
        before = polls_in(ledger)
        log = ledger.with_suffix(".log")
        began = monotonic()
        with log.open("w") as stream, Daemon(*live(ledger), folder=ledger.parent, stderr=stream) as daemon:
            aim_live(daemon, ledger, aim, pace, log)
            lived_s = monotonic() - began
            hit = killed(daemon)
        assert "Traceback" not in log.read_text()
        after = polls_in(ledger)
        assert after >= before
        reported += [event for event in said(log) if event["event"] in {"trade", "signal refused"}]
        if hit is not None:
            stage = Stage.END if aim.stage is Stage.END else Stage.TRADING if after > before else Stage.START
            history.add(aim, stage, lived_s, after)
            return reported
    pytest.fail("it always ended before the kill")


def killed_live(folder: Path, pace: Pace, share: tuple[int, int]) -> tuple[History, int]:
    seed, kills = share
    history = History(seed, folder / f"live-{seed}.db")
    reported: list[Event] = []
    with told(history):
        for moment in moments(seed, kills):
            reported += kill_live(history, moment, pace)
            if not polls_in(history.ledger):
                assert not reported
                continue
            assert unkept(history.ledger, reported) == []
            assert audited(history.ledger)["ok"]
        numbers = Counter(event["id"] for event in reported)
        assert [number for number, count in numbers.items() if count > 1] == [], "an id that was given out twice"
        assert verified(history.ledger)
    return history, len(reported)


@pytest.mark.timeout(900)
def test_killed_at_the_pace_of_the_wall_clock(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    per_seed = shares(pytestconfig.getoption("--kills"), pytestconfig.getoption("--seed"))
    pace = undisturbed_live(tmp_path / "undisturbed.db")
    began = monotonic()
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(partial(killed_live, tmp_path, pace), per_seed.items()))
    histories, reported = zip(*done, strict=True)
    spread(histories, sum(per_seed.values()), f"wall clock, {sum(reported)} reports", monotonic() - began)
    assert sum(reported) > sum(per_seed.values())
