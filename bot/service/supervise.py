"""Tasks beside the loop: they cannot trade, and they cannot die unseen."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from structlog.typing import FilteringBoundLogger

# What makes the work: nothing is left over where a task is cancelled before it begins.
Work = Callable[[], Awaitable[object]]


class SideTasks:
    """Owns every task beside the loop. One that ends before the block does is logged and stops the daemon; ``died``
    then says which, and why. At the end of the block they are cancelled and waited for."""

    def __init__(self, log: FilteringBoundLogger, stop: Callable[[], object]) -> None:
        self._log, self._stop = log, stop
        self._group = asyncio.TaskGroup()
        self._tasks: list[asyncio.Task[None]] = []
        self._ending = False
        self.died: str | None = None

    def start(self, name: str, work: Work) -> None:
        group = self._group
        self._tasks.append(group.create_task(self._watched(name, work), name=name))

    async def _watched(self, name: str, work: Work) -> None:
        try:
            await work()
            self._ended(f"{name} ended")
        except asyncio.CancelledError:
            if self._ending:
                raise
            # By something inside of it: a group takes that for an end that somebody wanted.
            self._ended(f"{name} was cancelled")
        except Exception as error:  # noqa: BLE001 - whatever it is, the loop is stopped in good order
            self._ended(f"{name} died: {type(error).__name__}: {error}", error)

    def _ended(self, told: str, error: Exception | None = None) -> None:
        self._log.error("a side task ended, so the daemon stops", task=told, exc_info=error)
        # The first is the cause: others may end because of it.
        self.died = self.died or told
        self._stop()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending = True
        for task in self._tasks:
            task.cancel()
        # What the block raised goes on as it is: a group would wrap it.
        cancelled = error if isinstance(error, asyncio.CancelledError) else None
        await self._group.__aexit__(type(cancelled) if cancelled else None, cancelled, None)
