"""What is wrong with the data of a backtest, as one line for the user."""

from __future__ import annotations

# Something else has to be asked for: another file, symbol, timeframe or time range.
EXIT_USAGE = 2
# The content cannot be used as it is; sysexits.h calls it EX_DATAERR, and a ledger that does not add up ends with it.
EXIT_DATA = 65


class DataError(Exception):
    def __init__(self, text: str, exit_code: int = EXIT_DATA) -> None:
        super().__init__(text)
        self.exit_code = exit_code
