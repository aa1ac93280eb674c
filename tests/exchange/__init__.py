"""A fake exchange on loopback: Binance's and Kraken's public REST, spoken to by the unmodified ccxt client."""

from tests.exchange.faults import Fault
from tests.exchange.handle import FakeExchange, running_exchange
from tests.exchange.log import Quote, Request
from tests.exchange.prices import Market, Prices, markets

__all__ = ["FakeExchange", "Fault", "Market", "Prices", "Quote", "Request", "markets", "running_exchange"]
