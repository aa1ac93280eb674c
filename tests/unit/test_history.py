"""Ranges, pages and files of candles, without an exchange."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.history import store
from bot.history.errors import HistoryError
from bot.history.pages import CANDLE, Candles, Journal, candles_of
from bot.history.ranges import DAY_MS, joined, parsed, step_ms, without
from bot.history.store import Series

NOW_MS = 1_735_740_000_000  # 2025-01-01T14:00Z
JANUARY_MS = 1_704_067_200_000  # 2024-01-01
MINUTE_MS = 60_000
SERIES = Series("binance", "BTC/USDT", "1m", MINUTE_MS)

ranges = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)).map(lambda pair: (min(pair), max(pair))))


def candles(*minutes: int, price: float = 1.0) -> Candles:
    return candles_of([minute * MINUTE_MS, price, price, price, price, 1.0] for minute in minutes)


def page(first: int, end: int) -> tuple[int, int]:
    return first * MINUTE_MS, end * MINUTE_MS


def minutes_in(path: Path) -> list[int]:
    return [time // MINUTE_MS for time in pq.read_table(path)["timestamp"].to_pylist()]


class TestRanges:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("20240101-20240201", (JANUARY_MS, JANUARY_MS + 31 * DAY_MS)),
            ("2024-01-01-2024-02-01", (JANUARY_MS, JANUARY_MS + 31 * DAY_MS)),
            ("20240101-", (JANUARY_MS, NOW_MS)),
            ("-20240101", (None, JANUARY_MS)),
            ("-", (None, NOW_MS)),
            ("1704067200-1704067260", (JANUARY_MS, JANUARY_MS + MINUTE_MS)),
            ("20240101-20250102", (JANUARY_MS, NOW_MS)),
            (None, (NOW_MS // DAY_MS * DAY_MS - 30 * DAY_MS, NOW_MS)),
        ],
    )
    def test_what_a_text_means(self, text: str | None, expected: tuple[int | None, int]) -> None:
        assert parsed(text, NOW_MS) == expected

    @pytest.mark.parametrize(
        ("text", "word"),
        [
            ("20240201-20240101", "before it begins"),
            ("20240101-20240101", "before it begins"),
            ("20250102-", "in the future"),
            ("20240101-20260101", "in the future"),
            ("20240101", "write 20240101-20240201"),
            ("20241301-", "no day"),
            ("yesterday-", "write"),
            ("", "write"),
            ("²0240101-", "write"),
        ],
    )
    def test_what_no_text_means(self, text: str, word: str) -> None:
        with pytest.raises(HistoryError, match=word):
            parsed(text, NOW_MS)

    def test_steps(self) -> None:
        assert [step_ms(name) for name in ("1s", "15m", "1h", "1w")] == [1000, 900_000, 3_600_000, 604_800_000]
        with pytest.raises(HistoryError, match="different lengths"):
            step_ms("1M")

    @given(ranges, ranges)
    def test_missing_is_what_is_not_covered(
        self, wanted: list[tuple[int, int]], covered: list[tuple[int, int]]
    ) -> None:
        has = {point for first, end in covered for point in range(first, end)}
        assert {point for first, end in joined(covered) for point in range(first, end)} == has
        for one in wanted:
            missing = [point for first, end in without(one, covered) for point in range(first, end)]
            assert missing == [point for point in range(*one) if point not in has]


class TestPages:
    def test_are_there_after_a_restart(self, tmp_path: Path) -> None:
        path = tmp_path / "x.pages"
        with Journal(path) as journal:
            journal.add(page(10, 20), candles(10, 11, 19))
            journal.add(page(0, 5), candles(0))
            journal.add(page(5, 10), candles())
        with Journal(path) as journal:
            assert joined(journal.covered) == [page(0, 20)]
            assert [part["timestamp"].tolist() for part in journal.pages()] == [[0], [600_000, 660_000, 1_140_000]]

    def test_cut_anywhere_loses_the_last_one_only(self, tmp_path: Path) -> None:
        path = tmp_path / "x.pages"
        with Journal(path) as journal:
            journal.add(page(0, 2), candles(0, 1))
            whole = path.stat().st_size
            journal.add(page(2, 3), candles(2))
        content = path.read_bytes()
        for size in range(whole, len(content)):
            path.write_bytes(content[:size])
            with Journal(path) as journal:
                assert journal.covered == [page(0, 2)]
                journal.add(page(2, 4), candles(3))
            with Journal(path) as journal:
                assert journal.covered == [page(0, 2), page(2, 4)]

    def test_a_flipped_byte_ends_it(self, tmp_path: Path) -> None:
        path = tmp_path / "x.pages"
        with Journal(path) as journal:
            journal.add(page(0, 2), candles(0, 1))
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        with Journal(path) as journal:
            assert journal.covered == []
        assert not path.exists()

    def test_one_process_at_a_time(self, tmp_path: Path) -> None:
        with (
            Journal(tmp_path / "x.pages"),
            pytest.raises(HistoryError, match="another download"),
            Journal(tmp_path / "x.pages"),
        ):
            pass

    @pytest.mark.parametrize("row", [[0, 1, 1, None, 1, 1], [0, 1, 1, "x", 1, 1], [0, 1], [None, 1, 1, 1, 1, 1]])
    def test_what_is_no_candle(self, row: list[object]) -> None:
        with pytest.raises((ValueError, TypeError)):
            candles_of([row])

    def test_in_order_and_once(self) -> None:
        assert candles(3, 1, 3, 2)["timestamp"].tolist() == [60_000, 120_000, 180_000]


class TestFiles:
    def test_grow_at_either_end_and_in_the_middle(self, tmp_path: Path) -> None:
        path = tmp_path / "x.parquet"
        store.write(path, SERIES, [page(10, 12), page(20, 22)], [candles(10, 11), candles(20, 21)])
        parts = [candles(8, 9), candles(12, 13), candles(22)]
        found = store.write(path, SERIES, [page(8, 14), page(20, 23)], parts)
        assert minutes_in(path) == [8, 9, 10, 11, 12, 13, 20, 21, 22]
        assert (found.rows, found.gaps, found.holes) == (9, 0, [page(14, 20)])
        assert store.covered(path, SERIES) == [page(8, 14), page(20, 23)]
        assert store.read(path, SERIES) == found

    def test_columns(self, tmp_path: Path) -> None:
        path = tmp_path / "x.parquet"
        store.write(path, SERIES, [page(0, 1)], [candles(0)])
        schema = pq.read_schema(path)
        assert [(field.name, str(field.type)) for field in schema] == [
            ("timestamp", "int64"),
            *((name, "double") for name in ("open", "high", "low", "close", "volume")),
        ]

    def test_what_is_there_twice_is_the_newer_one(self, tmp_path: Path) -> None:
        path = tmp_path / "x.parquet"
        store.write(path, SERIES, [page(0, 4)], [candles(0, 1, 2, 3)])
        store.write(path, SERIES, [page(0, 6)], [candles(2, 3, price=2.0), candles(3, 5, price=3.0)])
        assert minutes_in(path) == [0, 1, 2, 3, 5]
        assert pq.read_table(path)["open"].to_pylist() == [1.0, 1.0, 2.0, 2.0, 3.0]

    @given(st.sets(st.integers(0, 40)), st.sets(st.integers(0, 40)), st.integers(1, 5))
    def test_merging_is_a_union(self, old: set[int], new: set[int], size: int) -> None:
        later = sorted(new)
        pages = [candles(*later[place : place + size], price=2.0) for place in range(0, len(later), size)]
        first = [candles(*old)] if old else []
        merged = list(store._grouped(store._merged(iter(first), iter(pages))))
        found = np.concatenate([np.empty(0, CANDLE), *merged])
        assert found["timestamp"].tolist() == [minute * MINUTE_MS for minute in sorted(old | new)]
        assert found["open"].tolist() == [2.0 if minute in new else 1.0 for minute in sorted(old | new)]

    def test_gaps_of_the_exchange(self, tmp_path: Path) -> None:
        there = [minute for minute in range(200) if minute % 20 or not minute]
        found = store.write(tmp_path / "x.parquet", SERIES, [page(0, 200)], [candles(*there)])
        assert (found.gaps, found.candles_missing, len(found.first_gaps)) == (9, 9, store.GAPS_SHOWN)
        assert found.first_gaps[0] == page(20, 21)

    def test_a_file_of_somebody_else(self, tmp_path: Path) -> None:
        path = tmp_path / "x.parquet"
        path.write_text("Dear diary")
        with pytest.raises(HistoryError, match="not written by"):
            store.covered(path, SERIES)
        path.unlink()
        store.write(path, SERIES, [page(0, 1)], [candles(0)])
        with pytest.raises(HistoryError, match="other candles"):
            store.covered(path, Series("kraken", "BTC/USDT", "1m", MINUTE_MS))

    @pytest.mark.parametrize("how", ["no column", "other type", "other order", "twice", "none"])
    def test_a_file_that_was_altered(self, tmp_path: Path, how: str) -> None:
        path = tmp_path / "x.parquet"
        store.write(path, SERIES, [page(0, 3)], [candles(0, 1, 2)])
        table = pq.read_table(path)
        altered = {
            "no column": lambda: table.drop_columns(["volume"]),
            "other type": lambda: table.set_column(0, "timestamp", table["timestamp"].cast("timestamp[ms]")),
            "other order": lambda: table.take([2, 0, 1]),
            "twice": lambda: table.take([0, 1, 1, 2]),
            "none": lambda: table.take([0, None, 2]),
        }[how]()
        pq.write_table(altered, path)
        content = path.read_bytes()
        with pytest.raises(HistoryError, match="altered"):
            store.write(path, SERIES, store.covered(path, SERIES), [candles(3)])
        assert path.read_bytes() == content

    def test_large_ones_come_in_row_groups(self, tmp_path: Path) -> None:
        path = tmp_path / "x.parquet"
        size, count = 1000, 150
        pages = (candles(*range(first * size, (first + 1) * size)) for first in range(count))
        assert store.write(path, SERIES, [page(0, size * count)], pages).rows == size * count
        assert pq.ParquetFile(path).metadata.num_row_groups == 3
        assert os.listdir(tmp_path) == ["x.parquet"]
