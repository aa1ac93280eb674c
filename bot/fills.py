"""The arithmetic of one fill: at what price, for what fee, and whether the account can pay for it.

One place for the loop's executor and the backtester. Every model names its inputs, so that a recorded fill can be
derived again.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from bot.domain import UNKNOWN_FEE_RATE, ZERO, Account, Market, OrderSide, OrderType, to_decimal

INSUFFICIENT_CASH = "insufficient_cash"
INSUFFICIENT_MARGIN = "insufficient_margin"
BASIS_POINT = Decimal("0.0001")


@dataclass(frozen=True, slots=True)
class Terms:
    """What a venue takes: a fee as a rate of the cost, slippage in basis points of the quote.

    A ``fee_rate`` of None is that of each market: its ``taker`` rate for market orders, ``maker`` for limit orders.
    """

    fee_rate: Decimal | None = ZERO
    slippage_bps: Decimal = ZERO

    def fee_rate_of(self, market: Market | None, order_type: OrderType) -> Decimal:
        if self.fee_rate is not None:
            return self.fee_rate
        return UNKNOWN_FEE_RATE if market is None else market.fee_rate(order_type)


def touch_price(side: OrderSide, bid: float, ask: float, slippage_bps: Decimal, price_step: Decimal) -> Decimal:
    """A market order takes the other side's quote: the ask for a buy, the bid for a sell.

    Slippage moves the price against the order, rounded to the next whole step in that direction; a sale below the first
    step takes that step, or the quote if it is lower still.
    """
    buying = side is OrderSide.BUY
    quote = to_decimal(ask if buying else bid)
    if not slippage_bps:
        return quote
    slipped = quote * (1 + slippage_bps * BASIS_POINT if buying else 1 - slippage_bps * BASIS_POINT)
    steps = (slipped / price_step).to_integral_value(ROUND_CEILING if buying else ROUND_FLOOR)
    price = max(steps, Decimal(1)) * price_step
    return price if buying else min(price, quote)


def settle(
    account: Account, symbol: str, side: OrderSide, amount: Decimal, price: Decimal, cost: Decimal, fee: Decimal
) -> Decimal | str:
    """Moves position and cash and returns the realised profit; or the reason for which it moves nothing.

    Shorts are covered one to one: what they brought in, and as much again of the account's own money, cannot be spent.
    """
    position = account.position(symbol)
    held, basis = position.quantity, position.basis
    before = (held, basis, position.total_buys, position.total_sells)
    pnl = position.apply_fill(side, amount, price)
    cash = account.cash + (-cost if side is OrderSide.BUY else cost) - fee
    short_basis = account.short_basis
    if basis < 0 or position.basis < 0:
        short_basis += min(basis, ZERO) - min(position.basis, ZERO)
    if cash < 2 * short_basis and _opens(held, position.quantity):
        short = position.quantity < 0
        position.quantity, position.basis, position.total_buys, position.total_sells = before
        return INSUFFICIENT_MARGIN if short else INSUFFICIENT_CASH
    account.cash, account.short_basis = cash, short_basis
    return pnl


def _opens(held: Decimal, after: Decimal) -> bool:
    """Whether a fill makes a position larger or turns it round. One that only makes it smaller is always taken, so
    that nobody is locked into a loss."""
    return after != 0 and (not held or (after > 0) is not (held > 0) or abs(after) > abs(held))
