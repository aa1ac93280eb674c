"""Value faults: what they do to one symbol's ticker before it becomes JSON."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from decimal import Decimal
from typing import Any

from tests.exchange.faults import VALUES, Active
from tests.exchange.log import Quote

# A ticker on its way: symbol, id, bid, ask, last, open, high, low, change (decimals as text) and at_ms.
Wire = dict[str, Any]
QUOTED = ("bid", "ask", "last")
PRICES = (*QUOTED, "open", "high", "low")

STALE_MS = 600_000
FUTURE_MS = 3_600_000
BACKWARDS_MS = 30_000
CROSSED_BY = Decimal("0.01")

# Bid and ask, or last, are still true: such a quote is valid, with None for what it lacks.
LOSSES = {"last_null": ("last",), "last_zero": ("last",), "no_bidask": ("bid", "ask")}
TEXTS = {"price_inf": "Infinity", "price_nan": "NaN", "price_text": "n/a", "price_zero": "0", "price_null": None}
FACTORS = {"price_absurd": Decimal(1000), "price_tiny": Decimal("0.001"), "price_negative": Decimal(-1)}


def quote_of(wire: Wire, has: Collection[str]) -> Quote:
    return Quote(*(wire[name] if name in has else None for name in QUOTED))


def spoil(
    wire: Wire, faults: Sequence[Active], has: Collection[str], past: Callable[[], Wire]
) -> tuple[Wire | None, Quote, str]:
    """The ticker as it will be served (None: it is missing), its quote, and the fault that made it wrong or ''.

    ``has`` names what the endpoint shows; a fault that changes nothing of it does nothing. ``past`` computes the
    ticker of ``BACKWARDS_MS`` ago.
    """
    quote, blame = quote_of(wire, has), ""
    for active in faults:
        name = active.fault.name
        if name not in VALUES or not active.fault.concerns(wire["symbol"]):
            continue
        if name == "missing_symbol":
            return None, quote, name
        before = {key: wire[key] for key in has}
        _apply(wire, active, past)
        if all(wire[key] == before[key] for key in has):
            continue
        lost = [part for part in LOSSES.get(name, ()) if part in has]
        quote = quote_of(wire, has)
        if lost:
            quote = Quote(*(None if part in lost else getattr(quote, part) for part in QUOTED))
        else:
            blame = name
    return wire, quote, blame


def _apply(wire: Wire, active: Active, past: Callable[[], Wire]) -> None:
    name = active.fault.name
    if name in TEXTS:
        wire.update(dict.fromkeys(PRICES, TEXTS[name]))
    elif name in FACTORS:
        wire.update({key: str(Decimal(wire[key]) * FACTORS[name]) for key in PRICES})
    elif name in {"frozen", "backwards_ts"}:
        _remember(wire, active, past)
    else:
        EFFECTS[name](wire)


def _remember(wire: Wire, active: Active, past: Callable[[], Wire]) -> None:
    """frozen: the first ticker for ever. backwards_ts: every other one is an old one, as from a replica that lags."""
    symbol = wire["symbol"]
    if active.fault.name == "frozen":
        wire.update(active.memory.setdefault(symbol, dict(wire)))
        return
    active.memory[symbol] = odd = not active.memory.get(symbol, True)
    if odd:
        wire.update(past())


def _crossed(wire: Wire) -> None:
    bid, ask = Decimal(wire["bid"]), Decimal(wire["ask"])
    wire.update(bid=str(ask * (1 + CROSSED_BY)), ask=str(bid * (1 - CROSSED_BY)))


def _at(change: Callable[[int], int | None]) -> Callable[[Wire], None]:
    def effect(wire: Wire) -> None:
        wire["at_ms"] = change(wire["at_ms"])

    return effect


def _set(**values: Any) -> Callable[[Wire], None]:
    return lambda wire: wire.update(values)


EFFECTS: dict[str, Callable[[Wire], None]] = {
    "crossed": _crossed,
    "locked": lambda wire: wire.update(bid=wire["last"], ask=wire["last"]),
    "last_null": _set(last=None),
    "last_zero": _set(last="0"),
    "no_bidask": _set(bid=None, ask=None),
    "price_empty": _set(bid="", ask="", last=""),  # open stays: ccxt then invents a last
    "wrong_symbol": _set(id="WRONGUSDT"),
    "null_ts": _at(lambda at: None),
    "sec_ts": _at(lambda at: at // 1000),
    "stale_ts": _at(lambda at: at - STALE_MS),
    "future_ts": _at(lambda at: at + FUTURE_MS),
}
