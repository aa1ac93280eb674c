"""What is answered instead of what was asked for, and what keeps the server from starting."""

from __future__ import annotations

from collections.abc import Mapping

from bot.repositories.errors import EXIT_TRY_AGAIN


class PortTaken(Exception):
    """Somebody else listens there; a restart may find it free."""

    exit_code = EXIT_TRY_AGAIN


class Refused(Exception):
    """An answer that is an error: its status, one line for whoever asked, and headers."""

    def __init__(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.status, self.headers = status, headers
