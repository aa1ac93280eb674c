"""Why two fills differ, or why only one side has one: one main cause each, in words and in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from bot.backtest.compare.case import DATA, LIVE, Case, Differing, Hole, Lacking
from bot.backtest.compare.sides import Signal
from bot.backtest.report import words
from bot.backtest.trades import Trade
from bot.domain import OrderSide, iso8601
from bot.engine import SizingKind
from bot.service.inspect import REASONS

# Money as float64 is off by no more than this, in the quote currency and as a part of what was traded.
MONEY_OFF, PART_OFF = 1e-9, 1e-12


class Cause(StrEnum):
    MISSING_DATA = "missing data"
    SIGNAL = "signal"
    TIME = "time"
    PRICE = "price"
    QUANTITY = "quantity"
    FEE = "fee"
    # Of fills that are the same; only a fault of ours makes one.
    PROFIT = "profit"


class Reason(NamedTuple):
    """``details`` are the numbers in ``text``, as JSON can hold them."""

    cause: Cause
    text: str
    details: Mapping[str, Any]


_NAMES = {LIVE: "live", DATA: "the backtest"}
_NOTHING = {LIVE: "no live price", DATA: "the data has no candle"}


def of(case: Case, live: int, backtest: int) -> Reason:
    """Of two fills that are each other's and not the same, or of one that the other side has not: -1."""
    if live < 0:
        return _of_one(case, DATA, backtest)
    return _of_one(case, LIVE, live) if backtest < 0 else _of_pair(case, live, backtest)


def _of_pair(case: Case, live: int, backtest: int) -> Reason:
    mine, other = case.live.trades[live], case.backtest.trades[backtest]
    paid = abs(_fee_beyond(mine, other))
    moved = abs(other.quantity * (mine.price - other.price))
    if is_near(paid, mine) and mine.timestamp == other.timestamp and mine.price == other.price:
        return _other_size(case, mine, other) if mine.quantity != other.quantity else _other_profit(mine, other)
    if not is_near(paid, mine) and paid > moved:
        return _other_fee(mine, other)
    if mine.timestamp != other.timestamp:
        return _other_time(case, mine, other)
    return _other_price(case, live, backtest)


def _of_one(case: Case, where: str, row: int) -> Reason:
    side, other = case.side(where), DATA if where == LIVE else LIVE
    fill, target = side.trades[row], side.target_of(row)
    time, symbol = fill.timestamp, fill.symbol
    did = f"{_NAMES[where]} {_done(fill)}"
    if hole := case.hole(other, symbol, time):
        return _no_prices(other, hole, time, f"and {did}")
    place = case.symbols.index(symbol)
    if refused := case.side(other).refused_near(place, target, time, case.tolerance_ms):
        text = f"{_NAMES[other]} was refused: {_meaning(refused.reason or '')}; {did}"
        return Reason(Cause.SIGNAL, text, {"refused": refused.reason, "refused_at": iso8601(refused.timestamp)})
    last = case.side(other).last_signal(place, time)
    if target == (last.target if last else case.targets.get(symbol, 0.0)):
        return _wanted_before(case, where, last, target, fill)
    return _decided_otherwise(case, where, fill)


def of_refusal(where: str, target: float, reason: str) -> Reason:
    """Of a signal that the other side does not have, or has not refused, or for another reason."""
    other = DATA if where == LIVE else LIVE
    text = f"{_NAMES[where]} was refused a target of {target:g}: {_meaning(reason)}; {_NAMES[other]} was not"
    return Reason(Cause.SIGNAL, text, {"refused": reason, "refused_on": where, "target": target})


def is_near(difference: float, fill: Trade) -> bool:
    """Whether it is no more than the rounding of a float."""
    return abs(difference) <= MONEY_OFF + PART_OFF * fill.price * fill.quantity


def _fee_beyond(live: Trade, backtest: Trade) -> float:
    """What was paid live beyond the backtest's rate."""
    return live.fee - backtest.fee * (live.price * live.quantity) / (backtest.price * backtest.quantity)


