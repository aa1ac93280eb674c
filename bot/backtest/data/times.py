"""Times as files write them, and the timeframe that a column of them has."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from bot.domain import FloatArray, IntArray
from bot.timeframes import DAY_MS, MONTH, TIMEFRAMES, Timeframe

FIRST_MS = 631_152_000_000  # 1990-01-01
END_MS = 4_102_444_800_000  # 2100-01-01
TEXT_MAX = 40
# A number tells its unit by its size: between 1990 and 2100, no two units have a number in common.
_PER_MS = ((1e11, 1e-3), (1e14, 1.0), (1e17, 1e3), (np.inf, 1e6))
# Of so few rows it is chance how they lie.
ROWS_SURE = 8
# One row in so many may be off the grid, and the grid is still found.
ODD_ROWS = 8

_Bytes = npt.NDArray[np.bytes_]
_ISO = re.compile(rb"(\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?)?)(Z|[+-]\d\d:?\d\d)?")


def of_numbers(values: FloatArray) -> IntArray | None:
    """Milliseconds from seconds, milliseconds, micro- or nanoseconds, all in one of these; None for anything else,
    which ``of_text`` may know."""
    for below, per_ms in _PER_MS:
        if (values < below).all():
            with np.errstate(invalid="ignore"):
                return checked(np.rint(values / per_ms).astype(np.int64))
    return None


def checked(found: IntArray) -> IntArray | None:
    """The same milliseconds; None if one of them is no time of 1990 to 2100."""
    return found if ((found >= FIRST_MS) & (found < END_MS)).all() else None


def of_texts(texts: _Bytes) -> IntArray | None:
    """Milliseconds from ISO 8601 that is written alike in all rows, UTC where it says no zone; None for anything else,
    which ``of_text`` may know."""
    match = _ISO.fullmatch(texts[0])
    if match is None:
        return None
    written = np.frombuffer(match[0], np.uint8)
    letters = texts.view(np.uint8).reshape(len(texts), -1)
    alike, rest = letters[:, : len(written)], letters[:, len(written) :]
    fixed = (written < ord("0")) | (written > ord("9"))
    fixed[match.end(1) :] = True
    digits = alike[:, ~fixed] - np.uint8(ord("0"))
    if rest.any() or (digits > 9).any() or (alike[:, fixed] != written[fixed]).any():
        return None
    moments = np.ascontiguousarray(alike[:, : match.end(1)]).view(f"S{match.end(1)}")[:, 0]
    try:
        found = moments.astype("datetime64[ms]").astype(np.int64) - _zone_ms(match[2] or b"")
    except ValueError:
        return None
    return checked(found)


def of_text(text: str) -> int | None:
    """Milliseconds from a number or from ISO 8601; None for what is no time of 1990 to 2100."""
    if "_" in text or not text.isascii():
        return None
    try:
        value = float(text)
    except ValueError:
        return _of_iso(text)
    if value < 0:
        return None
    for below, per_ms in _PER_MS:
        if value < below:
            time = round(value / per_ms)
            return time if FIRST_MS <= time < END_MS else None
    return None


def _of_iso(text: str) -> int | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    time = since.days * DAY_MS + since.seconds * 1000 + since.microseconds // 1000
    return time if FIRST_MS <= time < END_MS else None


def _zone_ms(zone: bytes) -> int:
    if zone in (b"", b"Z"):
        return 0
    ahead = (int(zone[1:3]) * 60 + int(zone[-2:])) * 60_000
    return -ahead if zone[:1] == b"-" else ahead


def timeframe_in(times: IntArray) -> Timeframe | None:
    """The longest timeframe in which all of the times, but for a few odd ones, are the open of a bar, and some of them
    of bars that follow each other: candles of a week that begin on Sundays are none of a day. None if there is none."""
    for timeframe in sorted(TIMEFRAMES.values(), key=lambda each: -each.ms):
        opens = np.unique(times[timeframe.floor(times) == times])
        if len(times) - len(opens) <= len(times) // ODD_ROWS and (np.diff(index_of(timeframe, opens)) == 1).any():
            return timeframe
    return None


def index_of(timeframe: Timeframe, opens: IntArray) -> IntArray:
    """The number of each bar: one that follows another without a gap has the next number."""
    if timeframe == MONTH:
        return opens.astype("datetime64[ms]").astype("datetime64[M]").astype(np.int64)
    return (opens - timeframe.origin_ms) // timeframe.ms


def open_of_index(timeframe: Timeframe, index: IntArray) -> IntArray:
    """The open of the bar with each number."""
    if timeframe == MONTH:
        return index.astype("datetime64[M]").astype("datetime64[ms]").astype(np.int64)
    return index * timeframe.ms + timeframe.origin_ms


def makes(base: Timeframe, wanted: Timeframe) -> bool:
    """Whether whole bars of ``base`` make each bar of ``wanted``."""
    return base == wanted or (DAY_MS if wanted == MONTH else wanted.ms) % base.ms == 0
