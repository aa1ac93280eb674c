"""An event loop on which time is a number: nobody waits, and the seed decides what happens first."""

from __future__ import annotations

import asyncio
import selectors
from collections import deque
from collections.abc import Coroutine
from typing import Any, TypeVar

from tests.simulation.chance import Chance

T = TypeVar("T")


class Deadlock(Exception):
    """Everybody waits for somebody, and no timer is set."""


class _Jump(selectors.SelectSelector):
    """Where a loop would sleep until its next timer, time jumps there. Sockets are registered and never asked."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise Deadlock
        self.now += max(timeout, 0.0)
        return []


class SimulatedLoop(asyncio.SelectorEventLoop):
    """Callbacks that are ready at the same time run in an order that the seed gives. No threads."""

    _ready: deque[asyncio.Handle]

    def __init__(self, chance: Chance | None = None) -> None:
        self._jump, self._chance = _Jump(), chance
        super().__init__(self._jump)

    def time(self) -> float:
        return self._jump.now

    def advance(self, seconds: float) -> None:
        """The process stands still for so long: all timers of that time are due when it goes on."""
        self._jump.now += seconds

    def _run_once(self) -> None:
        if self._chance is not None and len(self._ready) > 1:
            order = self._chance.shuffled(list(self._ready))
            self._ready.clear()
            self._ready.extend(order)
        super()._run_once()  # type: ignore[misc]

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """An error that nobody is there to see is one that the simulation must not miss."""
        error = context.get("exception")
        raise error if isinstance(error, BaseException) else RuntimeError(context["message"])


def simulate(main: Coroutine[Any, Any, T], loop: SimulatedLoop | None = None) -> T:
    with asyncio.Runner(loop_factory=lambda: loop or SimulatedLoop()) as runner:
        return runner.run(main)


async def passed(seconds: float) -> None:
    """Returns after so much simulated time."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    timer = loop.call_later(seconds, done.set_result, None)
    try:
        await done
    finally:
        timer.cancel()
