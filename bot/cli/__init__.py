"""The verbs. Results go to stdout, logs and errors to stderr; what a verb needs is imported when it runs."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

import typer

from bot.cli import backtest, check, compare, daemon, doctor, history, ledger, optimize, proof
from bot.cli.shared import EXIT_CONFIGURATION, application

if TYPE_CHECKING:
    from bot.service.stop import StopSignals

__all__ = ["backtest", "check", "compare", "daemon", "doctor", "history", "ledger", "optimize", "proof", "run_command"]


def _with_verb(arguments: list[str]) -> list[str]:
    """``run`` is what no verb means; its options then stand where the verb would."""
    if arguments and (not arguments[0].startswith("-") or arguments[0] in {"-h", "--help"}):
        return arguments
    return ["run", *arguments]


def run_command(arguments: list[str], stop: StopSignals) -> None:
    """Runs a verb and ends the process with its exit code. Only ``run`` has something to finish when it is stopped."""
    arguments = _with_verb(arguments)
    if arguments[:1] != ["run"]:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        application(arguments, prog_name="paperloop", obj=stop)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # noqa: BLE001 - what is not the user's to mend is raised again
        code, lines = _told(error)
        for line in lines:
            typer.echo(f"paperloop: {line}", err=True)
        sys.exit(code)


def _told(error: Exception) -> tuple[int, list[str]]:
    """Exit code and words for an error that is the user's to mend; any other is raised again, with its traceback."""
    from bot.repositories import LedgerError
    from bot.settings import SettingsError

    if isinstance(error, SettingsError):
        return EXIT_CONFIGURATION, error.problems
    if isinstance(error, LedgerError):
        return error.exit_code, [str(error)]
    raise error
