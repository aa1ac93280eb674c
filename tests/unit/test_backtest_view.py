"""The view of bars that ends at a time: what it shows is true and was known, and everything else is an error."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.backtest.data import AsOf, Bar, LookAheadError
from bot.domain import Bars
from bot.timeframes import DAY_MS, MINUTE_MS, TIMEFRAMES, Timeframe

START_MS = 1_704_067_200_000  # 2024-01-01, a Monday
COLUMNS = ("timestamp", "open", "high", "low", "close", "volume")


def made(opens: list[int]) -> Bars:
    values = np.arange(len(opens), dtype=np.float64)
    return Bars.from_arrays(opens, values + 1, values + 3, values, values + 2, values * 10)


def minutes(*places: int) -> Bars:
    return made([START_MS + place * MINUTE_MS for place in places])


def rows_of(bars: Bars) -> list[Bar]:
    columns = [getattr(bars, name).tolist() for name in COLUMNS]
    return [Bar(*row) for row in zip(*columns, strict=True)]


class TestWhatIsKnown:
    @pytest.mark.parametrize(
        ("after", "known"), [(-1, 0), (0, 0), (59_999, 0), (60_000, 1), (60_001, 1), (179_999, 2), (180_000, 3)]
    )
    def test_a_bar_is_known_from_its_end_on(self, after: int, known: int) -> None:
        assert len(AsOf(minutes(0, 1, 2), TIMEFRAMES["1m"], START_MS + after)) == known

    def test_going_forward(self) -> None:
        view = AsOf(minutes(0, 1, 5), TIMEFRAMES["1m"])
        assert [view.advance(START_MS + place * MINUTE_MS) for place in range(8)] == [0, 1, 1, 0, 0, 0, 1, 0]
        assert view.now_ms == START_MS + 7 * MINUTE_MS
        assert view.advance(view.now_ms) == 0
        with pytest.raises(
            ValueError, match=r"forward only: from 2024-01-01T00:07:00.000Z to 2024-01-01T00:06:59.999Z"
        ):
            view.advance(view.now_ms - 1)
        assert len(view) == 3

    def test_a_month_has_its_own_length(self) -> None:
        opens = [int(np.datetime64(month, "ms").astype(int)) for month in ("2024-01", "2024-02", "2024-03")]
        view = AsOf(made(opens), TIMEFRAMES["1M"])
        assert [view.advance(opens[1] - 1), view.advance(opens[1]), view.advance(opens[1] + 28 * DAY_MS)] == [0, 1, 0]
        assert view.advance(opens[1] + 29 * DAY_MS) == 1

    def test_a_bar_off_its_place_is_known_no_sooner(self) -> None:
        view = AsOf(made([START_MS + 30_000]), TIMEFRAMES["1m"], START_MS + 75_000)
        assert len(view) == 0
        assert view.advance(START_MS + 120_000) == 1

    def test_nothing_at_all(self) -> None:
        view = AsOf(minutes(), TIMEFRAMES["1m"], START_MS)
        assert (len(view), rows_of(view.bars), rows_of(view[:])) == (0, [], [])
        with pytest.raises(LookAheadError, match=r"bar 0 is not known at 2024-01-01T00:00:00.000Z: none is known yet"):
            view[0]


class TestAsking:
    @pytest.fixture
    def view(self) -> AsOf:
        """Three bars of five are known."""
        return AsOf(minutes(0, 1, 3, 4, 5), TIMEFRAMES["1m"], START_MS + 4 * MINUTE_MS + 5)

    def test_by_place(self, view: AsOf) -> None:
        assert view[0] == Bar(START_MS, 1.0, 3.0, 0.0, 2.0, 0.0)
        assert view[-1] == view[2] == Bar(START_MS + 3 * MINUTE_MS, 3.0, 5.0, 2.0, 4.0, 20.0)
        with pytest.raises(LookAheadError) as beyond:
            view[3]
        assert str(beyond.value) == (
            "bar 3 of 2024-01-01T00:04:00.000Z is not known at 2024-01-01T00:04:00.005Z:"
            " the last known one is of 2024-01-01T00:03:00.000Z"
        )
        assert isinstance(beyond.value, IndexError)
        with pytest.raises(LookAheadError, match="bar 17 is not known at"):
            view[17]
        with pytest.raises(IndexError, match="bar -4 of 3") as before:
            view[-4]
        assert not isinstance(before.value, LookAheadError)

    def test_by_slice(self, view: AsOf) -> None:
        known = rows_of(view.bars)
        for chosen in (slice(None), slice(1, 3), slice(-2, None), slice(0, 0), slice(3, 3), slice(-9, 2), slice(2, 1)):
            assert rows_of(view[chosen]) == known[chosen]
        for chosen in (slice(0, 4), slice(4, None), slice(None, 10**9)):
            with pytest.raises(LookAheadError):
                view[chosen]
        with pytest.raises(ValueError, match="has no step"):
            view[::-1]

    def test_by_time(self, view: AsOf) -> None:
        assert view.at(START_MS + MINUTE_MS) == view[1]
        with pytest.raises(KeyError, match=r"no bar of 2024-01-01T00:02:00.000Z"):
            view.at(START_MS + 2 * MINUTE_MS)
        with pytest.raises(KeyError):
            view.at(START_MS - MINUTE_MS)
        with pytest.raises(
            LookAheadError, match=r"the bar of 2024-01-01T00:04:00.000Z is not known at 2024-01-01T00:04"
        ):
            view.at(START_MS + 4 * MINUTE_MS)

    def test_by_times(self, view: AsOf) -> None:
        assert rows_of(view.between(START_MS + 1, START_MS + 4 * MINUTE_MS)) == rows_of(view[1:])
        assert rows_of(view.between(START_MS + 4 * MINUTE_MS, START_MS)) == []
        with pytest.raises(LookAheadError, match=r"what opens up to 2024-01-01T00:04:00.001Z is not known"):
            view.between(START_MS, START_MS + 4 * MINUTE_MS + 1)

    def test_nothing_is_copied_and_nothing_can_be_written(self, view: AsOf) -> None:
        bars = minutes(0, 1)
        known = AsOf(bars, TIMEFRAMES["1m"], START_MS + DAY_MS)[1:]
        assert np.shares_memory(known.close, bars.close)
        for name in COLUMNS:
            with pytest.raises(ValueError, match="read-only"):
                getattr(known, name)[0] = 7
        assert bars.close.flags.writeable


@given(
    st.sampled_from([TIMEFRAMES[name] for name in ("1m", "1h", "1w", "1M")]),
    st.sets(st.integers(0, 30), max_size=12),
    st.lists(st.floats(0, 32), min_size=1, max_size=4).map(sorted),
    st.integers(-15, 15),
    st.integers(-15, 15),
)
@settings(max_examples=200)
def test_the_truth_of_that_time_or_an_error(
    timeframe: Timeframe, places: set[int], moments: list[float], one: int, other: int
) -> None:
    """Whatever is asked at whatever time: what a list of the bars closed by then would answer, or LookAheadError where
    a later list could answer otherwise."""
    first = timeframe.open_of(START_MS)
    bars = made([timeframe.back(first, -place) for place in sorted(places)])
    view = AsOf(bars, timeframe)
    for moment in moments:
        now_ms = first + round(moment * timeframe.ms)
        view.advance(now_ms)
        known = [bar for bar in rows_of(bars) if timeframe.back(bar.timestamp, -1) <= now_ms]
        assert rows_of(view.bars) == known
        later = max(one, other) > len(known)
        try:
            assert rows_of(view[one:other]) == known[one:other]
            assert not later
        except LookAheadError:
            assert later
        try:
            assert view[one] == known[one]
        except LookAheadError:
            assert one >= len(known)
        except IndexError:
            assert one < -len(known)
        start, end = (timeframe.back(first, -place) for place in (one, other))
        try:
            assert rows_of(view.between(start, end)) == [bar for bar in known if start <= bar.timestamp < end]
            assert end <= now_ms
        except LookAheadError:
            assert end > timeframe.open_of(now_ms)
        try:
            assert view.at(start) in known
        except LookAheadError:
            assert timeframe.back(start, -1) > now_ms
        except KeyError:
            assert start not in [bar.timestamp for bar in known]
            assert timeframe.back(start, -1) <= now_ms
