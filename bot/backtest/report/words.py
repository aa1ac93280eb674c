"""Numbers as people read them, the same on the terminal, on the page and in the picture. None is "-"."""

from __future__ import annotations

import math

NONE = "-"
# What is below this is nothing.
_LEAST = 1e-12
_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000))


def money(value: float | None) -> str:
    """Two decimals, and as many more as it takes to show four digits of what is below 1."""
    if value is None:
        return NONE
    size = abs(value)
    if size >= 0.995 or size < _LEAST:
        return number(value)
    whole, _, decimals = f"{value:.{3 - math.floor(math.log10(size))}f}".partition(".")
    return f"{whole}.{decimals.rstrip('0'):<02}"


def price(value: float | None) -> str:
    """Two decimals from 100 on; below that six digits."""
    return amount(value, 6) if value is None or abs(value) < 100 else number(value)


def amount(value: float | None, digits: int = 8) -> str:
    """Without an exponent or a trailing zero."""
    if value is None:
        return NONE
    if abs(value) < _LEAST:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if decimals else text


def percent(value: float | None) -> str:
    """A ratio as a percentage: 0.0123 is 1.23%."""
    return NONE if value is None else f"{number(value * 100)}%"


def number(value: float | None) -> str:
    # Adding zero takes the sign from a zero.
    return NONE if value is None else f"{round(value, 2) + 0.0:,.2f}"


def count(value: int | None) -> str:
    return NONE if value is None else f"{value:,}"


def duration(ms: float | None) -> str:
    """Its two largest units: 3d 4h, 5m 30s."""
    if ms is None:
        return NONE
    rest = round(ms)
    for place, (unit, size) in enumerate(_UNITS):
        if rest >= size:
            whole, rest = divmod(rest, size)
            small, part = _UNITS[min(place + 1, len(_UNITS) - 1)]
            return f"{whole:,}{unit} {rest // part}{small}" if rest >= part else f"{whole:,}{unit}"
    return f"{rest}ms" if rest else "0s"


def moment(text: str | None) -> str:
    """An ISO 8601 time to the second, without its letters: 2025-01-01 00:00:00, in UTC."""
    return NONE if text is None else f"{text[:10]} {text[11:19]}"
