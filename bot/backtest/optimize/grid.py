"""What a search goes through: the values of each parameter, and all combinations of them or some drawn at random."""

from __future__ import annotations

import hashlib
import heapq
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

# Of so many combinations the figures take some 200 MB.
COMBINATIONS_MAX = 1_000_000
# Draws are told apart by more digits than anybody reads.
_DIGITS = 6


class GridError(ValueError):
    """A search that cannot be, as one line for the user."""


@dataclass(frozen=True, slots=True)
class Steps(Sequence[Any]):
    """``start`` and so many steps from there, exact: ints where all of it is whole, else floats."""

    start: Decimal
    step: Decimal
    length: int
    whole: bool

    @classmethod
    def of(cls, low: Decimal, high: Decimal, step: Decimal) -> Steps:
        """From ``low`` to ``high``, both included where the steps lead there. Raises GridError."""
        if step <= 0:
            raise GridError(f"the step must be above 0, got {step}")
        if high < low:
            raise GridError(f"the range ends at {high}, before it begins at {low}")
        try:
            length = int((high - low) // step) + 1
        except InvalidOperation:
            raise GridError(f"there are too many steps of {step} from {low} to {high}") from None
        return cls(low, step, length, low == int(low) and step == int(step))

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, place: Any) -> Any:
        if not 0 <= place < self.length:
            raise IndexError(place)
        value = self.start + place * self.step
        return int(value) if self.whole else float(value)


@dataclass(frozen=True, slots=True)
class Span:
    """All numbers from ``low`` to ``high``: something to draw from."""

    low: float
    high: float


Axis = Sequence[Any] | Span


@dataclass(frozen=True, slots=True)
class Grid(Sequence[dict[str, Any]]):
    """Every combination of the parameters' values, the last parameter going round first."""

    axes: Mapping[str, Sequence[Any]]

    def __post_init__(self) -> None:
        if self.size > COMBINATIONS_MAX:
            raise GridError(
                f"{self.size:,} combinations are more than {COMBINATIONS_MAX:,}: take larger steps, or draw some of"
                " them with --random N"
            )

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.axes)

    @property
    def size(self) -> int:
        return math.prod(len(values) for values in self.axes.values())

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, number: Any) -> Any:
        if not 0 <= number < self.size:
            raise IndexError(number)
        places = _places(list(self.axes.values()), number)
        return {name: values[place] for (name, values), place in zip(self.axes.items(), places, strict=True)}


@dataclass(frozen=True, slots=True)
class Drawn(Sequence[dict[str, Any]]):
    """Some combinations, none twice, in the order of their values."""

    names: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: Any) -> Any:
        return dict(zip(self.names, self.rows[number], strict=True))


Combinations = Grid | Drawn


def combinations(axes: Mapping[str, Axis], draws: int | None = None, seed: int = 0) -> Combinations:
    """All of them, or with ``draws`` so many at random. Raises GridError for more than can be gone through."""
    whole = {name: axis for name, axis in axes.items() if not isinstance(axis, Span)}
    spans = {name: axis for name, axis in axes.items() if isinstance(axis, Span)}
    if draws is None:
        if spans:
            name, span = next(iter(spans.items()))
            told = f"{name}={span.low:g}:{span.high:g}"
            raise GridError(f"{told} has no step: write {told}:STEP, or draw from it with --random N")
        return Grid(whole)
    if not 1 <= draws <= COMBINATIONS_MAX:
        raise GridError(f"--random must be between 1 and {COMBINATIONS_MAX:,}, got {draws}")
    size = math.prod(len(values) for values in whole.values())
    if not spans and draws >= size:
        return Grid(whole)
    rows: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for draw, number in enumerate(_numbers(size, draws, seed, again=bool(spans))):
        key = dict(zip(whole, _places(list(whole.values()), number), strict=True))
        values = {name: whole[name][place] for name, place in key.items()}
        drawn = {name: _between(span, _draw(seed, name, draw)) for name, span in spans.items()}
        rows[tuple((key | drawn)[name] for name in axes)] = tuple((values | drawn)[name] for name in axes)
    return Drawn(tuple(axes), [rows[key] for key in sorted(rows)])


def _numbers(size: int, draws: int, seed: int, *, again: bool) -> Iterator[int]:
    """So many of the numbers below ``size``, each once unless ``again``."""
    if again:
        yield from (_draw(seed, "", draw) % size for draw in range(draws))
    elif size <= 4 * draws:
        yield from heapq.nsmallest(draws, range(size), key=lambda number: _draw(seed, "", number))
    else:
        seen: set[int] = set()
        for draw in itertools.count():
            number = _draw(seed, "", draw) % size
            if number not in seen:
                seen.add(number)
                yield number
            if len(seen) == draws:
                return


def _draw(seed: int, name: str, number: int) -> int:
    """128 bits that are the same on every machine."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {number} {name}".encode(), digest_size=16).digest(), "little")


def _between(span: Span, draw: int) -> float:
    found = float(f"{span.low + (span.high - span.low) * (draw / 2**128):.{_DIGITS}g}")
    return min(max(found, span.low), span.high)


def _places(axes: Sequence[Sequence[Any]], number: int) -> list[int]:
    """A number's digits, each axis being the base of one of them."""
    places = []
    for values in reversed(axes):
        number, place = divmod(number, len(values))
        places.append(place)
    return places[::-1]
