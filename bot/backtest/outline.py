"""A long curve with few enough points to be drawn: of each bucket of bars its lowest, its highest and its last one."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from bot.domain import FloatArray, IntArray

POINTS_MAX = 4_000
_LOW, _HIGH, _LAST = range(3)
_BUCKETS_MAX = POINTS_MAX // 3


@dataclass(slots=True)
class Outline:
    """Buckets of ``width`` bars each, a power of two that doubles as the curve grows: they depend on the number of bars
    alone, not on the blocks in which they come. ``times`` and ``values`` have the shape [3, buckets]: low, high, last.
    """

    bars: int = 0
    width: int = 1
    times: IntArray = field(default_factory=lambda: np.zeros((3, 0), np.int64))
    values: FloatArray = field(default_factory=lambda: np.zeros((3, 0)))

    def add(self, times: IntArray, values: FloatArray) -> None:
        before, self.bars = self.bars, self.bars + len(times)
        while self.bars > _BUCKETS_MAX * self.width:
            self._join(np.arange(self.times.shape[1]) // 2)
            self.width *= 2
        # What is left of a bucket that has begun, whole ones, and one that is begun.
        head = min(-before % self.width, len(times))
        tail = head + (len(times) - head) // self.width * self.width
        edges = [(0, head, head), (head, tail, self.width), (tail, len(times), len(times) - tail)]
        pieces = [
            _extremes(times[first:end], values[first:end].reshape(-1, width))
            for first, end, width in edges
            if end > first
        ]
        known = self.times.shape[1]
        self.times = np.concatenate((self.times, *(found for found, _ in pieces)), axis=1)
        self.values = np.concatenate((self.values, *(found for _, found in pieces)), axis=1)
        if head and known:
            bucket = np.arange(self.times.shape[1])
            bucket[known:] -= 1
            self._join(bucket)

    def points(self) -> tuple[IntArray, FloatArray]:
        """Times and values in the order of time, each point once."""
        times, values = self.times.T.ravel(), self.values.T.ravel()
        times, places = np.unique(times, return_index=True)
        return times, values[places]

    def _join(self, bucket: IntArray) -> None:
        """Makes one of those, two at most, that are to be in the same bucket."""
        if not len(bucket):
            return
        first = np.nonzero(np.diff(bucket, prepend=-1))[0]
        second = np.append(first[1:], len(bucket)) - 1
        low, high = self.values[_LOW], self.values[_HIGH]
        chosen = np.stack(
            (
                np.where(low[second] < low[first], second, first),
                np.where(high[second] > high[first], second, first),
                second,
            )
        )
        self.times = np.take_along_axis(self.times, chosen, 1)
        self.values = np.take_along_axis(self.values, chosen, 1)


def _extremes(times: IntArray, buckets: FloatArray) -> tuple[IntArray, FloatArray]:
    """Times and values, shape [3, buckets], of each row's first lowest, first highest and last value."""
    count, width = buckets.shape
    columns = np.stack((buckets.argmin(axis=1), buckets.argmax(axis=1), np.full(count, width - 1)))
    return times[columns + np.arange(count) * width], np.take_along_axis(buckets, columns.T, 1).T
