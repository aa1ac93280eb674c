"""Candles from a CSV file, gzipped or not, some thousand lines at a time.

numpy's own parser reads them. What it cannot read is gone through once more line by line, a block at a time, to say
which line it is and what is wrong with it; both know a number by the same rules.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from bot.backtest.data import times
from bot.backtest.data.errors import DataError
from bot.backtest.data.rows import TIME, VALUES, VOLUME, Fault, Kind, Part, Rows, is_header, places_of

GZIP = b"\x1f\x8b"
BLOCK_BYTES = 1 << 19
HEAD_BYTES = 1 << 16
LINE_BYTES_MAX = 1 << 16
SHOWN_CHARACTERS = 40
_SEPARATORS = (",", ";", "\t")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# How what is not there is written.
_NOTHING = {"", "nan", "null", "none"}


class _Layout(NamedTuple):
    """How a file's lines are built: ``first_line`` is the first one that has a candle, ``places`` where the columns of
    a candle are among the ``columns`` there are."""

    separator: str
    columns: int
    places: dict[str, int]
    first_line: int
    has_text_times: bool

    @property
    def dtype(self) -> np.dtype[np.void]:
        """What is not needed is read too, a letter of it: a line with a column too many has all its values shifted."""
        kinds = ["S1"] * self.columns
        for place in self.places.values():
            kinds[place] = "f8"
        if self.has_text_times:
            kinds[self.places[TIME]] = f"S{times.TEXT_MAX}"
        return np.dtype([(f"f{place}", kind) for place, kind in enumerate(kinds)])


class TextFile:
    """Implements ``rows.File``. With a header, its names say what the columns are, and what else there is does not
    matter; without one they are in ccxt's order. Separated by commas, semicolons or tabs."""

    unit = "line"

    def __init__(self, path: Path, block_bytes: int = BLOCK_BYTES) -> None:
        self.path, self.name = path, str(path)
        self._block_bytes = block_bytes

    @cached_property
    def rows_about(self) -> int:
        """By the length of its first lines; 0 for what is compressed."""
        with self._opened() as file:
            if not isinstance(file, io.BufferedReader):
                return 0
            head = file.read(HEAD_BYTES)
        return 1 + self.path.stat().st_size * head.count(b"\n") // max(1, len(head))

    def head(self) -> Part:
        with self._opened() as file:
            return next(self._parts(file, HEAD_BYTES))

    def parts(self) -> Iterator[Part]:
        with self._opened() as file:
            yield from self._parts(file, self._block_bytes)

    def _opened(self) -> BinaryIO:
        try:
            file = self.path.open("rb")
            if file.peek(2)[:2] != GZIP:
                return file
            file.close()
        except OSError as error:
            raise DataError(f"cannot read {self.name}: {error.strerror}") from error
        return cast("BinaryIO", gzip.open(self.path))

    def _parts(self, file: BinaryIO, size: int) -> Iterator[Part]:
        layout, number = self._layout, 1
        for text in self._blocks(file, size):
            candles = text.removeprefix(_BYTE_ORDER_MARK) if number == 1 else text
            yield _read(_without_lines(candles, layout.first_line - number), layout, max(number, layout.first_line))
            number += text.count(b"\n")

    @cached_property
    def _layout(self) -> _Layout:
        with self._opened() as file:
            head = next(self._chunks(file, HEAD_BYTES), b"").removeprefix(_BYTE_ORDER_MARK)
        written = [(number, line) for number, line in enumerate(head.split(b"\n"), 1) if line.strip()][:2]
        if not written:
            raise DataError(f"{self.name} is empty")
        number, line = written[0]
        if b"\0" in line:
            raise DataError(f"{self.name} is no csv file: it is not a text in UTF-8")
        shown = line.decode("utf-8", "replace").strip()
        separator = max(_SEPARATORS, key=shown.count)
        fields = [field.strip().strip('"').strip() for field in shown.split(separator)]
        if times.of_text(fields[0]) is not None:
            if len(fields) < 1 + VOLUME:
                raise DataError(
                    f"{self.name}: line {number} has {len(fields)} columns, a candle has {1 + VOLUME} at least"
                )
            places = {name: place for place, name in enumerate((TIME, *VALUES)[: len(fields)])}
            return _Layout(separator, len(fields), places, number, _is_text(fields[0]))
        if not is_header(fields):
            raise DataError(
                f"{self.name}: line {number} is neither a candle nor a header such as {','.join((TIME, *VALUES))}:"
                f' "{_short(shown)}"'
            )
        places = places_of(fields, self.name)
        first = written[1][1].decode("utf-8", "replace").split(separator) if len(written) > 1 else []
        has_text_times = len(first) > places[TIME] and _is_text(first[places[TIME]].strip().strip('"'))
        return _Layout(separator, len(fields), places, number + 1, has_text_times)

    def _blocks(self, file: BinaryIO, size: int) -> Iterator[bytes]:
        """Whole lines; only the last one of all may lack its end."""
        rest = b""
        for chunk in self._chunks(file, size):
            text = rest + chunk
            end = text.rfind(b"\n") + 1
            rest = text[end:]
            if len(rest) > LINE_BYTES_MAX:
                raise DataError(f"{self.name} is no csv file: it has a line of more than {LINE_BYTES_MAX:,} characters")
            if end:
                yield text[:end]
        if rest:
            yield rest

    def _chunks(self, file: BinaryIO, size: int) -> Iterator[bytes]:
        try:
            while chunk := file.read(size):
                yield chunk
        except (EOFError, OSError, zlib.error) as error:
            raise DataError(f"{self.name} cannot be read to its end: {error}") from error


