"""Times: what a user asks for, how long a candle is, and what of a range is still missing. All in UTC milliseconds."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime

from bot.history.errors import HistoryError

DAY_MS = 86_400_000
DAYS_DEFAULT = 30
_UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": DAY_MS, "w": 7 * DAY_MS}
_TIMEFRAME = re.compile(r"([1-9][0-9]{0,3})([smhdw])")
_MOMENT = r"(\d{8}|\d{4}-\d{2}-\d{2}|\d{10}|\d{13})?"
_RANGE = re.compile(f"{_MOMENT}-{_MOMENT}", re.ASCII)
_FORMS = "write 20240101-20240201, 20240101- or -20240201, or days as 2024-01-01"

# From the first to before the second.
Range = tuple[int, int]


def step_ms(timeframe: str) -> int:
    """How long a candle is. Raises HistoryError for those that are not all of one length."""
    match = _TIMEFRAME.fullmatch(timeframe)
    if match is None:
        raise HistoryError(f"--timeframe {timeframe}: its candles are of different lengths; take 1d or 1w")
    return int(match[1]) * _UNITS_MS[match[2]]


def parsed(text: str | None, now_ms: int) -> tuple[int | None, int]:
    """The range that ``--timerange`` means, its end left out; None begins with the first candle that there is.

    The last 30 days without a text. Raises HistoryError.
    """
    if text is None:
        return now_ms // DAY_MS * DAY_MS - DAYS_DEFAULT * DAY_MS, now_ms
    match = _RANGE.fullmatch(text.strip())
    if match is None:
        raise HistoryError(f"--timerange {text}: {_FORMS}")
    first, end = (None if part is None else _moment(part, text) for part in match.groups())
    if first is not None and first >= now_ms:
        raise HistoryError(f"--timerange {text}: it begins in the future")
    if end is not None and end > now_ms + DAY_MS:
        raise HistoryError(f"--timerange {text}: it ends in the future; leave the end out for all up to now")
    if first is not None and end is not None and end <= first:
        raise HistoryError(f"--timerange {text}: it ends before it begins (the end is not part of it)")
    return first, now_ms if end is None else min(end, now_ms)


def _moment(text: str, whole: str) -> int:
    if len(text) in (10, 13) and "-" not in text:
        return int(text) * (1000 if len(text) == 10 else 1)
    try:
        return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)
    except ValueError:
        raise HistoryError(f"--timerange {whole}: there is no day {text}; {_FORMS}") from None


def joined(ranges: Iterable[Range]) -> list[Range]:
    """In order, and those that touch as one."""
    found: list[Range] = []
    for first, end in sorted(ranges):
        if found and first <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        elif end > first:
            found.append((first, end))
    return found


def without(wanted: Range, covered: Iterable[Range]) -> list[Range]:
    """What of ``wanted`` no range of ``covered`` has."""
    missing = []
    first, end = wanted
    for begins, ends in joined(covered):
        if begins >= end:
            break
        if begins > first:
            missing.append((first, begins))
        first = max(first, ends)
    if first < end:
        missing.append((first, end))
    return missing
