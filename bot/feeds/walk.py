"""The simulated price as a pure function of (seed, symbol, base, volatility, step).

A quote has the same bits on every CPU, numpy and Python version, whatever was asked before it: the noise is
a hash of a counter, sums are integer, and floats meet only ``+ - * / sqrt rint``, which IEEE 754 defines to
the last bit. So no ``np.exp`` here, no ``Generator`` distribution, no ``hash()``.

The log of the price, in units of 2^-40, is built from the coarse to the fine, so that one segment is all the
work to reach any step:

- knots, one every 4,096 steps, by midpoint displacement below independent anchors 4,096 knots apart. Short
  spans are displaced as a Brownian motion would be, long ones by ``_WANDER_MAX``: the price roams, but does
  not leave for zero or infinity within decades;
- between two knots a random walk with fat-tailed increments, tilted so that it leads to the second knot;
- the increments' variance is a multifractal with two-valued multipliers (Calvet and Fisher, 2004), hashes of
  the step divided by 64, 128, ... 2,048: volatility comes in clusters of many lengths. None is longer than a
  segment, so that all neighbouring knots are about equally far apart in variance. The tilt is spread over a
  segment as its variance is: spread evenly over time, it would rule the quiet stretches and pay whoever
  follows a trend.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from math import isqrt, sqrt

import numpy as np
import numpy.typing as npt

from bot.domain import FloatArray, IntArray

SEGMENT = 4096
VOLATILITY_MAX = 0.1

_WordArray = npt.NDArray[np.uint64]
_ByteArray = npt.NDArray[np.uint8]

_LOG_UNIT = 1 << 40
_LOG_MAX = 8.0  # met at absurd volatilities only; keeps every product of prices within 63 bits
_WANDER_MAX = 0.1  # standard deviation, in log price, that one octave of the knots may add
_OCTAVES = 12  # halvings between two anchors and two neighbouring knots
_LANES = 16  # counters of the octaves (or states) are interleaved: one call hashes them all

_CELL = 64  # steps that share one volatility
_CELLS = SEGMENT // _CELL
_STATE_SHIFTS = np.arange(6, dtype=np.int64)[:, None]  # of the cell's number
_STATES = len(_STATE_SHIFTS)
# A state multiplies the variance by 1.4 or 0.6: by 1 in the mean. Millionths, by the number of high states.
_VARIANCES = np.array([14**high * 6 ** (_STATES - high) for high in range(_STATES + 1)], dtype=np.int64)

_SPREAD_MIN = 1e-5
_SPREAD_PER_DEVIATION = 1 / 16
_SPREAD_BITS = 30

_WORDS = SEGMENT // 2  # 32 bits a step: 16 of noise, 8 of spread, 8 of where the last trade was
_MASK = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15
_CELL_RAMP = np.arange(_CELL, dtype=np.int64)
_WORD_RAMP = np.arange(_WORDS, dtype=np.uint64) * np.uint64(_GAMMA)


def _tail_quantiles() -> IntArray:
    """u / (1 - u^2)^(3/16) for 65,536 values of u across (-1, 1), in units of 2^-11; shape [65536].

    Tail index 16/3 and kurtosis 3.9: near a Student t with ten degrees of freedom, whose own quantiles need a
    libm where these need four exact roots. Antisymmetric, so the mean is exactly zero.
    """
    u = np.arange(-65535, 65536, 2, dtype=np.int64) / 65536
    fourth_root = np.sqrt(np.sqrt(1 - u * u))
    return np.rint(u / fourth_root * np.sqrt(np.sqrt(fourth_root)) * 2048).astype(np.int64)


_TAIL = _tail_quantiles()
_TAIL_DEVIATION = isqrt(int(_TAIL @ _TAIL) // len(_TAIL))


def _mix(words: _WordArray) -> _WordArray:
    """The finaliser of splitmix64 (Steele, Lea and Flood, 2014), in place."""
    words ^= words >> np.uint64(30)
    words *= np.uint64(0xBF58476D1CE4E5B9)
    words ^= words >> np.uint64(27)
    words *= np.uint64(0x94D049BB133111EB)
    words ^= words >> np.uint64(31)
    return words


def _hash(key: int, counters: IntArray) -> _WordArray:
    return _mix(counters.view(np.uint64) * np.uint64(_GAMMA) + np.uint64(key))


def _little_endian(words: _WordArray) -> _WordArray:
    """The words in the byte order in which they are cut into smaller ones."""
    return words.astype("<u8", copy=False)


def _exp(log: FloatArray) -> FloatArray:
    """Defined as (1 + y + y^2/2 + y^3/6)^32 with y = log / 32; within 2e-6 of e^log for |log| < 1."""
    y = log * 0.03125
    power = y * 0.16666666666666666
    power += 0.5
    power *= y
    power += 1.0
    power *= y
    power += 1.0
    for _ in range(5):
        power *= power
    return power


@dataclass(frozen=True, slots=True)
class Walk:
    """The quotes of one symbol. ``base`` is the price, in price steps, that it wanders around.

    ``deviations`` (of an increment, by the number of high states; shape [7]) and ``displacements`` (of a
    knot, by octave, the anchors last) are in log units, divided by the standard deviation of the noise that
    they multiply. ``spreads`` (by the number of high states; shape [7]) is 2^30 x a fraction of the price.
    """

    base: int
    noise_key: int
    state_key: int
    knot_key: int
    deviations: IntArray
    spreads: IntArray
    displacements: tuple[int, ...]

    @classmethod
    def of(cls, seed: int, symbol: str, *, base: int, volatility: float) -> Walk:
        """The walk of a symbol; ``volatility`` is the standard deviation of a one-step log return."""
        if not 0 < volatility <= VOLATILITY_MAX:
            raise ValueError(f"volatility must be above 0 and at most {VOLATILITY_MAX}, got {volatility}")
        digest = hashlib.blake2b(f"{seed} {symbol}".encode(), digest_size=24).digest()
        agitation = np.sqrt(_VARIANCES / 10**_STATES) * volatility
        spreads = _SPREAD_MIN + agitation * _SPREAD_PER_DEVIATION
        return cls(
            base,
            int.from_bytes(digest[:8], "little"),
            int.from_bytes(digest[8:16], "little"),
            int.from_bytes(digest[16:], "little"),
            np.rint(agitation * _LOG_UNIT / _TAIL_DEVIATION).astype(np.int64),
            np.rint(spreads * (1 << _SPREAD_BITS)).astype(np.int64),
            tuple(_displacement(octave, volatility) for octave in range(1, _OCTAVES + 2)),
        )

    def segment(self, index: int) -> IntArray:
        """Bid, ask and last, in price steps, of the steps from ``index * SEGMENT`` on; shape [3, SEGMENT]."""
        first_word = np.uint64((self.noise_key + index * _WORDS * _GAMMA) & _MASK)
        words = _little_endian(_mix(_WORD_RAMP + first_word))
        noise = words[: _WORDS // 2].view("<u2")
        jitter, side = words[_WORDS // 2 :].view(np.uint8).reshape(2, SEGMENT)
        high = self._high_states(index)
        increments = (_TAIL.take(noise).reshape(-1, _CELL) * self.deviations[high][:, None]).reshape(-1)
        middle = self._price(self._bridge(index, increments, _VARIANCES[high]))
        spreads = middle.reshape(-1, _CELL) * self.spreads[high][:, None] >> _SPREAD_BITS
        return _quotes(middle, spreads.reshape(-1), jitter, side)

    def quotes(self, start: int, stop: int) -> IntArray:
        """Bid, ask and last, in price steps, of one or more steps [start, stop); shape [3, stop - start]."""
        first = start // SEGMENT
        segments = [self.segment(index) for index in range(first, (stop - 1) // SEGMENT + 1)]
        return np.concatenate(segments, axis=1)[:, start - first * SEGMENT : stop - first * SEGMENT]

    def _high_states(self, index: int) -> IntArray:
        """How many states are high in each cell of a segment; shape [_CELLS]."""
        cells = np.arange(index * _CELLS, (index + 1) * _CELLS, dtype=np.int64) >> _STATE_SHIFTS
        words = _hash(self.state_key, cells * _LANES + _STATE_SHIFTS)
        high: IntArray = np.count_nonzero(words >> np.uint64(63), axis=0)
        return high

    def _knots(self, index: int) -> tuple[int, int]:
        """Log price at the first step of a segment and at that of the next."""
        anchor = index >> _OCTAVES
        counters = [(index >> octave) * _LANES + octave for octave in range(1, _OCTAVES + 1)]
        counters += [anchor * _LANES, (anchor + 1) * _LANES]
        *bells, low, high = _bells(_hash(self.knot_key, np.array(counters, dtype=np.int64)))
        low *= self.displacements[-1]
        high *= self.displacements[-1]
        for octave in range(_OCTAVES, 0, -1):
            middle = (low + high) // 2 + bells[octave - 1] * self.displacements[octave - 1]
            if index >> (octave - 1) & 1:
                low = middle
            else:
                high = middle
        return low, high

    def _bridge(self, index: int, increments: IntArray, variances: IntArray) -> FloatArray:
        """The log price at each step of a segment: the increments' sum, tilted to lead to the next knot."""
        low, high = self._knots(index)
        path = np.cumsum(increments)
        total = int(path[-1])
        path -= increments  # the sum before each step: the first is the knot itself
        elapsed = np.cumsum(variances) * _CELL
        slope = (high - low - total) / int(elapsed[-1])
        elapsed -= variances * _CELL
        tilt = (elapsed[:, None] + variances[:, None] * _CELL_RAMP) * slope
        return (path + low + tilt.reshape(-1)) / _LOG_UNIT

    def _price(self, log: FloatArray) -> IntArray:
        """The price in price steps, at least 1."""
        price = _exp(np.clip(log, -_LOG_MAX, _LOG_MAX))
        price *= self.base
        return np.maximum(np.rint(price).astype(np.int64), 1)


