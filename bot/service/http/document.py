"""The state of the daemon as one document: what /api/status answers and the page follows. From memory alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from bot import __version__
from bot.domain import iso8601
from bot.service.inspect import Document
from bot.service.plain import printable
from bot.service.stalls import Stalls
from bot.service.vitals import Vitals


def feed_state(vitals: Vitals) -> Iterator[Document]:
    """Each watched symbol with its last price and how old that is; None for one that had none since the start.

    Ages are those of the last step and what the price was behind it: right on any clock that the loop may have.
    """
    age_s = vitals.health().age_s
    for symbol in dict.fromkeys((*vitals.symbols, *vitals.seen)):
        price, seen_ms = vitals.seen.get(symbol, (None, 0))
        behind_s = None if price is None or age_s is None else age_s + (vitals.timestamp - seen_ms) / 1000
        yield {
            "symbol": symbol,
            "price": price,
            "age_s": None if behind_s is None else round(behind_s, 3),
            "stale": behind_s is None or behind_s > vitals.stale_after_s,
        }


def state(vitals: Vitals, stalls: Stalls | None, ledger: Path) -> Document:
    """What `paperloop status --json` says, in its words, as the daemon itself knows it, and its health."""
    now_ms = vitals.clock.now_ms()
    health, feed = vitals.health(), list(feed_state(vitals))
    outage_ms = vitals.outage_since_ms
    return {
        # A name on the disk need not be text that JSON can hold.
        "ledger": printable(str(ledger)),
        "running": True,
        "pid": os.getpid(),
        "version": __version__,
        "started_at": iso8601(vitals.started_ms),
        "uptime_s": round(max(0, now_ms - vitals.started_ms) / 1000, 3),
        "health": health.document,
        "data_age_s": health.document["age_s"],
        "stale": not health.alive,
        "stale_after_s": vitals.stale_after_s,
        "polls": vitals.polls,
        "ticks": vitals.ticks,
        "signals": vitals.signals,
        "trades": vitals.trades,
        "digest": vitals.digest,
        "last_price_at": iso8601(vitals.timestamp) if vitals.polls else None,
        "prices": {each["symbol"]: each["price"] for each in feed if each["price"] is not None},
        "accounts": vitals.accounts,
        "feed": feed,
        "feed_counts": {name: count for name, count in vitals.feed_counts().items() if count},
        "clock_events": dict(vitals.clock_events),
        "interruptions": dict(vitals.interruptions),
        "refusals": dict(vitals.refusals),
        "outage_s": None if outage_ms is None else round(max(0, now_ms - outage_ms) / 1000, 3),
        "last_trouble": None if vitals.trouble is None else vitals.trouble.document,
        "loop": None if stalls is None else {"lag_s": round(stalls.lag_s, 6), "blocked": stalls.count},
    }


def positions(vitals: Vitals) -> list[Document]:
    return [
        {"account": account["account"], "currency": account["currency"], **position}
        for account in vitals.accounts
        for position in account["positions"]
    ]
