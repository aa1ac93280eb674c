"""Parameters as they are written on the command line: ``fast=5:50:5``, ``short=true,false``, ``period=14``."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from typing import Any

from bot.backtest.optimize.grid import Axis, GridError, Span, Steps
from bot.settings.sources import read_value
from bot.settings.values import free_table

# What is further out is a slip, and would only be found out by what it leads to.
_SIZE_MAX = Decimal(10**15)
_FORMS = "write fast=5:50:5 (both ends included), fast=5,10,20 or fast=5"


def axes(texts: Iterable[str]) -> dict[str, Axis]:
    """By name, what each parameter may be: ``a:b:step`` or, to draw from, ``a:b``; a list ``a,b,c``; one value.

    Raises GridError.
    """
    found: dict[str, Axis] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        name = name.strip()
        if not name or not equals:
            raise GridError(f"--param {text}: {_FORMS}")
        if name in found:
            raise GridError(f"--param {text}: {name} is given twice")
        try:
            found[name] = _axis(values.strip())
        except ValueError as error:
            raise GridError(f"--param {text}: {error}") from None
    return found


def _axis(text: str) -> Axis:
    parts = text.split(":")
    # Text may have a colon too, but does not begin with a number then.
    if len(parts) > 1 and _decimal(parts[0]) is not None:
        return _range(parts)
    quoted = text.startswith(("[", "{", '"', "'"))
    values = [_value(part.strip()) for part in ([text] if quoted else text.split(","))]
    if repeated := [value for place, value in enumerate(values) if value in values[:place]]:
        raise GridError(f"{repeated[0]!r} is there twice")
    return tuple(values)


def _range(parts: list[str]) -> Axis:
    numbers = [_number(part) for part in parts]
    bad = [part for part, number in zip(parts, numbers, strict=True) if number is None]
    if bad:
        raise GridError(f"{bad[0]!r} is not a number to count with; {_FORMS}")
    low, high, *rest = [number for number in numbers if number is not None]
    if len(rest) > 1:
        raise GridError(_FORMS)
    if rest:
        return Steps.of(low, high, rest[0])
    if high <= low:
        raise GridError(f"the range ends at {high}, where it begins or before")
    if low == int(low) and high == int(high) and not any("." in part for part in parts):
        return Steps.of(low, high, Decimal(1))
    return Span(float(low), float(high))


def _number(text: str) -> Decimal | None:
    number = _decimal(text)
    return number if number is not None and number.is_finite() and abs(number) <= _SIZE_MAX else None


def _decimal(text: str) -> Decimal | None:
    try:
        return Decimal(text.strip())
    except InvalidOperation:
        return None


def _value(text: str) -> Any:
    if not text:
        raise GridError(f"a value is missing; {_FORMS}")
    return free_table({"value": read_value(text, "free")})["value"]