def _other_fee(live: Trade, backtest: Trade) -> Reason:
    rates = [float(f"{each.fee / (each.price * each.quantity):.10g}") for each in (live, backtest)]
    amounts = f"{words.money(live.fee)} and not {words.money(backtest.fee)}"
    text = f"a fee of {amounts}: a rate of {words.amount(rates[0])} and not {words.amount(rates[1])}"
    return Reason(Cause.FEE, text, {"rate_live": rates[0], "rate_backtest": rates[1]})


def _other_size(case: Case, live: Trade, backtest: Trade) -> Reason:
    kind, value = case.plan.sizing
    why = {
        SizingKind.EQUITY_FRACTION: "the accounts were not worth the same",
        SizingKind.QUOTE_AMOUNT: "what it pays for, or was held before, differs",
        SizingKind.QUANTITY: "what was held before differs",
    }[kind]
    text = f"{_past(live)} {words.amount(live.quantity)} and not {words.amount(backtest.quantity)}: {why}"
    return Reason(Cause.QUANTITY, text, {"sizing": f"{kind} {value}"})


def _other_profit(live: Trade, backtest: Trade) -> Reason:
    text = f"realised {words.money(live.pnl)} and not {words.money(backtest.pnl)} by the same fill"
    return Reason(Cause.PROFIT, text, {"pnl_live": live.pnl, "pnl_backtest": backtest.pnl})


def _other_time(case: Case, live: Trade, backtest: Trade) -> Reason:
    later_ms = live.timestamp - backtest.timestamp
    when = f"{words.duration(abs(later_ms))} {'later' if later_ms > 0 else 'earlier'}"
    text = f"{_past(live)} {when}, at {_clock(live.timestamp, backtest.timestamp)}{_at_price(live, backtest)}"
    where, first = (LIVE, backtest) if later_ms > 0 else (DATA, live)
    hole = case.hole(where, live.symbol, first.timestamp) or case.silence(where, live.symbol, live.timestamp)
    # Whoever is later by more than a bar had the prices to decide in time, and has decided otherwise.
    parted = not hole and not case.in_one_bar(live.timestamp, backtest.timestamp)
    if parted and (found := _other_bars(case, first.symbol, first.timestamp, f"live {text}")):
        return found
    details: dict[str, Any] = {"seconds_later": later_ms / 1000}
    if hole:
        text += f"; {_NOTHING[where]} {_between(hole, live.timestamp)}"
        details |= _edges(where, hole)
    return Reason(Cause.TIME, text, details)


def _at_price(live: Trade, backtest: Trade) -> str:
    if live.price == backtest.price:
        return f" and the same price of {words.price(live.price)}"
    return f" for {words.price(live.price)} and not {words.price(backtest.price)}"


def _other_price(case: Case, live: int, backtest: int) -> Reason:
    """What the fill cost more, split: its distance from the last price, how far that was from the backtest's, and what
    slippage and rounding made of it."""
    mine, other = case.live.trades[live], case.backtest.trades[backtest]
    sign = 1 if mine.side is OrderSide.BUY else -1
    spreads, lasts = [], []
    for side, row in ((case.live, live), (case.backtest, backtest)):
        place = side.filled[row]
        quotes = side.asked.quotes
        quote = (quotes.ask if sign > 0 else quotes.bid)[place]
        spreads.append(float(sign * (quote - quotes.last[place])))
        lasts.append(float(quotes.last[place]))
    whole = sign * (mine.price - other.price)
    parts = {"spread": spreads[0] - spreads[1], "movement": sign * (lasts[0] - lasts[1])}
    parts["slippage"] = whole - parts["spread"] - parts["movement"]
    costs = {name: part * other.quantity for name, part in parts.items()}
    told = [f"{words.money(cost)} {name}" for name, cost in costs.items() if not is_near(cost, mine)]
    text = f"{_past(mine)} at {words.price(mine.price)} and not {words.price(other.price)}"
    return Reason(Cause.PRICE, f"{text}: {', '.join(told)}" if told else text, {"cost": costs})


def _no_prices(where: str, hole: Hole, near_ms: int, then: str) -> Reason:
    return Reason(Cause.MISSING_DATA, f"{_NOTHING[where]} {_between(hole, near_ms)}, {then}", _edges(where, hole))


