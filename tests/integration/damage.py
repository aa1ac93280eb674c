"""What disks and people do to a ledger file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from tests.integration.daemon import rows

PAGE = 4096
_TABLE_LEAF, _INDEX_LEAF, _TABLE_INTERIOR, _INDEX_INTERIOR = 0x0D, 0x0A, 0x05, 0x02

Damage = Callable[[Path], object]


def overwritten(start: int, content: bytes) -> Damage:
    def work(ledger: Path) -> None:
        with ledger.open("r+b") as file:
            file.seek(start)
            file.write(content)

    return work


def zeroed_page(share: float) -> Damage:
    """One page of the file, at this share of its length."""
    return lambda ledger: overwritten(int(ledger.stat().st_size // PAGE * share) * PAGE, bytes(PAGE))(ledger)


def zeroed_root(table: str) -> Damage:
    return lambda ledger: overwritten((_root(ledger, table) - 1) * PAGE, bytes(PAGE))(ledger)


def truncated(size: Callable[[int], int]) -> Damage:
    """To a size that is a function of what it was."""

    def work(ledger: Path) -> None:
        with ledger.open("r+b") as file:
            file.truncate(size(ledger.stat().st_size))

    return work


def _root(ledger: Path, table: str) -> int:
    return int(rows(ledger, f"SELECT rootpage FROM sqlite_schema WHERE name = '{table}'")[0][0])  # noqa: S608


class Rows:
    """Where in the file the rows of some tables stand, byte by byte."""

    def __init__(self, ledger: Path, tables: tuple[str, ...]) -> None:
        self.content = ledger.read_bytes()
        self._spans = [(table, *span) for table in tables for span in self._cells(_root(ledger, table))]
        self._ends = np.cumsum([end - start for _, start, end in self._spans])

    def bits(self, random: np.random.Generator) -> Iterator[tuple[str, int, int]]:
        """Table, byte and bit, drawn from all bits of all rows alike."""
        while True:
            place = int(random.integers(self._ends[-1]))
            number = int(np.searchsorted(self._ends, place, side="right"))
            table, _, end = self._spans[number]
            yield table, end - int(self._ends[number]) + place, int(random.integers(8))

    def _cells(self, page: int) -> Iterator[tuple[int, int]]:
        """First and last byte of each cell, below this page (https://sqlite.org/fileformat2.html#b_tree_pages)."""
        start = (page - 1) * PAGE
        kind = self.content[start]
        interior = kind in {_TABLE_INTERIOR, _INDEX_INTERIOR}
        count = self._number(start + 3, 2)
        first = start + (12 if interior else 8)
        for pointer in range(first, first + 2 * count, 2):
            cell = start + self._number(pointer, 2)
            if interior:
                yield from self._cells(self._number(cell, 4))
                cell += 4
            if kind != _TABLE_INTERIOR:
                size, body = self._varint(cell)
                if kind == _TABLE_LEAF:
                    _, body = self._varint(body)
                yield cell, body + size
        if interior:
            yield from self._cells(self._number(start + 8, 4))

    def _number(self, place: int, size: int) -> int:
        return int.from_bytes(self.content[place : place + size])

    def _varint(self, place: int) -> tuple[int, int]:
        value = 0
        for index in range(8):
            byte = self.content[place + index]
            value = value << 7 | byte & 0x7F
            if byte < 0x80:
                return value, place + index + 1
        return value << 8 | self.content[place + 8], place + 9


def with_bit_flipped(content: bytes, place: int, bit: int) -> bytes:
    flipped = bytearray(content)
    flipped[place] ^= 1 << bit
    return bytes(flipped)
