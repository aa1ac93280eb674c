"""Files of candles: what is read of them, what is refused and by which line, and what a repair makes of it."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.backtest.data import DataError, Repair, Report, Series, open_data
from bot.backtest.data.parquet import ParquetFile
from bot.backtest.data.rows import File
from bot.backtest.data.series import Checked
from bot.backtest.data.text import TextFile
from bot.backtest.data.times import END_MS
from bot.domain import Bars, Market
from bot.history import store
from bot.history.pages import CANDLE
from bot.timeframes import MINUTE_MS, TIMEFRAMES

START_MS = 1_704_067_200_000  # 2024-01-01
NOW_MS = START_MS + 400 * 86_400_000
MINUTE = TIMEFRAMES["1m"]
HEADER = "timestamp,open,high,low,close,volume"
COLUMNS = ("timestamp", "open", "high", "low", "close", "volume")
ALL = tuple(Repair)


def candle(
    minute: int, open: float = 10, high: float = 12, low: float = 9, close: float = 11, volume: float = 1
) -> str:
    return f"{START_MS + minute * MINUTE_MS},{open},{high},{low},{close},{volume}"


GOOD = [candle(minute, close=10 + minute / 100) for minute in range(20)]


def changed(lines: dict[int, str]) -> list[str]:
    """Twenty candles, some of them by other lines; the number is the line's in a file with a header."""
    return [lines.get(number, line) for number, line in enumerate(GOOD, 2)]


def opened(path: Path, *, repair: Collection[str] = (), timerange: str | None = None) -> Series:
    (series,) = open_data([str(path)], now_ms=NOW_MS, repair=repair, timerange=timerange).series.values()
    return series


def report_of(series: Series) -> Report:
    assert series.report is not None
    return series.report


def columns_of(bars: Bars) -> list[list[float]]:
    return [getattr(bars, name).tolist() for name in COLUMNS]