def _without_lines(text: bytes, count: int) -> bytes:
    start = 0
    for _ in range(count):
        start = text.find(b"\n", start) + 1 or len(text)
    return text[start:]


def _read(text: bytes, layout: _Layout, first: int) -> Part:
    """Whole lines, of which the first has that number."""
    table = _table(text, layout)
    if table is not None:
        written = table[f"f{layout.places[TIME]}"]
        found = times.of_texts(np.ascontiguousarray(written)) if layout.has_text_times else times.of_numbers(written)
        if found is not None:
            values = np.zeros((len(VALUES), len(table)))
            for row, name in enumerate(VALUES):
                if name in layout.places:
                    values[row] = table[f"f{layout.places[name]}"]
            return Part(Rows(np.arange(first, first + len(table)), found, values), [])
    return _line_by_line(text, layout, first)


def _table(text: bytes, layout: _Layout) -> npt.NDArray[np.void] | None:
    """None if it cannot be read, or not so that each line is a row."""
    if not text or text.isspace():
        return None
    try:
        table = np.loadtxt(
            io.BytesIO(text),
            dtype=layout.dtype,
            delimiter=layout.separator,
            comments=None,
            quotechar='"',
            encoding="latin1",
            ndmin=1,
        )
        # A quote that is not closed takes in all that follows, and at the end of a block nothing does.
        _fields(text.rstrip(b"\n").rpartition(b"\n")[2].decode("latin1"), layout.separator)
    except (ValueError, _Unreadable):
        return None
    return table if len(table) == text.count(b"\n") + (not text.endswith(b"\n")) else None


def _line_by_line(text: bytes, layout: _Layout, first: int) -> Part:
    numbers: list[int] = []
    stamps: list[int] = []
    candles: list[list[float]] = []
    faults: list[Fault] = []
    lines = text.split(b"\n")
    for number, line in enumerate(lines, first):
        if not line.strip():
            continue
        try:
            time, values = _candle(line.decode("latin1"), layout)
        except _Unreadable as error:
            is_cut = number == first + len(lines) - 1
            faults.append(Fault(Kind.CUT if is_cut else error.kind, number, str(error)))
            continue
        numbers.append(number)
        stamps.append(time)
        candles.append(values)
    table = np.array(candles, np.float64).reshape(-1, len(VALUES)).T.copy()
    return Part(Rows(np.array(numbers, np.int64), np.array(stamps, np.int64), table), faults)


class _Unreadable(Exception):
    def __init__(self, kind: Kind, text: str) -> None:
        super().__init__(text)
        self.kind = kind


def _candle(line: str, layout: _Layout) -> tuple[int, list[float]]:
    """One line's time and values. Raises _Unreadable."""
    fields = _fields(line, layout.separator)
    if len(fields) != layout.columns:
        raise _Unreadable(Kind.COLUMNS, f"{len(fields)} columns instead of {layout.columns}")
    written = fields[layout.places[TIME]].strip()
    time = times.of_text(written)
    if time is None and written.lower() in _NOTHING:
        raise _Unreadable(Kind.MISSING, f"{TIME} is missing")
    if time is None:
        raise _Unreadable(Kind.TIME, f'{TIME} is "{_short(written)}"')
    return time, [_number(fields, layout.places[name], name) if name in layout.places else 0.0 for name in VALUES]


def _fields(line: str, separator: str) -> list[str]:
    if '"' not in line:
        return line.split(separator)
    try:
        (fields,) = csv.reader([line], delimiter=separator, strict=True)
    except (csv.Error, ValueError):
        raise _Unreadable(Kind.COLUMNS, "quotes that do not match") from None
    return fields


def _number(fields: list[str], place: int, name: str) -> float:
    written = fields[place]
    try:
        value = float(written)
    except ValueError:
        if written.strip().lower() in _NOTHING:
            return np.nan
    else:
        if "_" not in written and written.isascii():
            return value
    raise _Unreadable(Kind.NUMBER, f'{name} is "{_short(written.strip())}"')


def _is_text(written: str) -> bool:
    try:
        float(written)
    except ValueError:
        return True
    return False


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
