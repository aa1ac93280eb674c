"""What carries a notification: apprise, which knows some hundred services. Optional, and loaded where it is used."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import SecretStr
from structlog.typing import FilteringBoundLogger

from bot.service.alerts import AlertRules, Alerts, Send
from bot.service.plain import without
from bot.settings import Settings, SettingsError

# The least distance of two requests to one service. What apprise takes, up to 5.5 s, would use up the time that there
# is at an exit; how many there are is limited by the hour.
SPACING_S_MAX = 0.5
_WORDS_MAX = 5


class NotDelivered(Exception):
    """What the services that failed said."""


def alerts_for(settings: Settings, log: FilteringBoundLogger, monotonic: Callable[[], float]) -> Alerts:
    """The observer for ``[notify]``. Raises SettingsError as ``sender`` does."""
    wanted, clean = settings.notify, without(settings.secrets())
    rules = AlertRules(wanted.events, wanted.outage_after_s, wanted.per_hour_max)
    return Alerts(sender(wanted.urls), log, monotonic, rules, clean=clean)


def sender(urls: Sequence[SecretStr]) -> Send:
    """Sends to each address, one after the other; raises NotDelivered where one failed.

    Raises SettingsError where apprise is missing or does not know an address, of which its scheme alone is told.
    """
    try:
        import apprise
        from apprise import NotifyFormat, PersistentStoreMode
    except ImportError:
        raise SettingsError(["notify.urls: apprise is not installed: pip install '.[notify]'"]) from None
    said = _Words()
    # Nothing on the disk, and what it says goes nowhere but into the reason of a failure.
    asset = apprise.AppriseAsset(app_id="Paperloop", storage_mode=PersistentStoreMode.MEMORY)
    services: list[tuple[str, Any]] = []
    problems = []
    for number, url in enumerate(urls, start=1):
        scheme = url.get_secret_value().partition("://")[0]
        service = apprise.Apprise.instantiate(url.get_secret_value(), asset=asset)
        if service is None:
            problems.append(f"notify.urls: apprise does not understand address {number} ({scheme}://...)")
            continue
        service.request_rate_per_sec = min(service.request_rate_per_sec, SPACING_S_MAX)
        services.append((scheme, service))
    if problems:
        raise SettingsError(problems)

    def send(title: str, body: str) -> bool:
        failures = []
        for scheme, service in services:
            said.clear()
            try:
                # A service's own method: apprise's starts threads that the end of the process would wait for.
                delivered = service.notify(body=body, title=title, body_format=NotifyFormat.TEXT)
            except Exception as error:  # noqa: BLE001 - a plugin may raise anything, and the next service may work
                delivered = False
                said.words.append(f"{type(error).__name__}: {error}")
            if not delivered:
                failures.append(f"{scheme}: {'; '.join(said.words) or 'refused'}")
        if failures:
            raise NotDelivered(", ".join(failures))
        return True

    return send


class _Words(logging.Handler):
    """Keeps the last of what apprise logs, which is the only word on why something failed."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.words: deque[str] = deque(maxlen=_WORDS_MAX)
        self._logger = logging.getLogger("apprise")
        self._logger.handlers[:] = [self]
        self._logger.propagate = False

    def clear(self) -> None:
        self.words.clear()

    def emit(self, record: logging.LogRecord) -> None:
        self.words.append(record.getMessage())