def _displacement(octave: int, volatility: float) -> int:
    """What multiplies the noise of the knot halfway between two that are 2^octave segments apart."""
    brownian = volatility * sqrt(SEGMENT << octave) / 2
    return round(min(brownian, _WANDER_MAX) * _LOG_UNIT * sqrt(3) / 65536)


def _bells(words: _WordArray) -> list[int]:
    """A near normal number from each word: standard deviation 2^16 / sqrt(3), at most 131,070 from 0."""
    lanes = _little_endian(words).view("<u2").reshape(-1, 4)
    total: list[int] = (lanes.sum(axis=1, dtype=np.int64) - 131_070).tolist()
    return total


def _quotes(middle: IntArray, spread: IntArray, jitter: _ByteArray, side: _ByteArray) -> IntArray:
    """Bid, ask and last around ``middle``; the spread varies by half each way, and is at least one step."""
    quotes = np.empty((3, len(middle)), dtype=np.int64)
    bid, ask, last = quotes
    spread *= jitter.astype(np.int64) + 128
    spread >>= 8
    spread += 1
    np.maximum(middle - (spread >> 1), 1, out=bid)
    np.add(bid, spread, out=ask)
    # Three trades of eight are at the bid, three at the ask, the others anywhere between.
    share = np.clip(side.astype(np.int64) * 4 - 384, 0, 256)
    np.add(bid, spread * share >> 8, out=last)
    return quotes