def _wanted_before(case: Case, where: str, wanted: Signal | None, target: float, fill: Trade) -> Reason:
    """The other side had that target already: why is told by where the two parted, which is where it began to want it,
    or where this side wanted something else meanwhile."""
    other = DATA if where == LIVE else LIVE
    symbol, near_ms, since_ms = fill.symbol, fill.timestamp, wanted.timestamp if wanted else 0
    before = case.side(where).last_signal(case.symbols.index(symbol), near_ms - 1)
    late, parted_ms = where, since_ms
    did = f"{_NAMES[where]} {_done(fill)}"
    text = f"{_NAMES[other]} had wanted {target:g} {f'since {_clock(since_ms, near_ms)}' if wanted else 'before'}"
    if before and before.timestamp > since_ms:
        late, parted_ms = other, before.timestamp
        text = f"{text}, {_NAMES[where]} {before.target:g} since {_clock(parted_ms, near_ms)}"
    if hole := case.hole(late, symbol, parted_ms):
        return _no_prices(late, hole, near_ms, f"{text}; {did}")
    if wanted and wanted.reason:
        text = f"{text} ({_meaning(wanted.reason)})"
    elif found := _other_bars(case, symbol, parted_ms, f"{text}; {did}"):
        return found
    details = {"target": target, "wanted_since": iso8601(since_ms) if wanted else None}
    return Reason(Cause.SIGNAL, f"{text}; {did}", details)


def _decided_otherwise(case: Case, where: str, fill: Trade) -> Reason:
    only = f"only {_NAMES[where]} {_done(fill)}"
    if found := _other_bars(case, fill.symbol, fill.timestamp, only):
        return found
    if case.candles is None:
        return Reason(Cause.SIGNAL, only, {})
    why = "both saw the same bars, and an earlier gap has parted them"
    if case.timeframe is None:
        why = "live decides on ticks, the backtest on candles"
    return Reason(Cause.SIGNAL, f"{only}: {why}", {})


def _other_bars(case: Case, symbol: str, near_ms: int, then: str) -> Reason | None:
    """The bars that led to a decision at a time, where the two sides had not the same ones."""
    found = case.difference(symbol, near_ms)
    if isinstance(found, Lacking):
        what = "live has no bar" if found.where == LIVE else "the data has no bar"
        times = f"of {_clock(found.first_ms, near_ms)}"
        if found.missing > 1:
            times += f" and {found.missing - 1:,} more up to {_clock(found.last_ms, near_ms)}"
        edges = {"missing_from": iso8601(found.first_ms), "missing_to": iso8601(found.last_ms)}
        text = f"{what} {times}, which {case.plan.strategy.name} looks back on; {then}"
        return Reason(Cause.MISSING_DATA, text, {"missing_on": found.where, **edges, "bars": found.missing})
    if isinstance(found, Differing):
        prices = f"{found.price} {words.price(found.live)} live, {words.price(found.data)} in the data"
        more = f" ({found.differing:,} of {found.bars:,} bars differ)" if found.bars > 1 else ""
        numbers = {"price": found.price, "live": found.live, "data": found.data, "bars_differing": found.differing}
        text = f"bar of {_clock(found.open_ms, near_ms)}: {prices}{more}; {then}"
        return Reason(Cause.SIGNAL, text, {"bar": iso8601(found.open_ms), **numbers})
    return None


def _edges(where: str, hole: Hole) -> dict[str, Any]:
    first, end = (None if edge is None else iso8601(edge) for edge in hole)
    return {"missing_on": where, "missing_from": first, "missing_to": end}


def _between(hole: Hole, near_ms: int) -> str:
    first = "the beginning" if hole.after_ms is None else _clock(hole.after_ms, near_ms)
    return f"from {first} to {'the end' if hole.until_ms is None else _clock(hole.until_ms, near_ms)}"


def _meaning(reason: str) -> str:
    return f"{reason} ({REASONS[reason]})" if reason in REASONS else reason


def _past(fill: Trade) -> str:
    return "bought" if fill.side is OrderSide.BUY else "sold"


def _done(fill: Trade) -> str:
    return f"{_past(fill)} {words.amount(fill.quantity)} at {words.price(fill.price)}"


def _clock(time: int, near_ms: int) -> str:
    """The time of day, with the day where it is another one than that of a moment."""
    day, clock = iso8601(time)[:10], iso8601(time)[11:-1].removesuffix(".000")
    return clock if day == iso8601(near_ms)[:10] else f"{day} {clock}"
