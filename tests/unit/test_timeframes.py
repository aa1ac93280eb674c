"""Where bars begin."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.timeframes import MONTH, NAMES, TIMEFRAMES, Timeframe, timeframe_of

ALL = list(TIMEFRAMES.values())
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MOMENTS = st.integers(5 * 86_400_000, 4_102_444_800_000).map(lambda ms: EPOCH + timedelta(milliseconds=ms))


def ms(year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0) -> int:
    return ms_of(datetime(year, month, day, hour, minute, second, tzinfo=UTC))


def ms_of(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(milliseconds=1)


def by_calendar(name: str, moment: datetime) -> datetime:
    """The open of a bar as a person would find it."""
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    if name == "1M":
        return midnight.replace(day=1)
    if name == "1w":
        return midnight - timedelta(days=midnight.weekday())
    size = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}[name[-1]] * int(name[:-1])
    return EPOCH + (moment - EPOCH) // size * size


def test_the_names_are_those_of_the_field() -> None:
    assert " ".join(NAMES) == "tick 1m 3m 5m 15m 30m 1h 2h 4h 6h 8h 12h 1d 3d 1w 1M"
    assert timeframe_of("tick") is None
    assert all(timeframe_of(name) is TIMEFRAMES[name] and TIMEFRAMES[name].name == name for name in TIMEFRAMES)


@pytest.mark.parametrize("timeframe", ALL, ids=lambda each: each.name)
@given(moment=MOMENTS)
def test_a_bar_begins_where_the_calendar_says(timeframe: Timeframe, moment: datetime) -> None:
    time, expected = ms_of(moment), ms_of(by_calendar(timeframe.name, moment))
    assert timeframe.open_of(time) == expected
    assert timeframe.floor(np.array([time, expected, expected - 1])).tolist() == [
        expected,
        expected,
        timeframe.back(expected, 1),
    ]


@pytest.mark.parametrize("timeframe", ALL, ids=lambda each: each.name)
@given(moment=MOMENTS, count=st.integers(-30, 30))
def test_back_and_forward_again(timeframe: Timeframe, moment: datetime, count: int) -> None:
    start = timeframe.open_of(ms_of(moment))
    there = timeframe.back(start, count)
    assert timeframe.open_of(there) == there
    assert timeframe.back(there, -count) == start
    assert (there < start) == (count > 0)
    assert timeframe.ends(np.array([start, there])).tolist() == [timeframe.back(start, -1), timeframe.back(there, -1)]


def test_weeks_begin_on_monday() -> None:
    week = TIMEFRAMES["1w"]
    assert week.open_of(ms(2025, 1, 5, 23, 59, 59)) == ms(2024, 12, 30)
    assert week.open_of(ms(2025, 1, 6)) == ms(2025, 1, 6)


def test_months_are_those_of_the_calendar() -> None:
    assert MONTH.open_of(ms(2024, 2, 29, 23, 59, 59)) == ms(2024, 2, 1)
    assert MONTH.back(ms(2024, 3, 1), 1) == ms(2024, 2, 1)
    assert MONTH.back(ms(2025, 1, 1), 12) == ms(2024, 1, 1)
    assert MONTH.back(ms(2024, 12, 1), -1) == ms(2025, 1, 1)
