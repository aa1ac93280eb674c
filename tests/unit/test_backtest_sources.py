"""From what is named on the command line to the data of a backtest: whose it is, of which timeframe, which part."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.backtest.data import DataError, MarketData, Series, SimulatedMarket, TickSeries, open_data
from bot.backtest.data.ledger import read_ticks
from bot.backtest.data.series import Held
from bot.backtest.data.times import END_MS, makes
from bot.bars import Candles
from bot.domain import Bars, Block, Market
from bot.feeds import SimulatedFeed
from bot.repositories import LedgerError, Retention, RunRepository, TickRepository, open_database
from bot.repositories.seals import SEAL_TICKS
from bot.timeframes import DAY_MS, MINUTE_MS, TIMEFRAMES, Timeframe

START_MS = 1_704_067_200_000  # 2024-01-01
NOW_MS = START_MS + 800 * DAY_MS
HOUR = TIMEFRAMES["1h"]


def opened(*specs: object, **options: object) -> MarketData:
    return open_data([str(spec) for spec in specs], now_ms=NOW_MS, **options)  # type: ignore[arg-type]


def write(path: Path, rows: int = 20, timeframe: str = "1m", price: float = 10.25) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    opens = START_MS + np.arange(rows) * TIMEFRAMES[timeframe].ms
    path.write_text("".join(f"{time},{price},{price},{price},{price},1\n" for time in opens.tolist()))
    return path


def minutes_of(bars: Bars) -> list[int]:
    return [(time - START_MS) // MINUTE_MS for time in bars.timestamp.tolist()]


class TestSymbol:
    @pytest.mark.parametrize(
        ("name", "symbol"),
        [
            ("prices.csv", "BTC/USDT"),
            ("ETH_USDT-1m.csv", "ETH/USDT"),
            ("ETH_USDT_USDT-1m.csv", "ETH/USDT:USDT"),
            ("ETH_USDT_USDT-1m-futures.csv", "ETH/USDT:USDT"),
            ("SOLBTC-1m-2024-01.csv", "SOL/BTC"),
        ],
    )
    def test_of_a_name(self, tmp_path: Path, name: str, symbol: str) -> None:
        data = opened(write(tmp_path / name))
        assert data.symbols == (symbol,)
        assert data.markets[symbol] == Market(symbol, Decimal("0.01"))
        assert (data.kind, data.timeframe) == ("candles", TIMEFRAMES["1m"])

    def test_said(self, tmp_path: Path) -> None:
        path = write(tmp_path / "ETH_USDT-1m.csv")
        assert opened(f"sol-usdt={path}").symbols == ("SOL/USDT",)
        assert opened(write(tmp_path / "prices.csv"), symbols=["sol-usdt"]).symbols == ("SOL/USDT",)

    def test_a_name_with_an_equals_sign(self, tmp_path: Path) -> None:
        assert opened(write(tmp_path / "year=2024" / "x.csv")).symbols == ("BTC/USDT",)

    def test_several(self, tmp_path: Path) -> None:
        one, other = write(tmp_path / "ETH_USDT-1m.csv"), write(tmp_path / "b.csv")
        assert opened(one, f"BTC/USDT={other}").symbols == ("ETH/USDT", "BTC/USDT")
        assert opened(one, f"BTC/USDT={other}", symbols=["BTC/USDT", "ETH/USDT"]).symbols == ("BTC/USDT", "ETH/USDT")

    @pytest.mark.parametrize(
        ("specs", "symbols", "text"),
        [
            (["ETH_USDT-1m.csv", "b.csv"], [], "b.csv does not say which symbol it is of: write SYMBOL="),
            (
                ["ETH_USDT-1m.csv"],
                ["BTC/USDT"],
                "of ETH/USDT, which is not asked for; if it is of BTC/USDT, write BTC/USDT=",
            ),
            (["ETH_USDT-1m.csv"], ["ETH/USDT", "BTC/USDT"], "no file is of BTC/USDT; there is ETH/USDT"),
            (["ETH_USDT-1m.csv", "ETH_USDT-1m.csv"], [], "is of ETH/USDT, as a file before it is"),
            (["ETH_USDT-1m.csv"], ["ETH"], "--symbol ETH: a symbol is written like BTC/USDT"),
            (
                ["ETH_USDT-1m.csv", "SOL_USDT-1h.csv"],
                [],
                "of one timeframe go together, and these are 1m of ETH/USDT, 1h of SOL/USDT",
            ),
            ([], [], "name a file of candles, a folder of them, a ledger, or simulated"),
        ],
    )
    def test_what_does_not_go_together(
        self, tmp_path: Path, specs: Sequence[str], symbols: Sequence[str], text: str
    ) -> None:
        for name in ("ETH_USDT-1m.csv", "b.csv"):
            write(tmp_path / name)
        write(tmp_path / "SOL_USDT-1h.csv", timeframe="1h")
        with pytest.raises(DataError) as refused:
            opened(*(tmp_path / spec for spec in specs), symbols=symbols)
        assert text in str(refused.value)
        assert refused.value.exit_code == 2


class TestTimeframe:
    @pytest.mark.parametrize("name", TIMEFRAMES)
    def test_found_by_the_times(self, tmp_path: Path, name: str) -> None:
        timeframe = TIMEFRAMES[name]
        first = timeframe.open_of(START_MS)
        path = tmp_path / "x.csv"
        path.write_text("".join(f"{timeframe.back(first, -place)},1,1,1,1\n" for place in range(12)))
        assert opened(path).timeframe == timeframe

    def test_a_gap_and_an_odd_row_do_not_matter(self, tmp_path: Path) -> None:
        path = tmp_path / "x.csv"
        places = [0, 5, 10, 15, 60, 65, 70, 72, 75]
        path.write_text("".join(f"{START_MS + place * MINUTE_MS},1,1,1,1\n" for place in places))
        data = opened(path, repair=["drop"])
        assert data.timeframe == TIMEFRAMES["5m"]
        assert minutes_of(data.series["BTC/USDT"].whole()) == [0, 5, 10, 15, 60, 65, 70, 75]

    @pytest.mark.parametrize("step_ms", [7 * MINUTE_MS, 10 * MINUTE_MS, 7 * DAY_MS + 1])
    def test_none(self, tmp_path: Path, step_ms: int) -> None:
        path = tmp_path / "x.csv"
        path.write_text("".join(f"{START_MS + place * step_ms},1,1,1,1\n" for place in range(12)))
        with pytest.raises(DataError, match="these times are not the opens of candles of 1m, 3m"):
            opened(path)

    def test_closes_are_no_opens(self, tmp_path: Path) -> None:
        path = tmp_path / "x.csv"
        path.write_text("".join(f"{START_MS + place * MINUTE_MS + 59_999},1,1,1,1\n" for place in range(12)))
        with pytest.raises(DataError, match=r"2024-01-01T00:00:59.999Z, 2024-01-01T00:01:59.999Z"):
            opened(path)

    def test_the_name_says_otherwise(self, tmp_path: Path) -> None:
        """An hour's candle that were taken for a minute's would be known 59 minutes too early."""
        path = write(tmp_path / "BTC_USDT-1m.csv", timeframe="1h")
        with pytest.raises(DataError, match="says that it has candles of 1m, and has them of 1h"):
            opened(path)
        with pytest.raises(DataError, match="has candles of 10m; there are 1m, 3m"):
            opened(write(tmp_path / "BTC_USDT-10m.csv"))

    def test_too_few_to_tell(self, tmp_path: Path) -> None:
        one = write(tmp_path / "x.csv", rows=1)
        with pytest.raises(DataError, match="too few candles to tell how long they are: say it with --timeframe"):
            opened(one)
        assert opened(one, timeframe=HOUR).timeframe == HOUR
        assert opened(write(tmp_path / "BTC_USDT-5m.csv", rows=1)).timeframe == TIMEFRAMES["5m"]
        assert opened(write(tmp_path / "x.csv", rows=2)).timeframe == TIMEFRAMES["1m"]
        assert len(opened(write(tmp_path / "x.csv", rows=2)).series["BTC/USDT"].whole()) == 2
        far_apart = write(tmp_path / "x.csv", rows=2, timeframe="3m")
        assert opened(far_apart).timeframe == TIMEFRAMES["3m"]
        assert opened(far_apart, timeframe=TIMEFRAMES["1m"]).timeframe == TIMEFRAMES["1m"]

    def test_what_is_traded_on_is_made_of_it(self, tmp_path: Path) -> None:
        path = write(tmp_path / "x.csv", timeframe="5m")
        assert opened(path, timeframe=HOUR).timeframe == TIMEFRAMES["5m"]
        with pytest.raises(DataError, match="has candles of 5m, which make none of 3m"):
            opened(path, timeframe=TIMEFRAMES["3m"])

    @pytest.mark.parametrize("base", TIMEFRAMES.values(), ids=lambda each: each.name)
    @pytest.mark.parametrize("wanted", TIMEFRAMES.values(), ids=lambda each: each.name)
    def test_whole_bars_make_a_bar(self, base: Timeframe, wanted: Timeframe) -> None:
        """By the opens of half a year: no bar of the one lies in two of the other."""
        opens = [base.open_of(START_MS)]
        while opens[-1] < START_MS + 180 * DAY_MS and len(opens) < 3000:
            opens.append(base.back(opens[-1], -1))
        begins = wanted.floor(np.array(opens[:-1]))
        ends = wanted.floor(np.array(opens[1:]) - 1)
        assert makes(base, wanted) == bool((begins == ends).all())


class TestFolder:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        for symbol in ("BTC_USDT", "ETH_USDT"):
            write(tmp_path / f"{symbol}-1m.csv")
        write(tmp_path / "BTC_USDT-1h.csv", timeframe="1h")
        write(tmp_path / "notes.csv")
        return tmp_path

    def test_all_of_the_timeframe_that_all_have(self, folder: Path) -> None:
        data = opened(folder)
        assert (data.symbols, data.timeframe) == (("BTC/USDT", "ETH/USDT"), TIMEFRAMES["1m"])

    def test_the_longest_that_makes_what_is_wanted(self, folder: Path) -> None:
        for wanted, found in (("1h", "1h"), ("4h", "1h"), ("5m", "1m")):
            data = opened(folder, symbols=["BTC/USDT"], timeframe=TIMEFRAMES[wanted])
            assert (data.symbols, data.timeframe) == (("BTC/USDT",), TIMEFRAMES[found])
        assert opened(f"BTC/USDT={folder}", timeframe=HOUR).symbols == ("BTC/USDT",)

    def test_parquet_goes_before_csv(self, folder: Path) -> None:
        (folder / "BTC_USDT-1h.parquet").write_text("no")
        with pytest.raises(DataError, match=r"BTC_USDT-1h.parquet is no Parquet file"):
            opened(folder, symbols=["BTC/USDT"], timeframe=HOUR)

    @pytest.mark.parametrize(
        ("symbols", "timeframe", "text"),
        [
            (["SOL/USDT"], None, "has no file of SOL/USDT; it has BTC/USDT, ETH/USDT"),
            (["BTC/USDT"], None, "has BTC/USDT in 1h, 1m: say which one with --timeframe"),
            (["ETH/USDT"], "1m", ""),
        ],
    )
    def test_what_it_does_not_have(
        self, folder: Path, symbols: Sequence[str], timeframe: str | None, text: str
    ) -> None:
        wanted = TIMEFRAMES[timeframe] if timeframe else None
        if not text:
            assert opened(folder, symbols=symbols, timeframe=wanted).symbols == tuple(symbols)
            return
        with pytest.raises(DataError) as refused:
            opened(folder, symbols=symbols, timeframe=wanted)
        assert str(refused.value) == f"{folder} {text}"

    def test_no_timeframe_that_serves(self, folder: Path) -> None:
        (folder / "ETH_USDT-1m.csv").rename(folder / "ETH_USDT-3m.csv")
        with pytest.raises(DataError, match="there is no timeframe that all of them have"):
            opened(folder)
        with pytest.raises(DataError, match="has ETH/USDT in 3m: of which none of 5m can be made"):
            opened(folder, symbols=["ETH/USDT"], timeframe=TIMEFRAMES["5m"])

    def test_the_folder_above(self, tmp_path: Path) -> None:
        write(tmp_path / "binance" / "BTC_USDT-1m.csv")
        with pytest.raises(
            DataError, match=r"no files named like BTC_USDT-1m.parquet .*; is it one of its folders binance\?"
        ):
            opened(tmp_path)


class TestRange:
    def test_what_lies_before_it_comes_too(self, tmp_path: Path) -> None:
        path = write(tmp_path / "x.csv", rows=6, timeframe="1d")
        data = opened(path, timerange="20240103-20240105")
        series = data.series["BTC/USDT"]

        def days(bars: Bars) -> list[int]:
            return [(time - START_MS) // DAY_MS for time in bars.timestamp.tolist()]

        assert (data.start_ms, data.end_ms) == (START_MS + 2 * DAY_MS, START_MS + 4 * DAY_MS)
        assert days(series.whole()) == [0, 1, 2, 3]
        assert days(series.whole(lookback=1)) == [1, 2, 3]
        assert days(series.whole(lookback=0)) == [2, 3]
        assert days(series.whole(lookback=9)) == [0, 1, 2, 3]

    def test_open_ends(self, tmp_path: Path) -> None:
        path = write(tmp_path / "x.csv", rows=6, timeframe="1d")
        for timerange, found in ((None, (0, END_MS)), ("20240103-", (START_MS + 2 * DAY_MS, NOW_MS))):
            data = opened(path, timerange=timerange)
            assert (data.start_ms, data.end_ms) == found
        assert opened(path, timerange="-20240103").start_ms == 0

    def test_nothing_in_it(self, tmp_path: Path) -> None:
        series = opened(write(tmp_path / "x.csv", timeframe="1d"), timerange="20240501-20240601").series["BTC/USDT"]
        for read in (series.whole, lambda: list(series.blocks())):
            with pytest.raises(DataError) as refused:
                read()
            assert str(refused.value) == (
                "--timerange: BTC/USDT has no candles in it; its source has them from 2024-01-01T00:00:00.000Z"
                " to 2024-01-20T00:00:00.000Z"
            )
            assert refused.value.exit_code == 2

    @pytest.mark.parametrize("timerange", ["hello", "20240201-20240101", "20241301-", "20300101-"])
    def test_none(self, tmp_path: Path, timerange: str) -> None:
        with pytest.raises(DataError, match="--timerange") as refused:
            opened(write(tmp_path / "x.csv"), timerange=timerange)
        assert refused.value.exit_code == 2

    @given(
        st.sets(st.integers(0, 60), min_size=10),
        st.integers(0, 62),
        st.integers(1, 62),
        st.one_of(st.none(), st.integers(0, 15)),
        st.integers(1, 70),
        st.integers(1, 20),
    )
    @settings(max_examples=150)
    def test_any(self, places: set[int], start: int, length: int, lookback: int | None, rows: int, part: int) -> None:
        times = START_MS + np.array(sorted(places)) * MINUTE_MS
        bars = Bars.from_ticks(times, np.arange(len(times), dtype=np.float64))
        first, end = START_MS + start * MINUTE_MS, START_MS + (start + length) * MINUTE_MS
        source = _InParts(bars, part)
        series = Series("BTC/USDT", TIMEFRAMES["1m"], Market("BTC/USDT", Decimal("0.01")), source, first, end)
        before = [time for time in times.tolist() if time < first]
        wanted = [time for time in times.tolist() if first <= time < end]
        if not wanted:
            with pytest.raises(DataError):
                series.whole(lookback)
            return
        expected = before[len(before) - min(len(before), lookback) :] if lookback is not None else before
        assert series.whole(lookback).timestamp.tolist() == expected + wanted
        blocks = list(series.blocks(rows, lookback))
        assert [time for block in blocks for time in block.timestamp.tolist()] == expected + wanted
        assert {len(block) for block in blocks[:-1]} <= {rows}

    def test_no_block_of_nothing(self) -> None:
        bars = Bars.from_ticks(np.array([START_MS]), np.ones(1))
        series = Series("BTC/USDT", HOUR, Market("BTC/USDT", Decimal(1)), Held(bars), 0, END_MS)
        with pytest.raises(ValueError, match="at least one row"):
            list(series.blocks(0))
        assert series.report is None


class _InParts(Held):
    """Candles in memory, some at a time."""

    def __init__(self, bars: Bars, rows: int) -> None:
        super().__init__(bars)
        self._rows = rows

    def bars(self, since_ms: int) -> Iterator[Bars]:
        for whole in super().bars(since_ms):
            yield from (whole[first : first + self._rows] for first in range(0, len(whole), self._rows))


class TestPriceStep:
    @pytest.mark.parametrize(
        ("price", "step"),
        [(10.0, "0.01"), (10.25, "0.01"), (0.125, "0.001"), (0.00001234, "0.00000001"), (0.1 + 0.2, "0.00000001")],
    )
    def test_the_finest_decimal(self, tmp_path: Path, price: float, step: str) -> None:
        assert opened(write(tmp_path / "x.csv", price=price)).markets["BTC/USDT"].price_step == Decimal(step)


GIVEN = SimulatedMarket(("BTC/USDT", "ETH/USDT"), seed=11, volatility=0.001, start_ms=START_MS, interval_ms=7_000)


class TestSimulated:
    @pytest.mark.parametrize("timeframe", ["1m", "1h", "1d"])
    def test_the_bars_of_the_loop(self, timeframe: str) -> None:
        """Bit for bit what ticks of the feed make, one poll after the other."""
        data = opened("simulated", simulated=GIVEN, timeframe=TIMEFRAMES[timeframe], timerange="20240101-20240103")
        assert (data.symbols, data.timeframe) == (GIVEN.symbols, TIMEFRAMES[timeframe])
        feed = SimulatedFeed(GIVEN.symbols, seed=11, volatility=0.001, interval_ms=7_000)
        beat = -(-START_MS // 7_000) * 7_000
        block = asyncio.run(feed.poll(beat, 2 * DAY_MS // 7_000 + 2))
        _, found = Candles.empty(TIMEFRAMES[timeframe], 2, 0).after(block)
        closed = next(each for each in found if each.times.size)
        for row, symbol in enumerate(GIVEN.symbols):
            bars = data.series[symbol].whole()
            assert bars.timestamp.tolist() == closed.times[row].tolist()
            assert [bars.open.tolist(), bars.high.tolist(), bars.low.tolist(), bars.close.tolist()] == [
                closed.prices[column, row].tolist() for column in range(4)
            ]
            assert not bars.volume.any()
            assert data.markets[symbol] == feed.markets[symbol]

    def test_thirty_days_by_default(self) -> None:
        data = opened("simulated", simulated=GIVEN, timeframe=HOUR, symbols=["SOL/USDT"])
        bars = data.series["SOL/USDT"].whole()
        assert (data.start_ms, data.end_ms) == (START_MS, START_MS + 30 * DAY_MS)
        assert bars.timestamp.tolist() == (START_MS + np.arange(720) * HOUR.ms).tolist()

    def test_before_the_range(self) -> None:
        """As much as is asked for, also before the start; all of it begins there."""
        data = opened("simulated", simulated=GIVEN, timeframe=HOUR, timerange="20240102-20240103")
        series = data.series["BTC/USDT"]
        for lookback, first in ((None, 0), (0, 24), (5, 19), (30, -6)):
            times = series.whole(lookback).timestamp
            assert (int(times[0]), len(times)) == (START_MS + first * HOUR.ms, 48 - first)
        assert sum(map(len, series.blocks(7, 5))) == 29

    def test_only_whole_bars(self) -> None:
        """A range that begins in a bar leaves it out, one that ends in a bar has all of it."""
        timerange = f"{START_MS + 5}-{START_MS + 5 * HOUR.ms + 5}"
        whole = (
            opened("simulated", simulated=GIVEN, timeframe=HOUR, timerange="20240101-20240102")
            .series["BTC/USDT"]
            .whole()
        )
        bars = opened("simulated", simulated=GIVEN, timeframe=HOUR, timerange=timerange).series["BTC/USDT"].whole(0)
        assert bars.timestamp.tolist() == whole.timestamp[1:6].tolist()
        assert bars.close.tolist() == whole.close[1:6].tolist()

    def test_inside_of_a_running_loop(self) -> None:
        data = opened("simulated", simulated=GIVEN, timeframe=HOUR, timerange="20240101-20240102")

        async def read() -> int:
            return len(data.series["BTC/USDT"].whole())

        assert asyncio.run(read()) == 24

    @pytest.mark.parametrize(
        ("options", "text"),
        [
            ({"specs": ("simulated", "x.csv")}, "simulated does not go with other data"),
            ({"repair": ["drop"]}, "--repair is for files of candles"),
            (
                {"simulated": SimulatedMarket(("BTC/USDT",), 1, 0.001, START_MS, 90_000)},
                "--timeframe 1m is shorter than feed.poll_interval_s = 90",
            ),
            ({"timerange": "-20230101"}, "ends before the simulated market begins"),
        ],
    )
    def test_what_does_not_go(self, options: dict[str, object], text: str) -> None:
        specs = options.pop("specs", ("simulated",))
        with pytest.raises(DataError, match=text) as refused:
            opened(*specs, **({"simulated": GIVEN} | options))  # type: ignore[misc]
        assert refused.value.exit_code == 2


SYMBOLS = ("BTC/USDT", "ETH/USDT")


def tape(polls: int, *, start: int = 0, warmup: int = 0) -> Block:
    """Of ETH/USDT there is a price every other time."""
    last = np.round(100 + np.arange(start, start + polls * 2).reshape(2, polls) / 8, 3)
    last[1, 1::2] = np.nan
    times = START_MS + np.arange(start, start + polls) * 1000
    return Block(SYMBOLS, times, last - 0.125, last + 0.125, last, warmup)


@pytest.fixture
def record(tmp_path: Path) -> Callable[..., Path]:
    def recorded(*blocks: Block, markets: Sequence[dict[str, str | None]] = ()) -> Path:
        path = tmp_path / "a ledger"

        async def write_all() -> None:
            async with open_database(path) as database:
                ticks = TickRepository(database)
                await ticks.register(dict.fromkeys(SYMBOLS, 2))
                if markets:
                    await RunRepository(database).start(START_MS, "1", {"markets": markets})
                for block in blocks:
                    async with database.transaction():
                        await ticks.add(block, database.cursor.polls + 1)
                        database.cursor.polls += block.polls
                        database.cursor.timestamp = int(block.timestamp[-1])

        asyncio.run(write_all())
        return path

    return recorded


def rows_of(ticks: TickSeries) -> list[tuple[float, ...]]:
    columns = (ticks.timestamp, ticks.bid, ticks.ask, ticks.last, ticks.history)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def expected(block: Block, row: int, history: Sequence[bool]) -> list[tuple[float, ...]]:
    columns = (block.timestamp, block.bid[row], block.ask[row], block.last[row], np.array(history))
    return [each for each in zip(*(column.tolist() for column in columns), strict=True) if each[3] == each[3]]


class TestLedger:
    def test_its_ticks(self, record: Callable[..., Path]) -> None:
        """Prices bit for bit, also where they got finer than the tape's first decimals; history in the middle too."""
        first, second = tape(5, warmup=2), tape(4, start=7, warmup=1)
        data = opened(record(first, second))
        assert (data.kind, data.symbols, data.timeframe) == ("ticks", SYMBOLS, None)
        for row, symbol in enumerate(SYMBOLS):
            found = expected(first, row, [True] * 2 + [False] * 3) + expected(second, row, [True] + [False] * 3)
            assert rows_of(data.ticks[symbol]) == found
            assert len(data.ticks[symbol]) == len(found)

    def test_what_lies_before_the_range_is_history(self, record: Callable[..., Path]) -> None:
        first, end = START_MS // 1000 + 4, START_MS // 1000 + 7
        block = tape(10)
        data = opened(record(block), symbols=["BTC/USDT"], timerange=f"{first}-{end}")
        assert (data.start_ms, data.end_ms, data.symbols) == (first * 1000, end * 1000, ("BTC/USDT",))
        assert rows_of(data.ticks["BTC/USDT"]) == expected(block, 0, [True] * 4 + [False] * 6)[:7]

    def test_its_markets(self, record: Callable[..., Path]) -> None:
        known: dict[str, str | None] = {
            "symbol": "BTC/USDT",
            "price_step": "0.1",
            "amount_step": "0.001",
            "taker": None,
        }
        data = opened(record(tape(3), markets=[known]))
        assert data.markets == {
            "BTC/USDT": Market("BTC/USDT", Decimal("0.1"), Decimal("0.001")),
            "ETH/USDT": Market("ETH/USDT", Decimal("1e-8")),
        }

    def test_from_inside_of_a_running_loop(self, record: Callable[..., Path]) -> None:
        path = record(tape(3))
        found = asyncio.run(read_ticks(path, ["ETH/USDT"], 0, END_MS))
        assert rows_of(found["ETH/USDT"]) == rows_of(opened(path).ticks["ETH/USDT"])

    @pytest.mark.parametrize(
        ("options", "text"),
        [
            ({"symbols": ["SOL/USDT"]}, "has no prices of SOL/USDT; it has BTC/USDT, ETH/USDT"),
            ({"timerange": "20240301-20240401"}, "--timerange: .* has no prices of BTC/USDT in it that were traded on"),
            ({"repair": ["fill"]}, "--repair is for files of candles"),
        ],
    )
    def test_what_it_does_not_have(self, record: Callable[..., Path], options: dict[str, object], text: str) -> None:
        with pytest.raises(DataError, match=text) as refused:
            opened(record(tape(3)), **options)
        assert refused.value.exit_code == 2

    def test_what_retention_has_left_is_history(self, tmp_path: Path) -> None:
        path = tmp_path / "a ledger"
        many = Block.joined([tape(SEAL_TICKS), tape(3, start=3 * 86_400)])

        async def tidied() -> None:
            async with open_database(path) as database:
                ticks = TickRepository(database)
                await RunRepository(database).start(START_MS, "1", {"markets": [], "window": 5, "bars": {}})
                for block in (many.columns(slice(0, SEAL_TICKS)), many.columns(slice(SEAL_TICKS, None))):
                    async with database.transaction():
                        await ticks.add(block, database.cursor.polls + 1)
                        database.cursor.polls += block.polls
                        database.cursor.timestamp = int(block.timestamp[-1])
                await Retention(database, 1).tidy()

        asyncio.run(tidied())
        ticks = opened(path).ticks["BTC/USDT"]
        assert 5 <= len(ticks) - 3 < SEAL_TICKS
        assert ticks.history.tolist() == [True] * (len(ticks) - 3) + [False] * 3

    def test_by_itself(self, record: Callable[..., Path], tmp_path: Path) -> None:
        with pytest.raises(DataError, match="a ledger does not go with other data"):
            opened(write(tmp_path / "x.csv"), record(tape(3)))

    def test_without_prices(self, record: Callable[..., Path], tmp_path: Path) -> None:
        path = tmp_path / "a ledger"

        async def empty() -> None:
            async with open_database(path):
                pass

        asyncio.run(empty())
        with pytest.raises(DataError, match=r"has no prices$"):
            opened(path)

    def test_no_ledger(self, tmp_path: Path) -> None:
        path = tmp_path / "x"
        path.write_bytes(b"SQLite format 3\0" + bytes(200))
        with pytest.raises(LedgerError, match="is not a ledger"):
            opened(path)


def test_a_csv_file_waits_for_nothing_else(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from bot.backtest.data import open_data\n"
        "for series in open_data([sys.argv[1]], now_ms=2 * 10**12).series.values(): list(series.blocks())\n"
        "print(sorted({'pyarrow', 'sqlite3', 'aiosqlite', 'pydantic', 'asyncio', 'ccxt', 'rich'} & set(sys.modules)))"
    )
    path = write(tmp_path / "x.csv")
    process = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert process.stdout == "[]\n"
