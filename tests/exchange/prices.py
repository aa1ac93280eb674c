"""What the markets cost: a pure function of (seed, symbol, time in ms), in whole price steps.

A price is its market's base plus six octaves of value noise: hashed lattice points, joined by straight lines, in
integers only, so that every machine computes the same ones. The shortest octave has a period of a second and the
longest of two days; together they move a price by at most 5.62 % x ``volatility``.

A candle is made of samples of that function, never of what was served. The samples are at ``open + k * grid_ms``:
every 15 s for candles of a minute to an hour (which therefore add up exactly), a quarter of the candle below and a
240th of it above. Open is the first sample, close the last, high and low the extremes. The candle still open
has the samples up to now, so its high only rises and its low only falls until it closes. Volume is a sum over the same
samples.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]

BPS = 100_000  # in parts per billion
OCTAVES = (
    (1_000, 1 * BPS),
    (10_000, 3 * BPS),
    (60_000, 8 * BPS),
    (900_000, 30 * BPS),
    (14_400_000, 120 * BPS),
    (172_800_000, 400 * BPS),
)
VOLATILITY_MAX = 10.0
BILLION = 1_000_000_000
HOUR_MS = 3_600_000
GRID_MS = 15_000
HALF_SPREADS_PER_PRICE = 10_000
WEEK_MS = 604_800_000
MONDAY_MS = 4 * 86_400_000  # the first one after the epoch, where Binance's weeks begin


@dataclass(frozen=True, slots=True)
class Market:
    """``price_digits`` and ``amount_digits`` are decimals: a price step is 10 ** -price_digits."""

    symbol: str
    base: str
    quote: str
    price_digits: int
    amount_digits: int
    base_steps: int


@dataclass(frozen=True, slots=True)
class Bar:
    """Prices in steps; volume in thousandths of the base asset."""

    open_ms: int
    open: int
    high: int
    low: int
    close: int
    volume: int


@lru_cache
def markets(count: int, btc_digits: int = 2) -> tuple[Market, ...]:
    """BTC/USDT, ETH/USDT, COIN003/USDT, ... The coins' prices span 2 to 50,000 USDT, always at least 200,000 steps."""
    known = [
        Market("BTC/USDT", "BTC", "USDT", btc_digits, 5, 60_000 * 10**btc_digits),
        Market("ETH/USDT", "ETH", "USDT", 2, 4, 300_000),
    ]
    return (*known[:count], *(_coin(number) for number in range(3, count + 1)))


def _coin(number: int) -> Market:
    base = f"COIN{number:03d}"
    steps = 200_000 + _seed_of(base) % 4_800_000
    return Market(f"{base}/USDT", base, "USDT", (4, 3, 2, 5)[number % 4], (0, 1, 2, 3)[number % 4], steps)


