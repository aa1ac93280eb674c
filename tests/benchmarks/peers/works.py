"""The works that are measured, how often and at which sizes, and the checks that it is the same work."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tests.benchmarks.peers.processes import OURS, REFERENCE, Engine, EngineFailed, Peer
from tests.benchmarks.scenario import prices

WARM_BARS = 2_000
# More fills than the reference's, as a share, that rounded averages may make where the exact ones are equal.
TIES = 1e-4
CENT = 0.01
# What is known of this tape.
FILLS = {10_000: 378, 100_000: 3_780, 1_000_000: 38_586, 10_000_000: 390_013}


class Case(NamedTuple):
    """``repeat``: a round's figure is the best of so many runs; ``only``: the peers that are not too slow for it."""

    title: str
    work: str
    bars: int
    rounds: int
    repeat: int = 1
    only: frozenset[str] = frozenset()


_SLOW = frozenset({"backtesting", "basana"})
TIMED: Mapping[str, tuple[Case, ...]] = {
    "1": (
        Case("trades, 100,000 bars", "vectorised", 100_000, 7, 5),
        Case("trades, 1,000,000 bars", "vectorised", 1_000_000, 7, 3),
        Case("trades, 10,000,000 bars", "vectorised", 10_000_000, 5),
        Case("trades and equity, 100,000 bars", "equity", 100_000, 7, 5),
        Case("trades and equity, 1,000,000 bars", "equity", 1_000_000, 7, 3),
        Case("trades and equity, 10,000,000 bars", "equity", 10_000_000, 5),
    ),
    "2": (
        Case("event-driven, 20,000 bars", "event", 20_000, 5),
        Case("event-driven, 100,000 bars", "event", 100_000, 3),
        Case("event-driven, 1,000,000 bars", "event", 1_000_000, 3, only=_SLOW),
    ),
    "3": (Case("100 pairs on 100,000 bars", "sweep", 100_000, 5),),
}
TIMED_QUICKLY: Mapping[str, tuple[Case, ...]] = {
    "1": tuple(case._replace(rounds=3) for case in TIMED["1"] if case.bars <= 1_000_000),
    "2": (TIMED["2"][0]._replace(rounds=2),),
    "3": (TIMED["3"][0]._replace(rounds=2),),
}
# What this project sets out to reach: so many times faster than the peer, or than the reference.
BARS: Mapping[tuple[str, str], float] = {
    ("vectorised", "numpy"): 1 / 1.7,
    ("equity", "numpy"): 1 / 1.7,
    ("vectorised", "vectorbt"): 11,
    ("equity", "vectorbt"): 3,
    ("event", "nautilus_trader"): 100,
    ("event", "basana"): 50,
    ("event", "freqtrade"): 50,
    ("event", "backtesting"): 15,
    ("sweep", "vectorbt"): 20,
    ("fresh", "vectorbt"): 25,
}


@dataclass(slots=True)
class Row:
    """What one engine made of one case. ``ratios`` has its time over this project's, of each round; ``problem`` is why
    there are none."""

    title: str
    work: str
    engine: str
    name: str
    bars: int
    seconds: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    fills: int | None = None
    net_pnl: float | None = None
    peak_mb: float | None = None
    note: str = ""
    problem: str = ""

    @property
    def median(self) -> float | None:
        return statistics.median(self.seconds) if self.seconds else None

    @property
    def bar(self) -> float | None:
        return BARS.get((self.work, self.name))


class Tapes:
    """Files of prices, each made when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getitem__(self, bars: int) -> Path:
        path = self.folder / f"{bars}.f8"
        if not path.exists():
            prices(bars).tofile(path)
        return path


def timed(case: Case, engines: Sequence[Engine], tapes: Tapes) -> list[Row]:
    """In each round ours first, then every peer: what a ratio is made of lies moments apart."""
    taking_part = [
        (engine, Row(case.title, case.work, engine.label, engine.peer.name, case.bars))
        for engine in engines
        if case.work in engine.works and (not case.only or engine.peer.name in {OURS.name, *case.only})
    ]
    for engine, row in taking_part:
        # Compiles, imports late and fills caches, off the clock.
        _asked(engine, row, case.work, tapes[WARM_BARS])
    expected = _expected(case, next(engine for engine in engines if engine.peer == REFERENCE), tapes)
    for _ in range(case.rounds):
        ours = None
        for engine, row in taking_part:
            answer = _asked(engine, row, case.work, tapes[case.bars], case.repeat)
            if answer is None:
                continue
            compare(engine.peer, row, answer, expected[engine.peer.next_open])
            row.seconds.append(answer["seconds"])
            ours = answer["seconds"] if engine.peer == OURS else ours
            if ours and not row.problem:
                row.ratios.append(answer["seconds"] / ours)
    return [row for _, row in taking_part]


def _asked(engine: Engine, row: Row, work: str, tape: Path, repeat: int = 1) -> dict[str, Any] | None:
    """Nobody who failed is asked again."""
    try:
        return None if row.problem else engine.ask(work, tape, repeat=repeat)
    except EngineFailed as error:
        row.problem = str(error)
        return None


def _expected(case: Case, reference: Engine, tapes: Tapes) -> dict[bool, dict[str, Any]]:
    """The reference's answers, by whether orders are filled at the next bar's open."""
    at_close = "vectorised" if case.work == "event" else case.work
    expected = {False: reference.ask(at_close, tapes[case.bars])}
    if case.bars in FILLS and case.work != "sweep":
        assert expected[False]["fills"] == [FILLS[case.bars]]
    if case.work == "event":
        expected[True] = reference.ask("next open", tapes[case.bars])
    return expected


def compare(peer: Peer, row: Row, answer: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Notes what an engine's trades have that the reference's have not, as a problem if it was not the same work."""
    row.fills, row.net_pnl = sum(answer["fills"]), sum(answer["net_pnl"])
    apart = [abs(one - other) for one, other in zip(answer["fills"], expected["fills"], strict=True)]
    net_pnl = row.net_pnl - sum(expected["net_pnl"])
    said = f"{row.fills - sum(expected['fills']):+,} fills, {net_pnl:+,.2f} net PnL"
    allowed = TIES if peer.ties else 0.0
    if sum(apart) > allowed * sum(expected["fills"]) or (abs(net_pnl) >= CENT and not peer.ties):
        row.problem = said
    elif abs(net_pnl) >= CENT:
        row.note = f"{said}: ties"
    falls = [found["max_drawdown"] for found in (answer, expected)]
    if None not in falls and abs(falls[0] - falls[1]) > allowed + 1e-9:
        row.problem = f"a drawdown of {falls[0]:.6%}, not {falls[1]:.6%}"
