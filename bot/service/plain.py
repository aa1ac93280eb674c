"""Text of others made fit to be shown: nothing in it is obeyed by a terminal or ends a line, and it has an end."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

MASK = "***"
TEXT_CHARS_MAX, KEY_CHARS_MAX = 2000, 100
# The beginning of a traceback is what tells, and its end.
TRACEBACK_CHARS_MAX = 8000
# Of a whole line, as JSON writes it: the journal cuts a line in two at 48 kB.
LINE_CHARS_MAX = 32_000
DEPTH_MAX = 6
# What is larger is no count of anything, and Python refuses to print one of 4300 digits.
_INT_BITS_MAX, NUMBER_CHARS_MAX = 64, 24


def printable(text: str) -> str:
    """One line of visible characters: what is none of these is shown as its code."""
    return text if text.isprintable() else "".join(c if c.isprintable() else _code(c) for c in text)


def _code(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def without(secrets: Collection[str]) -> Callable[[str], str]:
    """A function that writes *** for each of these, wherever it stands in a text."""
    if not secrets:
        return str
    # The longest first: of an address not only the part of it that is a secret by itself.
    pattern = re.compile("|".join(map(re.escape, sorted(secrets, key=len, reverse=True))))
    return lambda text: pattern.sub(MASK, text)


class Plain:
    """Makes one event fit for a log: ``clean`` takes away its secrets, the rest is shown as far as there is room."""

    def __init__(self, clean: Callable[[str], str]) -> None:
        self._clean = clean
        self._room = LINE_CHARS_MAX

    def text(self, text: str, chars_max: int = TEXT_CHARS_MAX) -> str:
        # Before it is cut: a part of a secret would not be known for one.
        return self._fit(_cut(printable(self._clean(text)), chars_max))

    def traceback(self, text: str) -> str:
        shown, half = printable(self._clean(text)), TRACEBACK_CHARS_MAX // 2
        return self._fit(shown if len(shown) <= 2 * half else f"{shown[:half]} … {shown[-half:]}")

    def value(self, value: Any, depth: int = 0) -> Any:
        """As JSON can hold it; what is neither a number nor text nor made of them by what it calls itself."""
        if isinstance(value, str):
            return self.text(value)
        if value is None or isinstance(value, bool) or _is_number(value):
            self._spend(NUMBER_CHARS_MAX)
            return value
        if isinstance(value, Mapping) and depth < DEPTH_MAX:
            return self._table(value, depth + 1)
        if isinstance(value, list | tuple) and depth < DEPTH_MAX:
            return self._list(value, depth + 1)
        return self.text(_said(value))

    def _table(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        table: dict[str, Any] = {}
        for key, entry in value.items():
            if not self._room:
                return table | {"…": f"{len(value) - len(table)} more"}
            table[self.text(key if isinstance(key, str) else _said(key), KEY_CHARS_MAX)] = self.value(entry, depth)
        return table

    def _list(self, value: Sequence[Any], depth: int) -> list[Any]:
        entries: list[Any] = []
        for entry in value:
            if not self._room:
                return [*entries, f"… {len(value) - len(entries)} more"]
            entries.append(self.value(entry, depth))
        return entries

    def _fit(self, text: str) -> str:
        length = _json_length(text)
        if length > self._room:
            # JSON writes twelve characters for one at most.
            text = _cut(text, self._room // 12)
            length = _json_length(text)
        self._spend(length)
        return text

    def _spend(self, chars: int) -> None:
        # And what stands between them: even what is empty takes room, so that it ends.
        self._room = max(0, self._room - chars - 2)


def _json_length(text: str) -> int:
    if text.isascii() and '"' not in text and "\\" not in text:
        return len(text) + 2
    return len(json.dumps(text))


def _is_number(value: Any) -> bool:
    if isinstance(value, int):
        return value.bit_length() <= _INT_BITS_MAX
    return isinstance(value, float) and math.isfinite(value)


def _said(value: Any) -> str:
    try:
        return hex(value) if isinstance(value, int) else repr(value)
    except Exception as error:  # noqa: BLE001 - it is somebody else's, and a log line must not fail
        return f"<{type(value).__name__}, {type(error).__name__} when shown>"


def _cut(text: str, chars_max: int) -> str:
    return text if len(text) <= chars_max else f"{text[:chars_max]}…"
