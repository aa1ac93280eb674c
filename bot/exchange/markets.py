"""From ccxt's unified market to a ``Market``."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from bot.domain import AMOUNT_LIMIT, DECIMALS_MAX, MONEY, ZERO, Market, plain, to_decimal

# ccxt's precisionMode (ccxt/base/decimal_to_precision.py), spelled out here because importing ccxt takes a second.
DECIMAL_PLACES = 2
SIGNIFICANT_DIGITS = 3
TICK_SIZE = 4

_SMALLEST_STEP = Decimal("1e-8")
_LAST_DECIMAL = Decimal(1).scaleb(-DECIMALS_MAX)


def market_of(market: Mapping[str, Any], precision_mode: int) -> Market:
    """The market as orders are judged by it. Raises ValueError that names the symbol and the field.

    Numbers may be float, int, text or Decimal, whatever ccxt was told to use. A precision that is not there is a step
    of 1e-8. A limit of zero is none: binance writes one where a filter is switched off. Amounts of contracts become
    amounts of the base currency.
    """
    symbol = market.get("symbol")
    if not isinstance(symbol, str) or not symbol:
        raise ValueError(f"symbol must be text, got {symbol!r}")
    read = _Reader(symbol, market)
    size = read.contract_size()
    least = [each for field in ("amount", "market") if (each := read.limit(f"limits.{field}.min", size)) is not None]
    return Market(
        symbol,
        price_step=read.price_step(precision_mode),
        amount_step=read.amount_step(precision_mode, size),
        # Every order is a market order, which both bounds are for.
        min_amount=max(least, default=None),
        min_cost=read.limit("limits.cost.min"),
        max_amount=read.limit("limits.amount.max", size),
        max_cost=read.limit("limits.cost.max"),
        max_market_amount=read.limit("limits.market.max", size),
        taker=read.rate("taker"),
        maker=read.rate("maker"),
    )


class _Reader:
    def __init__(self, symbol: str, market: Mapping[str, Any]) -> None:
        self._symbol, self._market = symbol, market

    def contract_size(self) -> Decimal:
        """How much of the base currency a unit of amount is; 1 where there are no contracts."""
        if self._market.get("inverse") is True:
            raise ValueError(f"{self._symbol}: inverse: contracts that are paid in the base currency cannot be booked")
        size = self._number("contractSize") if self._market.get("contract") else None
        if size == 0:
            raise self._wrong("contractSize", "must be above zero")
        return Decimal(1) if size is None else size

    def price_step(self, mode: int) -> Decimal:
        # So many significant digits are no fixed step.
        return _SMALLEST_STEP if mode == SIGNIFICANT_DIGITS else self._step("precision.price", mode)

    def amount_step(self, mode: int, size: Decimal) -> Decimal:
        # The exchanges of ccxt that count significant digits of prices count decimals of amounts.
        return self._step("precision.amount", DECIMAL_PLACES if mode == SIGNIFICANT_DIGITS else mode) * size

    def limit(self, field: str, size: Decimal = Decimal(1)) -> Decimal | None:
        number = self._number(field)
        return number * size if number else None

    def rate(self, field: str) -> Decimal | None:
        """A rebate is taken for no fee: on paper nobody earns by trading."""
        given = _decimal(self._value(field))
        if given is not None and given.is_finite() and given < 0:
            return ZERO
        number = self._number(field)
        if number is not None and number >= 1:
            raise self._wrong(field, "must be less than 1")
        return number

    def _step(self, field: str, mode: int) -> Decimal:
        number = self._number(field)
        if number is None:
            return _SMALLEST_STEP
        if mode == TICK_SIZE:
            if not number:
                raise self._wrong(field, "must be above zero")
            return number
        if mode != DECIMAL_PLACES:
            raise ValueError(f"{self._symbol}: {field}: there is no precision mode {mode!r}")
        if number % 1 or number > DECIMALS_MAX:
            raise self._wrong(field, f"must be a whole number of decimals, at most {DECIMALS_MAX}")
        return Decimal(1).scaleb(-int(number))

    def _number(self, field: str) -> Decimal | None:
        """In one spelling, to the last decimal that is booked. What is beyond all amounts is the end of them."""
        value = self._value(field)
        if value is None:
            return None
        number = _decimal(value)
        if number is None or not number.is_finite():
            raise self._wrong(field, "must be a number")
        if number < 0:
            raise self._wrong(field, "must not be negative")
        if number >= AMOUNT_LIMIT:
            return AMOUNT_LIMIT
        # A float may be the product of two: 0.1 * 0.003 is 0.00030000000000000003.
        return Decimal(plain(number.quantize(_LAST_DECIMAL, context=MONEY).normalize(MONEY)))

    def _value(self, field: str) -> Any:
        """None where any table on the way is missing."""
        found: Any = self._market
        for key in field.split("."):
            if found is None:
                return None
            if not isinstance(found, Mapping):
                raise ValueError(f"{self._symbol}: {field} must be in tables, got {found!r}")
            found = found.get(key)
        return found

    def _wrong(self, field: str, what: str) -> ValueError:
        return ValueError(f"{self._symbol}: {field} {what}, got {self._value(field)!r}")


def _decimal(value: Any) -> Decimal | None:
    match value:
        case bool():
            return None
        case float():
            return to_decimal(value)
        case int() | Decimal():
            return Decimal(value)
        case str():
            try:
                return Decimal(value)
            except InvalidOperation:
                return None
        case _:
            return None
