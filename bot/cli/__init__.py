"""The verbs. Results go to stdout, logs and errors to stderr; what a verb needs is imported when it runs."""

from __future__ import annotations

import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from bot.cli import backtest, check, compare, daemon, doctor, health, history, ledger, optimize, proof
from bot.cli.shared import EXIT_CONFIGURATION, EXIT_CRASHED, application, complain

if TYPE_CHECKING:
    from bot.service.stop import StopSignals

__all__ = [
    "backtest",
    "check",
    "compare",
    "daemon",
    "doctor",
    "health",
    "history",
    "ledger",
    "optimize",
    "proof",
    "run_command",
]


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
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        application(arguments, prog_name="paperloop", obj=stop)
    except KeyboardInterrupt:
        sys.exit(130)
    except SystemExit:
        raise
    except BaseException as error:  # noqa: BLE001 - what is not the user's to mend is raised again
        code, lines = _told(error, daemon=arguments[:1] == ["run"])
        complain(lines)
        sys.exit(code)
    finally:
        # The interpreter gives a signal that is handled its deadly meaning back before it ends.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _told(error: BaseException, *, daemon: bool) -> tuple[int, list[str]]:
    """Exit code and words for an error that is the user's to mend; any other is raised again, with its traceback.

    The daemon's is a line of its log instead: whoever reads that does so by lines.
    """
    from bot.clock import SystemClock
    from bot.repositories import LedgerError
    from bot.service.http.errors import PortTaken
    from bot.service.logs import Crashed, crashes_told, logging_to
    from bot.settings import SettingsError

    if isinstance(error, SettingsError):
        return EXIT_CONFIGURATION, error.problems
    if isinstance(error, LedgerError | PortTaken):
        return error.exit_code, [str(error)]
    if isinstance(error, Crashed):
        return EXIT_CRASHED, []
    if not daemon:
        raise error
    # Before its own log was open: which form it would have is not known.
    with logging_to(sys.stderr, "error", "auto", SystemClock().monotonic) as log, suppress(Crashed), crashes_told(log):
        raise error
    return EXIT_CRASHED, []