def minutes_of(bars: Bars) -> list[int]:
    return [(time - START_MS) // MINUTE_MS for time in bars.timestamp.tolist()]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def written(lines: Sequence[str], header: str | None = HEADER, name: str = "x.csv", end: str = "\n") -> Path:
        path = tmp_path / name
        text = end.join([header, *lines] if header else lines) + end
        path.write_text(text, newline="")
        return path

    return written


Write = Callable[..., Path]


def iso(minute: int, ending: str, between: str = " ", ahead: int = 0) -> str:
    hours, rest = divmod(minute + 60 * ahead, 60)
    return f"2024-01-01{between}{hours:02d}:{rest:02d}:00{ending}"


class TestFormats:
    TIMES = tuple(START_MS + minute * MINUTE_MS for minute in range(20))

    def check(self, path: Path, volume: float = 3.5) -> None:
        prices = [[value] * 20 for value in (10.25, 12.5, 9.0, 11.125, volume)]
        assert columns_of(opened(path).whole()) == [list(self.TIMES), *prices]

    @pytest.mark.parametrize(
        "time",
        [
            lambda minute: str(START_MS + minute * MINUTE_MS),
            lambda minute: f"{START_MS + minute * MINUTE_MS}.0",
            lambda minute: str(START_MS // 1000 + minute * 60),
            lambda minute: f"{START_MS // 1000 + minute * 60}.000",
            lambda minute: str((START_MS + minute * MINUTE_MS) * 1000),
            lambda minute: str((START_MS + minute * MINUTE_MS) * 1_000_000),
            lambda minute: str((START_MS + minute * MINUTE_MS) * (1000 if minute > 9 else 1)),
            lambda minute: iso(minute, ""),
            lambda minute: iso(minute, "")[:-3],
            lambda minute: iso(minute, "+00:00"),
            lambda minute: iso(minute, "Z", "T"),
            lambda minute: iso(minute, ".000Z", "T"),
            lambda minute: iso(minute, ".000000000", "T"),
            lambda minute: iso(minute, ".000000" if minute < 15 else ".00000Z", "T"),
            lambda minute: iso(minute, "+02:00", "T", ahead=2),
            lambda minute: iso(minute, "+0200", ahead=2),
            lambda minute: f"2023-12-31 20:{minute + 30}:00-03:30",
            # A clock that was put forward: no line is built like the one before.
            lambda minute: iso(minute, f"+0{1 + minute // 10}:00", ahead=1 + minute // 10),
            lambda minute: f'"{iso(minute, "")}"',
            lambda minute: iso(minute, "") if minute % 2 else str(START_MS + minute * MINUTE_MS),
        ],
    )
    def test_times(self, write: Write, time: Callable[[int], str]) -> None:
        self.check(write([f"{time(minute)},10.25,12.5,9,11.125,3.5" for minute in range(20)]))

    @pytest.mark.parametrize("name", ["timestamp", "Time", "DATE", "datetime", "open_time", "Open Time", "unix"])
    def test_names_in_any_order(self, write: Write, name: str) -> None:
        lines = [f"3.5,BTC,11.125,9,12.5,10.25,{START_MS + minute * MINUTE_MS}" for minute in range(20)]
        self.check(write(lines, f'VOLUME,symbol, Close ,"low",High,oPen,{name}'))

    @pytest.mark.parametrize("separator", [",", ";", "\t"])
    @pytest.mark.parametrize("end", ["\n", "\r\n"])
    @pytest.mark.parametrize("mark", ["", "\ufeff"])
    @pytest.mark.parametrize("header", [HEADER, None])
    def test_separators_and_ends(self, write: Write, separator: str, end: str, mark: str, header: str | None) -> None:
        lines = [f"{time},10.25,12.5,9,11.125,3.5".replace(",", separator) for time in self.TIMES]
        lines = [header.replace(",", separator), *lines] if header else lines
        self.check(write([mark + lines[0], *lines[1:]], None, end=end))

    def test_no_end_of_the_last_line(self, write: Write) -> None:
        path = write([f"{time},10.25,12.5,9,11.125,3.5" for time in self.TIMES])
        path.write_text(path.read_text().rstrip("\n"))
        self.check(path)

    @pytest.mark.parametrize("header", ["time,open,high,low,close", None])
    def test_without_a_volume(self, write: Write, header: str | None) -> None:
        path = write([f"{time},10.25,12.5,9,11.125" for time in self.TIMES], header)
        self.check(path, volume=0.0)

    @pytest.mark.parametrize("nothing", ["", "nan", "NaN", "null", " "])
    def test_rows_without_a_volume(self, write: Write, nothing: str) -> None:
        series = opened(write([f"{time},10.25,12.5,9,11.125,{nothing}" for time in self.TIMES]))
        assert series.whole().volume.tolist() == [0.0] * 20
        assert report_of(series).no_volume == 20
        assert report_of(series).notes()[0].endswith("x.csv: 20 lines without a volume, taken as 0")

    def test_more_columns_without_a_header(self, write: Write) -> None:
        self.check(write([f"{time},10.25,12.5,9,11.125,3.5,1704067259999,0,7,0,0,0" for time in self.TIMES], None))

    def test_of_several_times_the_exact_one(self, write: Write) -> None:
        lines = [f"{time},2024-01-01,10.25,12.5,9,11.125,3.5" for time in self.TIMES]
        self.check(write(lines, "unix,date,open,high,low,close,volume"))

    def test_quotes_and_blank_lines(self, write: Write) -> None:
        lines = [f'"{time}","10.25","12.5","9","11.125","3.5"' for time in self.TIMES]
        self.check(write(["", *lines[:7], "", "  ", *lines[7:], ""], f"\n{HEADER}"))

    def test_gzip_whatever_it_is_called(self, write: Write) -> None:
        path = write([f"{time},10.25,12.5,9,11.125,3.5" for time in self.TIMES])
        content = path.read_bytes()
        path.write_bytes(gzip.compress(content))
        self.check(path)

    @pytest.mark.parametrize("value", ["1e-05", "0.00001", "1.0E-5", "+0.00001", ".00001", " 0.00001 "])
    def test_numbers(self, write: Write, value: str) -> None:
        bars = opened(write([f"{time},{value},{value},{value},{value},1" for time in self.TIMES])).whole()
        assert bars.close.tolist() == [1e-5] * 20

    @given(st.lists(st.floats(1e-8, 1e9), min_size=8, max_size=30))
    @settings(max_examples=30)
    def test_every_bit_of_a_price(self, prices: list[float]) -> None:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "x.csv"
            lines = [candle(minute, *[price] * 4) for minute, price in enumerate(prices)]
            path.write_text("\n".join(lines))
            assert opened(path).whole().open.tolist() == prices


class TestParquet:
    TIMES = np.arange(20) * MINUTE_MS + START_MS

    def write(self, folder: Path, times: pa.Array, name: str = "date", **columns: pa.Array) -> Path:
        values = zip(COLUMNS[1:], (10.25, 12.5, 9.0, 11.125, 3.5), strict=True)
        prices = {column: pa.array([value] * 20) for column, value in values}
        path = folder / "x.parquet"
        pq.write_table(pa.table({name: times, **(prices | columns)}), path, row_group_size=7)
        return path

    @pytest.mark.parametrize(
        "kind",
        [
            pa.timestamp("ms"),
            pa.timestamp("ns", "UTC"),
            pa.timestamp("us", "Europe/Berlin"),
            pa.timestamp("s"),
            pa.int64(),
            pa.float64(),
        ],
    )
    def test_times(self, tmp_path: Path, kind: pa.DataType) -> None:
        times = pa.array(self.TIMES)
        if pa.types.is_timestamp(kind):
            times = times.cast(pa.timestamp("ms"))
        path = self.write(tmp_path, times.cast(kind))
        assert columns_of(opened(path).whole()) == [
            self.TIMES.tolist(),
            *([value] * 20 for value in (10.25, 12.5, 9.0, 11.125, 3.5)),
        ]

    def test_days_and_texts(self, tmp_path: Path) -> None:
        days = self.TIMES[:1] + np.arange(20) * 86_400_000
        for kind in (pa.date32(), pa.string()):
            path = self.write(tmp_path, pa.array(days).cast(pa.timestamp("ms")).cast(kind))
            series = opened(path)
            assert (series.timeframe.name, series.whole().timestamp.tolist()) == ("1d", days.tolist())

    def test_other_numbers(self, tmp_path: Path) -> None:
        path = self.write(
            tmp_path,
            pa.array(self.TIMES),
            high=pa.array([Decimal("12.50")] * 20),
            low=pa.array([9] * 20),
            volume=pa.array([None] * 20, pa.float32()),
        )
        bars = opened(path).whole()
        assert (bars.high[3], bars.low[3], bars.volume[3]) == (12.5, 9.0, 0.0)

    def test_what_is_wrong_with_its_row(self, tmp_path: Path) -> None:
        times: list[int | None] = [*self.TIMES.tolist()]
        times[3], times[12] = None, 17
        close = pa.array([11.125] * 9 + [None] + [11.125] * 10)
        path = self.write(tmp_path, pa.array(times), close=close)
        with pytest.raises(DataError) as refused:
            opened(path).whole()
        assert str(refused.value) == (
            f"{path}: a value is missing (row 4: timestamp is missing, row 10: close is missing);"
            ' an impossible time (row 13: timestamp is "17"). --repair drop leaves such rows out'
        )
        assert len(opened(path, repair=["drop"]).whole()) == 17

    def test_a_time_in_the_wrong_unit_is_no_time(self, tmp_path: Path) -> None:
        """What pandas makes of milliseconds that it takes for microseconds: days of 1970."""
        path = self.write(tmp_path, pa.array(self.TIMES).cast(pa.timestamp("us")))
        with pytest.raises(DataError, match='no candles that can be read: timestamp is "1970-01-20'):
            opened(path)

    def test_of_a_download(self, tmp_path: Path) -> None:
        """Symbol and timeframe are in the file: its name does not matter."""
        series = store.Series("binance", "ETH/USDT:USDT", "1m", MINUTE_MS)
        candles = np.array([(time, 10.25, 12.5, 9.0, 11.125, 3.5) for time in self.TIMES.tolist()], CANDLE)
        path = tmp_path / "x"
        store.write(path, series, [(START_MS, START_MS + 20 * MINUTE_MS)], [candles])
        found = opened(path)
        assert (found.symbol, found.timeframe, len(found.whole())) == ("ETH/USDT:USDT", MINUTE, 20)

    @pytest.mark.parametrize(
        ("column", "text"),
        [("high", "the column high holds string, not numbers"), ("date", "the column date holds bool, no times")],
    )
    def test_columns_of_another_kind(self, tmp_path: Path, column: str, text: str) -> None:
        other = {"high": pa.array(["x"] * 20)} if column == "high" else {}
        path = self.write(tmp_path, pa.array([True] * 20) if column == "date" else pa.array(self.TIMES), **other)
        with pytest.raises(DataError, match=text):
            opened(path)

    def test_damaged(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, pa.array(self.TIMES))
        path.write_bytes(path.read_bytes()[:-50])
        with pytest.raises(DataError, match="cannot be read as a Parquet file"):
            opened(path)
        path.write_text("Dear diary")
        with pytest.raises(DataError, match="is no Parquet file"):
            opened(path)

    def test_empty(self, tmp_path: Path) -> None:
        path = tmp_path / "x.parquet"
        pq.write_table(pa.table({name: pa.array([], pa.float64()) for name in COLUMNS}), path)
        with pytest.raises(DataError, match="is empty"):
            opened(path)

    def test_without_pyarrow(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, pa.array(self.TIMES))
        (tmp_path / "pyarrow.py").write_text("raise ModuleNotFoundError('No module named pyarrow', name='pyarrow')\n")
        code = (
            "import sys; sys.path.insert(0, sys.argv[2])\n"
            "from bot.backtest.data import DataError, open_data\n"
            "try: open_data([sys.argv[1]], now_ms=0)\n"
            "except DataError as error: print(error.exit_code, error)"
        )
        process = subprocess.run(
            [sys.executable, "-c", code, path, tmp_path], capture_output=True, text=True, check=True
        )
        assert process.stdout == f"2 {path}: Parquet needs pyarrow, which is not installed: pip install '.[parquet]'\n"


class TestChecks:
    """Twenty candles in the lines 2 to 21."""

    @pytest.mark.parametrize(
        ("lines", "told"),
        [
            ({7: candle(5, close="abc")}, 'not a number (line 7: close is "abc")'),  # type: ignore[arg-type]
            ({7: candle(5).replace(",10", ",1_0", 1)}, 'not a number (line 7: open is "1_0")'),
            ({7: candle(5, close="0x1f")}, 'not a number (line 7: close is "0x1f")'),  # type: ignore[arg-type]
            ({7: candle(5, open="")}, "a value is missing (line 7: open is missing)"),  # type: ignore[arg-type]
            ({7: candle(5, low=np.nan)}, "a value is missing (line 7: low is missing)"),
            ({7: ",10,12,9,11,1"}, "a value is missing (line 7: timestamp is missing)"),
            ({7: "1704067500000,10,12"}, "not the columns of the others (line 7: 3 columns instead of 6)"),
            ({7: "1704067500000,10,000.5,12,9,11,1"}, "not the columns of the others (line 7: 7 columns instead of 6)"),
            ({7: '1704067500000,10,12,9,11,"1'}, "not the columns of the others (line 7: quotes that do not match)"),
            ({7: candle(5, low=0)}, "an impossible price (line 7: low is 0.0)"),
            ({7: candle(5, open=-1, low=-1)}, "an impossible price (line 7: open is -1.0)"),
            ({7: candle(5, high=np.inf)}, "an impossible price (line 7: high is inf)"),
            ({7: candle(5, high=10.5)}, "high below open or close (line 7: high is 10.5, open is 10.0, close is 11.0)"),
            ({7: candle(5, high=9.5)}, "high below open or close (line 7: high is 9.5, open is 10.0, close is 11.0)"),
            ({7: candle(5, low=10.5)}, "low above open or close (line 7: low is 10.5, open is 10.0, close is 11.0)"),
            ({7: candle(5, volume=-1)}, "an impossible volume (line 7: volume is -1.0)"),
            ({7: candle(5, volume=np.inf)}, "an impossible volume (line 7: volume is inf)"),
            ({7: "yesterday,10,12,9,11,1"}, 'an impossible time (line 7: timestamp is "yesterday")'),
            ({7: "2024-13-01,10,12,9,11,1"}, 'an impossible time (line 7: timestamp is "2024-13-01")'),
            ({7: "-5,10,12,9,11,1"}, 'an impossible time (line 7: timestamp is "-5")'),
            ({7: "inf,10,12,9,11,1"}, 'an impossible time (line 7: timestamp is "inf")'),
            ({7: "631151999999,10,12,9,11,1"}, 'an impossible time (line 7: timestamp is "631151999999")'),
            (
                {21: f"{NOW_MS},10,12,9,11,1"},
                "an impossible time (line 21: the candle of 2025-02-04T00:00:00.000Z is not closed yet)",
            ),
            (
                {7: f"{START_MS + 330_000},10,12,9,11,1"},
                "not where a candle opens (line 7: 2024-01-01T00:05:30.000Z in candles of 1m)",
            ),
            ({7: GOOD[4]}, "the same candle again (line 7: 2024-01-01T00:04:00.000Z, as line 6)"),
            ({7: candle(4)}, "another candle of the same time (line 7: 2024-01-01T00:04:00.000Z, as line 6)"),
            (
                {7: GOOD[6], 8: GOOD[5]},
                "earlier than the row before (line 8: 2024-01-01T00:05:00.000Z after 2024-01-01T00:06:00.000Z)",
            ),
            ({21: "170406828"}, "not the columns of the others (line 21: 1 columns instead of 6)"),
        ],
    )
    @pytest.mark.parametrize("block", [60, 300, 1 << 19])
    def test_each_with_its_line(self, write: Write, lines: dict[int, str], told: str, block: int) -> None:
        path = write(changed(lines))
        source = Checked(TextFile(path, block), MINUTE, frozenset(), NOW_MS)
        with pytest.raises(DataError) as refused:
            list(source.bars(0))
        cure = "--repair sort puts them in order" if "earlier" in told else "--repair drop leaves such rows out"
        assert str(refused.value) == f"{path}: {told}. {cure}"
        assert refused.value.exit_code == 65

    @pytest.mark.parametrize(
        "time",
        [
            "2024-01-01 00:05:0",
            "2024-01-01 00:5:00",
            "2024-01-01 00:05:60",
            "2024-01-0x 00:05:00",
            "2024-02-30 00:05:00",
            "2024/01/01 00:05:00",
            "1989-01-01 00:05:00",
            "NaT",
            "today",
        ],
    )
    def test_no_such_moment(self, write: Write, time: str) -> None:
        lines = [f"{iso(minute, '')},10,12,9,11,1" for minute in range(20)]
        lines[5] = f"{time},10,12,9,11,1"
        with pytest.raises(DataError, match=f'an impossible time .line 7: timestamp is "{time}"'):
            opened(write(lines)).whole()

    def test_the_first_few_of_each_and_how_many(self, write: Write) -> None:
        lines = {number: candle(number - 2, close=99) for number in range(5, 13)} | {15: "x", 16: GOOD[3]}
        path = write(changed(lines))
        series = opened(path)
        with pytest.raises(DataError) as refused:
            series.whole()
        shown = "high is 12.0, open is 10.0, close is 99.0"
        assert str(refused.value) == (
            f"{path}: not the columns of the others (line 15: 1 columns instead of 6); high below open or close"
            f" (line 5: {shown}, line 6: {shown}, line 7: {shown}, and 5 more); earlier than the row before (line 16:"
            " 2024-01-01T00:03:00.000Z after 2024-01-01T00:12:00.000Z). --repair drop leaves such rows out and"
            " --repair sort puts them in order"
        )
        faults = report_of(series).document()["faults"]
        assert {kind: found["count"] for kind, found in faults.items()} == {
            "columns": 1,
            "high_too_low": 8,
            "disorder": 1,
        }
        assert faults["columns"]["first"] == [{"line": 15, "what": "1 columns instead of 6"}]

    def test_a_last_line_that_was_cut_short(self, write: Write) -> None:
        path = write(GOOD)
        path.write_text(path.read_text()[:-8])
        with pytest.raises(DataError, match=r"cut short \(line 21: 5 columns instead of 6\)"):
            opened(path).whole()
        assert minutes_of(opened(path, repair=["drop"]).whole()) == list(range(19))

    def test_gaps_are_told_and_not_refused(self, write: Write) -> None:
        path = write([*GOOD[:5], *GOOD[6:9], *GOOD[15:]])
        series = opened(path)
        assert minutes_of(series.whole()) == [0, 1, 2, 3, 4, 6, 7, 8, 15, 16, 17, 18, 19]
        report = report_of(series)
        assert report.notes() == [
            f"{path}: 2 gaps, 7 candles missing; the longest from 2024-01-01T00:09:00.000Z to 2024-01-01T00:15:00.000Z"
        ]
        assert (report.rows, report.bars, report.first_ms, report.last_ms) == (13, 13, START_MS, START_MS + 1_140_000)

    def test_gaps_of_months(self, write: Write) -> None:
        months = [np.datetime64(f"2023-{month:02d}", "ms").astype(int) for month in (1, 2, 3, 4, 5, 6, 7, 10, 11)]
        series = opened(write([f"{month},10,12,9,11,1" for month in months]), repair=["fill"])
        assert series.timeframe.name == "1M"
        assert len(series.whole()) == 11
        assert report_of(series).longest == (
            np.datetime64("2023-08", "ms").astype(int),
            np.datetime64("2023-10", "ms").astype(int),
        )

    def test_a_sound_file_has_nothing_to_tell(self, write: Write) -> None:
        series = opened(write(GOOD))
        assert series.report is None
        series.whole()
        assert (report_of(series).notes(), report_of(series).findings) == ([], {})

    def test_what_is_sound_comes_before_what_is_not(self, write: Write) -> None:
        """A stream is refused when it comes to the line, and the rest is read to tell of all of it."""
        path = write(changed({15: "x", 20: "y"}))
        blocks = Checked(TextFile(path, 120), MINUTE, frozenset(), NOW_MS).bars(0)
        seen: list[int] = []
        with pytest.raises(DataError, match=r"line 15.*line 20"):
            seen.extend(minute for bars in blocks for minute in minutes_of(bars))
        assert seen == list(range(len(seen)))
        assert 5 < len(seen) <= 13


class TestNoFileOfCandles:
    @pytest.mark.parametrize(
        ("content", "text"),
        [
            ("", "is empty"),
            ("\n \n\n", "is empty"),
            (HEADER, "has no candles that can be read"),
            (f"{HEADER}\n", "has no candles that can be read"),
            (f"{HEADER}\nx,1,2\n", "no candles that can be read: 3 columns instead of 6"),
            (
                "<!DOCTYPE html><html></html>",
                "line 1 is neither a candle nor a header such as timestamp,open,high,low,",
            ),
            ("https://www.example.com\n" + HEADER, "line 1 is neither a candle nor a header"),
            ("date,open,high,close", "has no column low; it has date, open, high, close"),
            ("date,open,high,low,Close,close", "has the column close more than once"),
            ("1704067200000,10,12\n", "line 1 has 3 columns, a candle has 5 at least"),
            ("x" * 100_000, "is neither a candle nor a header"),
            ("\n".join([*GOOD, "1" * 200_000]), "a line of more than 65,536 characters"),
            ("PK\x03\x04", "is a zip archive"),
            ("ARROW1", "is a feather file"),
        ],
    )
    def test_text(self, tmp_path: Path, content: str, text: str) -> None:
        path = tmp_path / "x.csv"
        path.write_text(content)
        with pytest.raises(DataError, match=text) as refused:
            opened(path).whole()
        assert "\n" not in str(refused.value)

    def test_another_encoding(self, tmp_path: Path) -> None:
        path = tmp_path / "x.csv"
        path.write_text("\n".join([HEADER, *GOOD]), encoding="utf-16")
        with pytest.raises(DataError, match="not a text in UTF-8"):
            opened(path)

    @pytest.mark.parametrize("damage", ["cut", "changed"])
    def test_damaged_gzip(self, tmp_path: Path, damage: str) -> None:
        path = tmp_path / "x.csv.gz"
        content = gzip.compress("\n".join([HEADER, *(candle(minute) for minute in range(9_000))]).encode())
        path.write_bytes(content[:-4000] if damage == "cut" else content[:-4000] + bytes(1000) + content[-3000:])
        with pytest.raises(DataError, match="cannot be read to its end"):
            opened(path).whole()

    def test_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="there is no file") as refused:
            opened(tmp_path / "x.csv")
        assert refused.value.exit_code == 2


class TestRepair:
    def test_drop(self, write: Write) -> None:
        """Of those of one time the last one stays, as in a download."""
        series = opened(write(changed({4: "x", 7: candle(4, close=11.5), 9: candle(7, high=1)})), repair=["drop"])
        bars = series.whole()
        assert minutes_of(bars) == [0, 1, 3, 4, 6, *range(8, 20)]
        assert bars.close[3] == 11.5
        report = report_of(series)
        assert (report.rows, report.dropped, report.bars, report.filled) == (20, 3, 17, 0)
        assert report.notes()[-2].endswith(": 3 lines left out")

    def test_sort(self, write: Write) -> None:
        series = opened(write(GOOD[::-1]), repair=["sort"])
        assert columns_of(series.whole()) == columns_of(opened(write(GOOD)).whole())
        assert report_of(series).document()["faults"]["disorder"]["count"] == 19

    def test_sort_and_drop(self, write: Write) -> None:
        """Of those of one time the last one of the file stays, however far from it the others are."""
        text = [candle(minute, close=9 + turn) for turn in range(3) for minute in range(200, 0, -1)]
        series = opened(write(text), repair=["sort", "drop"])
        bars = series.whole()
        assert minutes_of(bars) == list(range(1, 201))
        assert set(bars.close.tolist()) == {11.0}
        assert report_of(series).dropped == 400

    def test_fill(self, write: Write) -> None:
        series = opened(write([*GOOD[:5], *GOOD[8:]]), repair=["fill"])
        bars = series.whole()
        assert minutes_of(bars) == list(range(20))
        for column in (bars.open, bars.high, bars.low, bars.close):
            assert column[5:8].tolist() == [10.04] * 3
        assert bars.volume[4:9].tolist() == [1, 0, 0, 0, 1]
        assert report_of(series).filled == 3
        assert "3 candles missing, filled;" in report_of(series).notes()[0]

    def test_a_gap_of_years_is_filled_in_parts(self, write: Write) -> None:
        hours = [START_MS - 20 * 365 * 86_400_000 + hour * 3_600_000 for hour in range(9)]
        path = write([f"{time},10,12,9,11,1" for time in [*hours, START_MS]])
        parts = list(Checked(TextFile(path), TIMEFRAMES["1h"], frozenset(ALL), NOW_MS).bars(0))
        assert max(map(len, parts)) == 65_536
        assert sum(map(len, parts)) == 20 * 365 * 24 + 1
        assert (np.diff(np.concatenate([part.timestamp for part in parts])) == 3_600_000).all()

    @pytest.mark.parametrize("repair", [["sort"], ["fill"], ["sort", "fill"]])
    def test_nothing_that_nobody_asked_for(self, write: Write, repair: list[str]) -> None:
        with pytest.raises(DataError, match=r"--repair drop leaves such rows out$"):
            opened(write(changed({5: "x"})), repair=repair).whole()

    def test_nothing_left(self, write: Write) -> None:
        path = write([candle(minute, high=1) for minute in range(20)])
        with pytest.raises(DataError, match=r"has no candles; .*20 lines left out"):
            opened(path, repair=ALL).whole()

    def test_no_such_repair(self, write: Write) -> None:
        with pytest.raises(DataError, match="--repair: 'mend' is not a valid Repair; there is sort, drop, fill"):
            opened(write(GOOD), repair=["mend"])


# What a line of a random file may be: a candle, or one of these.
DEFECTS: dict[str, Callable[[int, float], str]] = {
    "text": lambda minute, price: candle(minute, close="-"),  # type: ignore[arg-type]
    "nothing": lambda minute, price: candle(minute, low=np.nan),
    "high": lambda minute, price: candle(minute, price, price / 2, price, price),
    "zero": lambda minute, price: candle(minute, price, price, 0, price),
    "columns": lambda minute, price: candle(minute)[:20],
    "time": lambda minute, price: f"x{candle(minute)}",
    "off": lambda minute, price: candle(minute).replace("000,", "500,", 1),
    "future": lambda minute, price: candle(minute + 10**6),
}
lines = st.lists(
    st.tuples(
        st.integers(0, 40),
        st.integers(1, 10**6).map(lambda steps: steps / 100),
        st.sampled_from(["", "", "", "", "", "", "", *DEFECTS]),
    ),
    min_size=1,
    max_size=40,
)


def quoted(minute: int, *prices: float) -> str:
    return ",".join(f'"{field}"' for field in candle(minute, *prices).split(","))


def dated(minute: int, *prices: float) -> str:
    return f"{iso(minute, '+00:00')},{candle(minute, *prices).partition(',')[2]}"


@st.composite
def files(draw: st.DrawFn) -> tuple[list[str], list[tuple[int, float]]]:
    """The lines of a file, and minutes and prices of those that are candles."""
    rows = draw(lines)
    if draw(st.booleans()):
        rows.sort(key=lambda row: row[0])
    styles: list[Callable[..., str]] = [candle, quoted, dated]
    written = draw(st.sampled_from(styles))
    text, good = [], []
    for minute, price, defect in rows:
        text.append(DEFECTS[defect](minute, price) if defect else written(minute, *[price] * 4))
        if not defect:
            good.append((minute, price))
        text += [""] * draw(st.integers(0, 1))
    return text, good


def outcome(file: File, repair: Collection[Repair]) -> tuple[object, object, object]:
    """All that can be told of a load: candles, report, and the error where it was refused."""
    source = Checked(file, MINUTE, frozenset(repair), NOW_MS)
    series = Series("BTC/USDT", MINUTE, Market("BTC/USDT", Decimal("0.01")), source, 0, END_MS)
    try:
        return columns_of(series.whole()), source.report, None
    except DataError as error:
        return None, source.report, str(error)


class TestAnyFile:
    @given(files(), st.sampled_from([ALL, ("sort", "drop")]))
    @settings(max_examples=150)
    def test_repaired_is_what_one_would_do_by_hand(
        self, file: tuple[list[str], list[tuple[int, float]]], repair: tuple[Repair, ...]
    ) -> None:
        text, good = file
        with TemporaryDirectory() as folder:
            path = Path(folder) / "x.csv"
            path.write_text("\n".join([HEADER, *text]))
            bars, _, error = outcome(TextFile(path), list(map(Repair, repair)))
        by_minute = dict(good)
        if not by_minute:
            assert error is not None
            return
        first, last = min(by_minute), max(by_minute)
        expected: list[tuple[int, float, int]] = []
        for minute in range(first, last + 1):
            if minute in by_minute:
                expected.append((minute, by_minute[minute], 1))
            elif "fill" in repair:
                expected.append((minute, expected[-1][1], 0))
        prices = [price for _, price, _ in expected]
        times = [START_MS + minute * MINUTE_MS for minute, _, _ in expected]
        assert bars == [times, *[prices] * 4, [volume for _, _, volume in expected]]

    @given(files(), st.sets(st.sampled_from(ALL)), st.integers(1, 400), st.integers(1, 45))
    @settings(max_examples=150)
    def test_blocks_cannot_show(
        self, file: tuple[list[str], list[tuple[int, float]]], repair: set[Repair], size: int, rows: int
    ) -> None:
        """Cut anywhere, read by numpy or line by line, in a file or in a Parquet one: the same candles and findings."""
        with TemporaryDirectory() as folder:
            path = Path(folder) / "x.csv"
            path.write_text("\n".join([HEADER, *file[0]]))
            whole = outcome(TextFile(path), repair)
            assert outcome(TextFile(path, size), repair) == whole
            source = Checked(TextFile(path, size), MINUTE, frozenset(repair), NOW_MS)
            series = Series("BTC/USDT", MINUTE, Market("BTC/USDT", Decimal("0.01")), source, 0, END_MS)
            if whole[2] is not None:
                with pytest.raises(DataError):
                    list(series.blocks(rows))
                return
            blocks = list(series.blocks(rows))
        assert [len(block) for block in blocks[:-1]] == [rows] * (len(blocks) - 1)
        assert 1 <= len(blocks[-1]) <= rows
        joined = [[value for part in parts for value in part] for parts in zip(*map(columns_of, blocks), strict=True)]
        assert joined == whole[0]

    @given(st.lists(st.text('0123456789.eE+-_ nanif"x,', max_size=8), min_size=1, max_size=12))
    @settings(max_examples=200)
    def test_numpy_and_line_by_line_know_a_number_alike(self, values: list[str]) -> None:
        """The second file has a line that numpy cannot read, so that all of it is read the other way."""
        text = [f"{START_MS + minute * MINUTE_MS},1,9,1,1,{value}" for minute, value in enumerate(values)]
        with TemporaryDirectory() as folder:
            one, other = Path(folder) / "x.csv", Path(folder) / "y.csv"
            one.write_text("\n".join([HEADER, *text, GOOD[19], ""]))
            other.write_text("\n".join([HEADER, *text, GOOD[19], "x", ""]))
            assert outcome(TextFile(one), [Repair.DROP])[0] == outcome(TextFile(other), [Repair.DROP])[0]

    @given(files(), st.sets(st.sampled_from(ALL)), st.integers(1, 12))
    @settings(max_examples=40)
    def test_the_same_in_parquet(
        self, file: tuple[list[str], list[tuple[int, float]]], repair: set[Repair], rows: int
    ) -> None:
        good = [(START_MS + minute * MINUTE_MS, *[price] * 4, 1.0) for minute, price in file[1]]
        if not good:
            return
        with TemporaryDirectory() as folder:
            text, table = Path(folder) / "x.csv", Path(folder) / "x.parquet"
            text.write_text("\n".join(",".join(map(repr, row)) for row in good))
            arrays = [pa.array(column) for column in zip(*good, strict=True)]
            pq.write_table(pa.table(dict(zip(COLUMNS, arrays, strict=True))), table)
            of_text, of_table = outcome(TextFile(text), repair), outcome(ParquetFile(table, rows), repair)
            assert of_text[0] == of_table[0]
            assert str(of_text[2]).replace("line", "row").replace("x.csv", "x.parquet") == str(of_table[2])
