"""What the verbs share: their options, the ledger that is asked, the one way to stdout."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TextIO, TypeVar

import typer

if TYPE_CHECKING:
    from bot.repositories import Database
    from bot.settings import Settings

EXIT_CRASHED = 1
EXIT_USAGE = 2
EXIT_CONFIGURATION = 78
T = TypeVar("T")

application = typer.Typer(
    name="paperloop",
    help="A paper-trading daemon whose books can be proven. Without a verb: run.",
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
config_verbs = typer.Typer(help="Show or check the configuration.", no_args_is_help=True, rich_markup_mode=None)
application.add_typer(config_verbs, name="config")

ConfigFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--config", "-c", metavar="FILE", help="A configuration file; repeat to merge several, the later wins."
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="Overrides one setting, e.g. --set feed.poll_interval_s=5."),
]
Params = Annotated[
    list[str] | None,
    typer.Option("--param", "-p", metavar="NAME=VALUE", help="A parameter of the strategy; repeat for several."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Prints one JSON document.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=100_000, help="How many, the newest.")]
Symbol = Annotated[str | None, typer.Option("--symbol", help="Only this symbol.")]
AccountName = Annotated[str | None, typer.Option("--account", help="Only this account.")]


def settings_of(config: list[Path] | None, overrides: list[str] | None, *, strategies: bool = False) -> Settings:
    from bot.settings import load_settings

    return load_settings(config or (), overrides or (), strategies=strategies)


def params_of(texts: list[str] | None) -> dict[str, Any]:
    """The parameters of a strategy from NAME=VALUE, values read as with --set; ends with exit code 2 on nonsense."""
    from bot.settings.sources import read_value
    from bot.settings.values import free_table

    params: dict[str, Any] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not name or not equals:
            fail(f"--param {text}: must be NAME=VALUE, such as --param fast=5", EXIT_USAGE)
        try:
            params |= free_table({name: read_value(value, "free")})
        except ValueError as error:
            fail(f"--param {text}: {error}", EXIT_USAGE)
    return params


def read(settings: Settings, ask: Callable[[Database], Awaitable[T]]) -> T:
    """An answer from the ledger over a read-only connection, which a running daemon does not notice."""
    from bot.repositories import open_database

    async def answer() -> T:
        async with open_database(settings.storage.path, read_only=True) as database:
            return await ask(database)

    return asyncio.run(answer())


async def known(database: Database, symbol: str | None, account: str | None) -> tuple[str | None, str | None]:
    """The symbol, as the ledger writes it, and the account; ends with exit code 2 if the ledger has no such."""
    from bot.service import inspect

    wanted = _norm(symbol)
    symbols, accounts = await inspect.known_symbols(database), await inspect.known_accounts(database)
    if wanted is not None and wanted not in symbols:
        fail(f"{symbol}: the ledger has no such symbol; it has {', '.join(symbols) or 'none yet'}", EXIT_USAGE)
    if account is not None and account not in accounts:
        fail(f"{account}: the ledger has no such account; it has {', '.join(accounts) or 'none yet'}", EXIT_USAGE)
    return wanted, account


def _norm(symbol: str | None) -> str | None:
    return None if symbol is None else symbol.upper().replace("-", "/")


def show(document: Any, as_json: bool, render: Callable[[], str] = str, *, patient: bool = True) -> None:
    """The one way to stdout. A reader that has left is no failure: `paperloop trades | head -1`.

    What is not ``patient`` gives up after a second, and nothing of it is a failure.
    """
    import orjson

    options = orjson.OPT_APPEND_NEWLINE | (orjson.OPT_INDENT_2 if sys.stdout.isatty() else 0)
    text = orjson.dumps(document, option=options).decode() if as_json else render()
    if not patient:
        _write_in_time(sys.stdout, text)
        return
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_stdout()
    except OSError as error:
        _drop_stdout()
        if error.errno == errno.EIO:
            return  # a terminal that was closed
        fail(f"cannot write the result: {error.strerror}", 1)


def _drop_stdout() -> None:
    # The interpreter flushes once more at its end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _write_in_time(stream: TextIO, text: str) -> None:
    """A reader that stalls, or a disk that is full, neither keeps a daemon from its end nor changes its exit code."""
    from bot.service.logs import LineWriter

    writer = LineWriter(stream, lambda lost: "")
    writer.write(text)
    writer.close()


def complain(lines: Iterable[str]) -> None:
    """The one way to stderr. A line stays one, whatever somebody else's text in it holds."""
    from bot.service.logs import priority_prefix
    from bot.service.plain import printable

    prefix = priority_prefix(sys.stderr)("error")
    if text := "".join(f"{prefix}paperloop: {printable(line)}\n" for line in lines):
        _write_in_time(sys.stderr, text)


def fail(text: str, code: int) -> NoReturn:
    complain([text])
    raise typer.Exit(code)
