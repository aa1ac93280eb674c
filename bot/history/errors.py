"""What stands in the way of a download."""

from __future__ import annotations

from bot.repositories.errors import EXIT_STORAGE

EXIT_USAGE = 2


class HistoryError(Exception):
    """One line for the user."""

    def __init__(self, text: str, exit_code: int = EXIT_USAGE) -> None:
        super().__init__(text)
        self.exit_code = exit_code


def storage_error(error: OSError) -> HistoryError:
    where = f" {error.filename}" if error.filename else ""
    return HistoryError(f"cannot write{where}: {error.strerror or error}", EXIT_STORAGE)
