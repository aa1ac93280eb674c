"""SIGHUP: the settings are read again. What can change while the loop runs changes; the rest is named."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from structlog.typing import FilteringBoundLogger

from bot.ports import Clock
from bot.repositories import Retention
from bot.service.logs import Threshold
from bot.service.systemd import Systemd
from bot.settings import Settings, SettingsError

AGAIN_AFTER_S = 1.0


class Reload:
    """Everything that a decision depends on stays as it was at the start, and is recorded so: it needs a restart."""

    def __init__(
        self,
        settings: Settings,
        reread: Callable[[], Settings],
        systemd: Systemd,
        retention: Retention | None,
        threshold: Threshold,
        clock: Clock,
        log: FilteringBoundLogger,
    ) -> None:
        self.asked = asyncio.Event()
        self._clock = clock
        self._running, self._reread, self._systemd, self._log = _leaves(settings), reread, systemd, log
        self._changes: dict[str, Callable[[Settings], None]] = {
            "log.level": lambda new: setattr(threshold, "level", new.log.level)
        }
        if retention is not None:
            self._changes["storage.keep_ticks_days"] = lambda new: setattr(
                retention, "days", new.storage.keep_ticks_days
            )

    async def run(self) -> None:
        while True:
            await self.asked.wait()
            self.asked.clear()
            self._systemd.reloading()
            self._reload()
            self._systemd.reloaded()
            # A storm of signals is one or two: each time costs the loop some milliseconds, and the log a line.
            await self._clock.sleep(AGAIN_AFTER_S)

    def _reload(self) -> None:
        try:
            new = self._reread()
        except SettingsError as error:
            self._log.error("settings read again, and not taken", error="; ".join(error.problems))
            return
        wanted = _leaves(new)
        differ = [key for key, value in wanted.items() if value != self._running.get(key)]
        changed = [key for key in differ if key in self._changes]
        for key in changed:
            self._changes[key](new)
            self._running[key] = wanted[key]
        waiting = [key for key in differ if key not in self._changes]
        self._log.info("settings read again", changed=changed, need_a_restart=waiting)


def _leaves(settings: Settings) -> dict[str, Any]:
    """Each setting by its dotted key; a table of free keys and the list of strategies are one."""
    leaves: dict[str, Any] = {}

    def walk(table: Mapping[str, Any], prefix: str) -> None:
        for key, value in table.items():
            if isinstance(value, Mapping) and key not in {"options", "params"}:
                walk(value, f"{prefix}{key}.")
            else:
                leaves[prefix + key] = value

    walk(settings.model_dump(), "")
    return leaves