def _seed_of(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


def mixed(x: Hashes) -> Hashes:
    """The finaliser of splitmix64, which wraps around; arrays do that silently."""
    z = x + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed_: Hashes = z ^ (z >> np.uint64(31))
    return mixed_


class Prices:
    """The prices of ``known`` markets under one seed; markets are named by their place in ``known``."""

    def __init__(self, known: tuple[Market, ...], seed: int = 1, volatility: float = 1.0) -> None:
        if not 0 <= volatility <= VOLATILITY_MAX:
            raise ValueError(f"volatility must be in [0, {VOLATILITY_MAX:g}], not {volatility!r}")
        self.markets = known
        self.place = {market.symbol: i for i, market in enumerate(known)}
        self._keys: Hashes = np.array([_seed_of(f"{seed}:{m.symbol}") for m in known], np.uint64)
        self._base: Ints = np.array([m.base_steps for m in known], np.int64)
        self._octaves = [(period, int(amplitude * volatility)) for period, amplitude in OCTAVES]
        self._day: tuple[int, Ints] = (-1, np.zeros((0, 0), np.int64))

    def at(self, symbol: str, at_ms: int) -> int:
        """The last price, in steps."""
        return int(self.steps(np.array([self.place[symbol]]), np.array([at_ms]))[0, 0])

    def steps(self, places: Ints, times_ms: Ints) -> Ints:
        """Last prices, one row a market and one column a time."""
        keys, times = self._keys[places][:, None], times_ms[None, :]
        noise: Ints = np.zeros((len(places), len(times_ms)), np.int64)
        for octave, (period, amplitude) in enumerate(self._octaves):
            cell = times // period
            left, right = (_lattice(keys, cell + side, octave, amplitude) for side in (0, 1))
            noise += left + (right - left) * (times - cell * period) // period
        base = self._base[places][:, None]
        return base + base * noise // BILLION

    def day(self, now_ms: int) -> Ints:
        """Of every market: open, high and low of the 24 whole hours before the running one."""
        hour = now_ms // HOUR_MS
        known, rows = self._day  # one read: two threads may be here
        if known != hour:
            samples = self.steps(np.arange(len(self.markets)), np.arange(hour - 24, hour + 1) * HOUR_MS)
            rows = np.stack([samples[:, 0], samples.max(axis=1), samples.min(axis=1)], axis=1)
            self._day = hour, rows
        return rows

    def bars(self, symbol: str, interval_ms: int, first_ms: int, count: int, now_ms: int) -> list[Bar]:
        """``count`` candles from the one that opens at ``first_ms``; none that opens after ``now_ms``."""
        opens = first_ms + np.arange(count, dtype=np.int64) * interval_ms
        opens = opens[opens <= now_ms]
        if not len(opens):
            return []
        place, step = np.array([self.place[symbol]]), grid_ms(interval_ms)
        times = opens[:, None] + np.arange(0, interval_ms, step)[None, :]
        newest = int(opens[-1]) + (now_ms - int(opens[-1])) // step * step
        prices = self.steps(place, np.minimum(times, newest).ravel()).reshape(times.shape)
        volume = (self._traded(place, times) * (times <= newest)).sum(axis=1)
        columns = (opens, prices[:, 0], prices.max(axis=1), prices.min(axis=1), prices[:, -1], volume)
        return [Bar(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]

    def _traded(self, place: Ints, times: Ints) -> Ints:
        hashed = mixed(self._keys[place] ^ mixed(times.astype(np.uint64)))
        return (hashed % np.uint64(1_000)).astype(np.int64) + 1


def _lattice(keys: Hashes, cell: Ints, octave: int, amplitude: int) -> Ints:
    hashed = mixed(keys ^ mixed(cell.astype(np.uint64) * np.uint64(len(OCTAVES)) + np.uint64(octave)))
    return ((hashed >> np.uint64(11)) % np.uint64(2 * amplitude + 1)).astype(np.int64) - amplitude


def grid_ms(interval_ms: int) -> int:
    """The distance of a candle's samples."""
    if interval_ms < 4 * GRID_MS:
        return interval_ms // 4
    return max(GRID_MS, interval_ms // 240)


def floor_to(interval_ms: int, at_ms: int, week_starts_ms: int = MONDAY_MS) -> int:
    """The opening time of the candle that ``at_ms`` is in."""
    offset = week_starts_ms if interval_ms == WEEK_MS else 0
    return (at_ms - offset) // interval_ms * interval_ms + offset


def half_spread(last_steps: int) -> int:
    """bid = last - this, ask = last + this: a basis point each, at least a step."""
    return max(1, last_steps // HALF_SPREADS_PER_PRICE)


def text(steps: int, digits: int, width: int) -> str:
    """``steps`` as a decimal with ``digits`` meaningful decimals, padded to ``width`` of them."""
    whole, rest = divmod(steps, 10**digits)
    return f"{whole}.{rest:0{digits}d}{'0' * (width - digits)}" if digits else f"{whole}.{'0' * width}"
