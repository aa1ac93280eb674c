"""What was found in a file of candles, and what was done about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from bot.backtest.data.rows import Fault, Kind
from bot.domain import iso8601

SHOWN = 3


class Repair(StrEnum):
    """What may be done to rows that cannot be used as they are. Each does what it is called and nothing else."""

    # Rows in the order of time, those of one time in the order of the file. Needs the whole file in memory.
    SORT = "sort"
    # Rows that are no candles are left out; of those of one time the last one stays, as it does in a download.
    DROP = "drop"
    # Flat candles at the last close, without volume, where the file has none.
    FILL = "fill"


_NAMES = {
    Kind.COLUMNS: "not the columns of the others",
    Kind.NUMBER: "not a number",
    Kind.MISSING: "a value is missing",
    Kind.TIME: "an impossible time",
    Kind.OFF: "not where a candle opens",
    Kind.PRICE: "an impossible price",
    Kind.HIGH: "high below open or close",
    Kind.LOW: "low above open or close",
    Kind.VOLUME: "an impossible volume",
    Kind.DUPLICATE: "the same candle again",
    Kind.CONFLICT: "another candle of the same time",
    Kind.DISORDER: "earlier than the row before",
    Kind.CUT: "cut short",
}


@dataclass(slots=True)
class Finding:
    """How many rows have one kind of fault, and the first of them."""

    count: int = 0
    first: list[Fault] = field(default_factory=list)


@dataclass(slots=True)
class Report:
    """``rows`` are those that were read, ``bars`` the candles that came of them, both in all of the file.

    ``gaps`` is how often candles are missing between two others, ``missing`` how many candles that makes, and
    ``longest`` from which one that is missing to which one that is there. ``no_volume`` rows say nothing of their
    volume, which is taken as 0.
    """

    source: str
    unit: str
    repair: frozenset[Repair] = frozenset()
    rows: int = 0
    bars: int = 0
    first_ms: int | None = None
    last_ms: int | None = None
    findings: dict[Kind, Finding] = field(default_factory=dict)
    gaps: int = 0
    missing: int = 0
    longest: tuple[int, int] | None = None
    no_volume: int = 0
    dropped: int = 0
    filled: int = 0

    def add(self, kind: Kind, count: int, first: Iterable[Fault]) -> None:
        """``first`` are the first of these, as many as may be told."""
        finding = self.findings.setdefault(kind, Finding())
        finding.count += count
        finding.first = sorted([*finding.first, *first], key=lambda fault: fault.number)[:SHOWN]

    def forget_candles(self) -> None:
        """What was told of candles that were sound before something was found that is not."""
        self.bars = self.gaps = self.missing = self.filled = 0
        self.first_ms = self.last_ms = self.longest = None

    @property
    def unusable(self) -> dict[Repair, dict[Kind, Finding]]:
        """What nobody has asked to repair, by what would."""
        found: dict[Repair, dict[Kind, Finding]] = {}
        for kind in filter(self.findings.__contains__, Kind):
            cure = Repair.SORT if kind is Kind.DISORDER else Repair.DROP
            if cure not in self.repair:
                found.setdefault(cure, {})[kind] = self.findings[kind]
        return found

    def refusal(self) -> str | None:
        """Why the file is not used, and what can be done, as one line; None if it can be used."""
        unusable = self.unusable
        if not unusable:
            return None
        told = "; ".join(self._told(kind, each) for found in unusable.values() for kind, each in found.items())
        cures = " and ".join(f"--repair {cure} {_CURES[cure]}" for cure in unusable)
        return f"{self.source}: {told}. {cures}"

    def notes(self) -> list[str]:
        """What a user should know of a file that is used, a line each."""
        told = [f"{self.source}: {self._told(kind, self.findings[kind])}" for kind in Kind if kind in self.findings]
        if Kind.DISORDER in self.findings:
            told.append(f"{self.source}: put in the order of time")
        if self.dropped:
            told.append(f"{self.source}: {_counted(self.dropped, self.unit)} left out")
        if self.gaps and self.longest is not None:
            first, end = self.longest
            told.append(
                f"{self.source}: {_counted(self.gaps, 'gap')}, {_counted(self.missing, 'candle')} missing"
                f"{', filled' if self.filled else ''}; the longest from {iso8601(first)} to {iso8601(end)}"
            )
        if self.no_volume:
            told.append(f"{self.source}: {_counted(self.no_volume, self.unit)} without a volume, taken as 0")
        return told

    def document(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "source": self.source,
            "rows": self.rows,
            "candles": self.bars,
            "from": _moment(self.first_ms),
            "to": _moment(self.last_ms),
            "repair": sorted(self.repair),
            "faults": {
                kind.value: {
                    "count": finding.count,
                    "first": [{self.unit: fault.number, "what": fault.text} for fault in finding.first],
                }
                for kind, finding in self.findings.items()
            },
            "dropped": self.dropped,
            "gaps": self.gaps,
            "candles_missing": self.missing,
            "longest_gap": None if self.longest is None else list(map(iso8601, self.longest)),
            "filled": self.filled,
            "without_volume": self.no_volume,
        }

    def _told(self, kind: Kind, finding: Finding) -> str:
        places = ", ".join(f"{self.unit} {fault.number}: {fault.text}" for fault in finding.first)
        more = finding.count - len(finding.first)
        return f"{_NAMES[kind]} ({places}{f', and {more:,} more' if more else ''})"


_CURES = {Repair.DROP: "leaves such rows out", Repair.SORT: "puts them in order"}


def _moment(time: int | None) -> str | None:
    return None if time is None else iso8601(time)


def _counted(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"
