"""A comparison as a document that JSON can hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bot.backtest.compare.causes import Cause
from bot.backtest.compare.comparison import Compared, Gap
from bot.backtest.trades import Trade
from bot.domain import iso8601

Document = dict[str, Any]


def document(
    found: Sequence[Compared], *, ledger: str, against: Sequence[str], notes: Sequence[str], limit: int
) -> Document:
    """``against`` names the data, nothing: the ledger's own tape. Of the gaps the first ``limit`` are told one by one.

    Effects, and the difference of the profits, are what the live side earned more.
    """
    gaps = sorted(
        ((gap, each) for each in found for gap in each.gaps), key=lambda pair: (pair[0].timestamp, pair[1].account.name)
    )
    return {
        "ok": not gaps,
        "ledger": ledger,
        "against": list(against),
        "from": iso8601(min(each.start_ms for each in found)) if found else None,
        "to": iso8601(max(each.end_ms for each in found) - 1) if found else None,
        "trades_live": sum(len(each.live.trades) for each in found),
        "trades_backtest": sum(len(each.backtest.trades) for each in found),
        "trades_same": sum(each.same for each in found),
        "gaps": len(gaps),
        "money": [_money(name, found) for name in sorted({each.account.currency for each in found})],
        "accounts": [_account(each) for each in found],
        "notes": list(notes),
        "first_gaps": [_gap(gap, each) for gap, each in gaps[:limit]],
    }


def _money(currency: str, found: Sequence[Compared]) -> Document:
    mine = [each for each in found if each.account.currency == currency]
    gaps = [gap for each in mine for gap in each.gaps]
    causes = []
    for cause in Cause:
        effects = [gap.effect for gap in gaps if gap.reason.cause is cause]
        if effects:
            causes.append({"cause": cause.value, "gaps": len(effects), "effect": sum(effects)})
    live, backtest = sum(each.profit_live for each in mine), sum(each.profit_backtest for each in mine)
    return {
        "currency": currency,
        "gaps": len(gaps),
        "causes": causes,
        "open_positions": sum(each.left for each in mine),
        "profit_live": live,
        "profit_backtest": backtest,
        "difference": live - backtest,
    }


def _account(each: Compared) -> Document:
    return {
        "account": each.account.name,
        "strategy": each.strategy,
        "timeframe": each.timeframe,
        "from": iso8601(each.start_ms),
        "to": iso8601(each.end_ms - 1),
        "trades_live": len(each.live.trades),
        "trades_backtest": len(each.backtest.trades),
        "trades_same": each.same,
        "gaps": len(each.gaps),
        "refused_live": each.live.refused,
        "refused_backtest": each.backtest.refused,
        "profit_live": each.profit_live,
        "profit_backtest": each.profit_backtest,
        "difference": each.profit_live - each.profit_backtest,
        "currency": each.account.currency,
    }


def _gap(gap: Gap, each: Compared) -> Document:
    return {
        "timestamp": gap.timestamp,
        "datetime": iso8601(gap.timestamp),
        "account": each.account.name,
        "symbol": gap.symbol,
        "side": gap.side and gap.side.value,
        "cause": gap.reason.cause.value,
        "text": gap.reason.text,
        "details": dict(gap.reason.details),
        "effect": gap.effect,
        "currency": each.account.currency,
        "live": _trade(gap.live),
        "backtest": _trade(gap.backtest),
    }


def _trade(trade: Trade | None) -> Document | None:
    if trade is None:
        return None
    return {**trade._asdict(), "side": trade.side.value, "datetime": iso8601(trade.timestamp)}
