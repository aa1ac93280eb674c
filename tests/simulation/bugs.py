"""Mistakes as somebody might make them, each of another kind: the simulation must find every one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from decimal import Decimal
from itertools import count
from typing import Any

from bot.domain import ZERO, Account, Block, OrderSide, Signal
from bot.engine import Decision, Engine, LoopState, Moments, OrderRequest, Plan
from bot.execution import MockExecutor
from bot.feeds.screen import Screen
from bot.loop import TradingLoop
from bot.repositories import SignalRepository, TickRepository, TradeRepository
from tests.simulation.daemon import Parts


class CacheBeforeCommit(TradingLoop):
    """What a failed commit has moved in memory stays moved."""

    async def _reload(self) -> None:
        pass


class LostCursor(TradingLoop):
    """The cursor stays where it was when a block trades."""

    async def _execute(self, decision: Decision) -> list[tuple[Signal, dict[str, Any] | str]]:
        outcomes = await super()._execute(decision)
        self._cursor.polls -= decision.polls * bool(outcomes)
        return outcomes


class ToldBeforeCommit(TradingLoop):
    """A trade is reported when it is made, which is before it is in the ledger."""

    async def _execute(self, decision: Decision) -> list[tuple[Signal, dict[str, Any] | str]]:
        for signal, outcome in await super()._execute(decision):
            if isinstance(outcome, str):
                self._observer.refused(signal, outcome)
            else:
                self._observer.filled(signal, outcome)
        return []


class TriedAgain(TradingLoop):
    """A step that takes too long is given up and done once more, though the file may have it."""

    async def step(self, block: Block) -> None:
        try:
            async with asyncio.timeout(1):
                await super().step(block)
        except TimeoutError:
            await super().step(block)


class StatelessStart(TradingLoop):
    """The windows are not filled from the tape at a start."""

    async def _read_tape(self) -> None:
        times, prices = self.state.times, self.state.prices
        await super()._read_tape()
        self.state.times, self.state.prices = times, prices


class BarlessStart(TradingLoop):
    """The bars are not filled from the tape at a start."""

    async def _read_tape(self) -> None:
        empty = self.state.candles
        await super()._read_tape()
        self.state.candles = empty


class AheadOfTheFile(TradingLoop):
    """What a failed step has seen stays in the windows and in the bars."""

    async def step(self, block: Block) -> None:
        decision = self._engine.decide(self.state, block, self._cursor.polls + 1, self._cursor.decisions + 1)
        try:
            await super().step(block)
        except BaseException:
            self.state.advance(decision)
            raise


class ForgottenTargets(LoopState):
    """After a start every target is flat, whatever was wanted before."""

    def restore_targets(self, plans: Sequence[Plan], stored: Mapping[tuple[str, str], float]) -> None:
        pass


class OldPrices(Screen):
    """However old a quote is, it is taken."""

    def __init__(self, symbols: Sequence[str], **options: Any) -> None:
        super().__init__(symbols, **options | {"stale_after_ms": 10**10})


class AbsurdPrices(Screen):
    """Whatever is a number is a price."""

    def __init__(self, symbols: Sequence[str], **options: Any) -> None:
        super().__init__(symbols, **options, confirmations=0)


class DisorderedPrices(Screen):
    """A quote that comes after a newer one is taken."""

    def block(self, beat_ms: int, quotes: Mapping[str, Any], now_ms: int | None = None) -> Block:
        for memory in self._memory.values():
            memory.timestamp = None
        return super().block(beat_ms, quotes, now_ms)


class DoubleFill(MockExecutor):
    """One order in fifty is booked twice."""

    async def execute_order(
        self, symbol: str, side: OrderSide, quantity: Any, *rest: Any, **more: Any
    ) -> dict[str, Any]:
        order = await super().execute_order(symbol, side, quantity, *rest, **{**more, "told": True})
        if order["info"]["trade_db_id"] % 50 == 0:
            self._account.position(symbol).apply_fill(side, Decimal(quantity), Decimal(str(order["price"])))
        return order


class ForgottenFee(MockExecutor):
    """The fee is in the trade, and does not leave the account."""

    def _book(
        self, symbol: str, side: OrderSide, amount: Decimal, price: Decimal, cost: Decimal, fee: Decimal
    ) -> Decimal:
        return super()._book(symbol, side, amount, price, cost, ZERO)


class SilentRefusal(SignalRepository):
    """A signal that leads to no order is not worth a row."""

    def add_refused(self, signal: Signal, reason: str) -> None:
        pass


class EagerTape(TickRepository):
    """Prices are written at once, and not together with what they led to."""

    async def add(self, block: Block, first_poll: int) -> None:
        await super().add(block, first_poll)
        for insert, values in self._database._buffers.items():
            if values is self._rows:
                await self._database.insert(insert, list(values))
        self._rows.clear()


class NewOrderIds(TradeRepository):
    """Every try has an order id of its own."""

    tries = count(0x7061706C_6F6F_8000_9000_000000000000)

    def add(self, decision: tuple[Any, ...]) -> None:
        text = f"{next(self.tries):032x}"
        identity = "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
        super().add((*decision[:9], identity, *decision[10:]))


class Moody(Engine):
    """What is ordered depends on how often this process was asked, which no tape tells."""

    asked = 0

    def order_for(self, signal: Signal, account: Account, marks: Moments) -> OrderRequest | str:
        self.asked += 1
        request = super().order_for(signal, account, marks)
        if isinstance(request, str) or self.asked % 20:
            return request
        return request._replace(quantity=request.quantity * 2)


BUGS: dict[str, Parts] = {
    "cache before commit": Parts(loop=CacheBeforeCommit),
    "lost cursor": Parts(loop=LostCursor),
    "told before commit": Parts(loop=ToldBeforeCommit),
    "tried again though unclear": Parts(loop=TriedAgain),
    "windows not restored": Parts(loop=StatelessStart),
    "bars not restored": Parts(loop=BarlessStart),
    "windows ahead of the file": Parts(loop=AheadOfTheFile),
    "targets not restored": Parts(state=ForgottenTargets),
    "stale price": Parts(screen=OldPrices),
    "absurd price": Parts(screen=AbsurdPrices),
    "price out of order": Parts(screen=DisorderedPrices),
    "double fill": Parts(executor=DoubleFill),
    "fee forgotten": Parts(executor=ForgottenFee),
    "refusal not recorded": Parts(signals=SilentRefusal),
    "ticks committed apart": Parts(ticks=EagerTape),
    "order id of the try": Parts(trades=NewOrderIds),
    "not a function of the tape": Parts(engine=Moody),
}
