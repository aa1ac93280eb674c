"""At what price a paper order fills. Every model names its inputs, so that a recorded fill can be derived again."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from bot.domain import OrderSide, to_decimal

_BASIS_POINT = Decimal("0.0001")
# What an executor that is used without a loop, and so without prices, fills at.
_SIMULATED = {"BTC": Decimal(50_000), "ETH": Decimal(3_000)}
_SIMULATED_OTHER = Decimal(100)


def touch_price(side: OrderSide, bid: float, ask: float, slippage_bps: Decimal, price_step: Decimal) -> Decimal:
    """A market order takes the other side's quote: the ask for a buy, the bid for a sell.

    Slippage moves the price against the order, rounded to the next whole step in that direction; a sale below the first
    step takes that step, or the quote if it is lower still.
    """
    buying = side is OrderSide.BUY
    quote = to_decimal(ask if buying else bid)
    if not slippage_bps:
        return quote
    slipped = quote * (1 + slippage_bps * _BASIS_POINT if buying else 1 - slippage_bps * _BASIS_POINT)
    steps = (slipped / price_step).to_integral_value(ROUND_CEILING if buying else ROUND_FLOOR)
    price = max(steps, Decimal(1)) * price_step
    return price if buying else min(price, quote)


def simulated_price(symbol: str) -> Decimal:
    """A fixed price by base currency: BTC 50,000, ETH 3,000, all others 100."""
    return _SIMULATED.get(symbol.partition("/")[0].upper(), _SIMULATED_OTHER)
