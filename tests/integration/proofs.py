"""What a ledger must be able to show after whatever happened to its daemon, and what the daemon said of it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from bot import proof
from tests.integration.daemon import rows


def audited(ledger: Path) -> dict[str, Any]:
    """What ``paperloop audit`` says, but for the ledger's name."""
    document = asyncio.run(proof.audited(ledger))
    return {key: value for key, value in document.items() if key not in {"ledger", "seals"}}


def verified(ledger: Path) -> bool:
    """Whether ``paperloop verify`` finds that the tape leads to the very rows that are in the ledger."""
    return bool(asyncio.run(proof.verified(ledger))["ok"])


def said(log: Path) -> list[dict[str, Any]]:
    """The events of a daemon's log so far; its last line may not be whole yet, or never."""
    lines = log.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines if line.startswith("{")]


def said_of(log: Path, *events: str) -> list[dict[str, Any]]:
    return [event for event in said(log) if event["event"] in events]


def unkept(ledger: Path, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Reported trades and refusals that are not in the file, or not as they were reported."""
    trades = rows(ledger, "SELECT id, account, symbol, side, price, quantity FROM trades")
    refused = rows(ledger, "SELECT id, account, symbol, target, reason FROM signals WHERE verdict = 'refused'")
    kept = {row[0]: (*row[1:4], float(row[4]), float(row[5])) for row in trades}
    kept |= {row[0]: row[1:] for row in refused}
    columns = {
        "trade": ("account", "symbol", "side", "price", "amount"),
        "signal refused": ("account", "symbol", "target", "reason"),
    }
    reported = [event for event in events if event["event"] in columns]
    return [e for e in reported if kept.get(e["id"]) != tuple(e[name] for name in columns[e["event"]])]
