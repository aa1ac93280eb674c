"""What a strategy may be configured with. The limits live in the type hints, so they are stated once."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Annotated, Any, get_args, get_origin, get_type_hints


class StrategyError(ValueError):
    """A strategy that cannot be built; ``problems`` holds every reason, one sentence each."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


@dataclass(frozen=True, slots=True)
class Between:
    """Both ends are allowed."""

    least: float
    most: float


# An upper bound keeps a mistyped period from asking a feed for years of history.
Length = Annotated[int, Between(1, 10_000)]
Period = Annotated[int, Between(2, 10_000)]
Percent = Annotated[float, Between(1.0, 99.0)]
Deviations = Annotated[float, Between(0.0, 100.0)]


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """A remark to append, empty if nothing known looks similar."""
    close = difflib.get_close_matches(wrong, list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def checked(strategy: Any) -> dict[str, Any]:
    """The fields of a strategy dataclass as plain int, float and bool. StrategyError names all bad ones."""
    values, problems = {}, []
    cls: Any = type(strategy)
    for key, hint in _hints(cls).items():
        value = getattr(strategy, key)
        try:
            values[key] = _plain(value, hint)
        except ValueError as error:
            problems.append(f"{strategy.name}: {key} must be {error}, got {value!r}.")
    if problems:
        raise StrategyError(*problems)
    return values


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    hints = get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in fields(cls)}


def _plain(value: object, hint: Any) -> object:
    """``value`` as its hint says. Raises ValueError with what is allowed, to be read after "must be"."""
    if hint is bool:
        if not isinstance(value, bool):
            raise ValueError("true or false")
        return value
    if type(None) in get_args(hint):
        return None if value is None else _plain(value, get_args(hint)[0])
    if get_origin(hint) is not Annotated:
        return value
    kind, limits = get_args(hint)
    whole = kind is int
    # A bool is an Integral to Python and a slip of the pen to everybody else.
    fits = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
    if not fits or not limits.least <= value <= limits.most:
        raise ValueError(f"a {'whole ' if whole else ''}number from {limits.least:g} to {limits.most:g}")
    return kind(value)
