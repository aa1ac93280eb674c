"""What an executor fills at that is used without a loop, and so without prices."""

from __future__ import annotations

from decimal import Decimal

_PRICES = {"BTC": Decimal(50_000), "ETH": Decimal(3_000)}
_OTHER = Decimal(100)


def simulated_price(symbol: str) -> Decimal:
    """A fixed price by base currency: BTC 50,000, ETH 3,000, all others 100."""
    return _PRICES.get(symbol.partition("/")[0].upper(), _OTHER)
