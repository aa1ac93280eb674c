"""All that looks at the loop and cannot trade: the log, the service manager, the endpoint, and their supervision."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from structlog.typing import FilteringBoundLogger

from bot.ports import Clock
from bot.reload import Reload
from bot.repositories import Retention
from bot.service.alerts import Alerts
from bot.service.journal import Journal
from bot.service.logs import Threshold
from bot.service.observers import Observers
from bot.service.stalls import Stalls
from bot.service.stop import StopSignals
from bot.service.stray import on_loop
from bot.service.supervise import SideTasks
from bot.service.systemd import Systemd
from bot.service.vitals import Vitals
from bot.settings import Settings

if TYPE_CHECKING:
    from bot.service.http.server import Server

HEARTBEAT_S = 60.0
HEARTBEAT_MAX_SPEED_S = 5.0


class Watch:
    """``observer`` is what the loop tells of its steps. Used as a block, from before anything is opened."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        log: FilteringBoundLogger,
        threshold: Threshold,
        clean: Callable[[str], str],
        token: str,
        *,
        virtual: bool,
    ) -> None:
        """``clock`` is the machine's; ``virtual``: the loop has another one, on which time does not pass by itself.
        ``threshold`` is that of ``log``; ``clean`` takes secrets out of a text; ``token`` is the endpoint's."""
        self._threshold, self._http, self._token = threshold, settings.http, token
        self._settings, self._clock, self.log, self.virtual = settings, clock, log, virtual
        strategies = {entry.account: entry.name for entry in settings.strategy}
        self.vitals = Vitals(clock, settings.stale_after_ms / 1000, strategies, settings.feed.symbols)
        heartbeat_s = HEARTBEAT_MAX_SPEED_S if virtual else HEARTBEAT_S
        self.journal = Journal(log, clock.monotonic, heartbeat_s, quiet=virtual)
        self.systemd = Systemd(self.vitals, clock, settings.feed.poll_interval_s)
        self._clean = clean
        self.observer = Observers([self.vitals, self.journal, self.systemd], log, self._clean)
        self._alerts: Alerts | None = None
        self._stack = ExitStack()

    def counts(self, counts: Callable[[], Mapping[str, int]]) -> None:
        """What the feed counts, for whoever tells it."""
        self.journal.feed_counts = self.vitals.feed_counts = counts

    def waiting(self, text: str, retry_s: float) -> None:
        """A start waits for its exchange."""
        text = self._clean(text)
        self.vitals.troubled("feed", text)
        self.systemd.waiting(text, retry_s)

    @asynccontextmanager
    async def beside(
        self,
        stop: Callable[[], object],
        ledger: Path,
        signals: StopSignals,
        reread: Callable[[], Settings] | None,
        retention: Retention | None,
    ) -> AsyncIterator[SideTasks]:
        """What runs as long as the loop does; what of it ends sooner ends the loop by ``stop``."""
        async with AsyncExitStack() as stack:
            on_loop(asyncio.get_running_loop(), self.log)
            stalls = None if self.virtual else stack.enter_context(Stalls(self.log, self._clock.monotonic))
            server = await stack.enter_async_context(self._serving(stalls, ledger)) if self._http.enabled else None
            # The last to come is the first to end: what the tasks work with is there as long as they are.
            side = await stack.enter_async_context(SideTasks(self.log, stop))
            if server is not None:
                self.observer.add(server.observer)
                side.start("http", server.run)
            if reread is not None:
                reload = Reload(self._settings, reread, self.systemd, retention, self._threshold, self._clock, self.log)
                running = asyncio.get_running_loop()
                signals.reread(lambda: running.call_soon_threadsafe(reload.asked.set))
                side.start("reload", reload.run)
            try:
                yield side
            finally:
                self.systemd.stopping()
                if side.died and self._alerts is not None:
                    self._alerts.halted(side.died)

    def _serving(self, stalls: Stalls | None, ledger: Path) -> AbstractAsyncContextManager[Server]:
        from bot.service.http.server import serving

        return serving(self._http, self._token, self.vitals, stalls, ledger, self.log)

    def __enter__(self) -> Self:
        self._stack.callback(self.systemd.close)
        try:
            if self._settings.notify.urls and not self.virtual:
                from bot.service.notify import alerts_for

                self._alerts = self._stack.enter_context(alerts_for(self._settings, self.log, self._clock.monotonic))
                self.observer.add(self._alerts)
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):
            self.systemd.failed(self._clean(f"{error}"))
        self._stack.__exit__(kind, error, trace)
