"""Judges the rows of one file in the order in which they come, in memory that does not depend on how many they are.

What is judged by is carried from block to block: where a file is cut into blocks cannot show in what is found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain

import numpy as np

from bot.backtest.data.report import SHOWN, Repair, Report
from bot.backtest.data.rows import CLOSE, HIGH, LOW, OPEN, VALUES, VOLUME, BoolArray, Fault, Kind, Part, Rows
from bot.backtest.data.times import index_of, open_of_index
from bot.backtest.source import are_candles
from bot.domain import Bars, IntArray, iso8601
from bot.timeframes import Timeframe

FILL_ROWS = 65_536


class Check:
    """Reads one file once. ``report`` grows with it."""

    def __init__(self, timeframe: Timeframe, now_ms: int, report: Report) -> None:
        """Candles that are not closed at ``now_ms`` are not known yet."""
        self._timeframe, self._report = timeframe, report
        # The open of the last candle that is closed.
        self._newest = timeframe.back(timeframe.open_of(now_ms), 1)
        # The last row, which is not certain yet, and the one before it, which is.
        self._held = self._last = Rows.empty()

    def bars(self, parts: Iterator[Part]) -> Iterator[Bars]:
        """The candles in the order of time, each time once. Nothing comes any more from where on there is something
        wrong that nobody asked to repair; it is read on to tell how much of it there is."""
        sound: Iterator[Rows] = map(self._sound, parts)
        if Repair.SORT in self._report.repair:
            sound = iter([self._sorted(list(sound))])
        for rows in chain(sound, [None]):
            found = self._in_order(rows)
            if len(found) and not self._report.unusable:
                yield from self._continuous(found)

    def _sound(self, part: Part) -> Rows:
        """The rows that are candles."""
        rows, report = part.rows, self._report
        report.rows += len(rows) + len(part.faults)
        for fault in part.faults:
            report.add(fault.kind, 1, [fault])
        candle, volume = rows.values[:VOLUME], rows.values[VOLUME]
        unknown = volume != volume
        if unknown.any():
            report.no_volume += int(np.count_nonzero(unknown))
            volume[unknown] = 0.0
        good = are_candles(*candle)
        good &= (volume >= 0) & (volume < np.inf) & (rows.timestamp <= self._newest)
        good &= self._timeframe.floor(rows.timestamp) == rows.timestamp
        if not good.all():
            self._blame(rows.chosen(~good))
        dropped = len(part.faults) + len(rows) - int(np.count_nonzero(good))
        report.dropped += dropped
        return rows if dropped == len(part.faults) else rows.chosen(good)

    def _blame(self, bad: Rows) -> None:
        """Tells each of these rows by the first thing that is wrong with it."""
        start, high, low, end, volume = bad.values
        candle = bad.values[:VOLUME]
        impossible = (candle <= 0) | (candle == np.inf)
        rules: tuple[tuple[Kind, BoolArray, Callable[[int], str]], ...] = (
            (
                Kind.OFF,
                self._timeframe.floor(bad.timestamp) != bad.timestamp,
                lambda row: f"{iso8601(bad.timestamp[row])} in candles of {self._timeframe.name}",
            ),
            (
                Kind.TIME,
                bad.timestamp > self._newest,
                lambda row: f"the candle of {iso8601(bad.timestamp[row])} is not closed yet",
            ),
            (
                Kind.MISSING,
                (candle != candle).any(axis=0),
                lambda row: f"{VALUES[int(np.argmax(np.isnan(candle[:, row])))]} is missing",
            ),
            (
                Kind.PRICE,
                impossible.any(axis=0),
                lambda row: _shown(bad, row, int(np.argmax(impossible[:, row]))),
            ),
            (Kind.HIGH, (high < start) | (high < end), lambda row: _shown(bad, row, HIGH, OPEN, CLOSE)),
            (Kind.LOW, (low > start) | (low > end), lambda row: _shown(bad, row, LOW, OPEN, CLOSE)),
            (Kind.VOLUME, (volume < 0) | (volume == np.inf), lambda row: _shown(bad, row, VOLUME)),
        )
        told = np.zeros(len(bad), np.bool_)
        for kind, applies, text in rules:
            places = np.flatnonzero(applies & ~told)
            told |= applies
            if len(places):
                first = [Fault(kind, int(bad.number[row]), text(row)) for row in places[:SHOWN].tolist()]
                self._report.add(kind, len(places), first)

    def _sorted(self, parts: list[Rows]) -> Rows:
        rows = Rows.joined([Rows.empty(), *parts])
        self._tell(Kind.DISORDER, rows, np.flatnonzero(np.diff(rows.timestamp) < 0))
        return rows.chosen(np.argsort(rows.timestamp, kind="stable"))

    def _in_order(self, rows: Rows | None) -> Rows:
        """What is certain now: the last row may yet be followed by one of its time. None at the end of the file."""
        if rows is None:
            return self._held
        joined = Rows.joined([self._held, rows])
        step = np.diff(joined.timestamp)
        if (step <= 0).any():
            self._tell(Kind.DISORDER, joined, np.flatnonzero(step < 0))
            again = np.flatnonzero(step == 0)
            alike = (joined.values[:, again] == joined.values[:, again + 1]).all(axis=0)
            self._tell(Kind.DUPLICATE, joined, again[alike])
            self._tell(Kind.CONFLICT, joined, again[~alike])
            self._report.dropped += len(again)
            joined = joined.chosen(np.append(step != 0, np.True_))
        self._held = joined.chosen(slice(-1, None))
        return joined.chosen(slice(0, -1))

    def _tell(self, kind: Kind, rows: Rows, before: IntArray) -> None:
        """Of the rows that stand one behind these."""
        if not len(before):
            return
        first = []
        for place in before[:SHOWN].tolist():
            time, older = iso8601(int(rows.timestamp[place + 1])), iso8601(int(rows.timestamp[place]))
            told = f"{time} after {older}" if kind is Kind.DISORDER else f"{time}, as {self._at(rows, place)}"
            first.append(Fault(kind, int(rows.number[place + 1]), told))
        self._report.add(kind, len(before), first)

    def _at(self, rows: Rows, row: int) -> str:
        return f"{self._report.unit} {int(rows.number[row])}"

    def _continuous(self, rows: Rows) -> Iterator[Bars]:
        """Notes the gaps, and fills them where it is asked to."""
        report, last = self._report, self._last
        report.first_ms = int(rows.timestamp[0]) if report.first_ms is None else report.first_ms
        report.last_ms = int(rows.timestamp[-1])
        self._last = rows.chosen(slice(-1, None))
        opens = np.concatenate((last.timestamp, rows.timestamp))
        index = index_of(self._timeframe, opens)
        missing = np.diff(index) - 1
        if missing.any():
            report.gaps += int(np.count_nonzero(missing))
            report.missing += int(missing.sum())
            widest = int(np.argmax(missing))
            gap = self._timeframe.back(int(opens[widest]), -1), int(opens[widest + 1])
            if report.longest is None or gap[1] - gap[0] > report.longest[1] - report.longest[0]:
                report.longest = gap
            if Repair.FILL in report.repair:
                report.filled += int(missing.sum())
                report.bars += int(missing.sum()) + len(rows)
                yield from self._filled(Rows.joined([last, rows]), index, len(last))
                return
        report.bars += len(rows)
        yield rows.bars

    def _filled(self, rows: Rows, index: IntArray, skipped: int) -> Iterator[Bars]:
        """All candles from the first row on but ``skipped``, so many at a time that a gap may be of any length."""
        first, end = int(index[0]) + skipped, int(index[-1]) + 1
        for start in range(first, end, FILL_ROWS):
            wanted = np.arange(start, min(start + FILL_ROWS, end))
            source = np.searchsorted(index, wanted, side="right") - 1
            values = rows.values[:, source]
            missing = index[source] != wanted
            values[:CLOSE, missing] = values[CLOSE, missing]
            values[VOLUME, missing] = 0.0
            yield Bars(open_of_index(self._timeframe, wanted), *values)


def _shown(rows: Rows, row: int, *columns: int) -> str:
    return ", ".join(f"{VALUES[column]} is {float(rows.values[column, row])!r}" for column in columns)
