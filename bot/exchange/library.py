"""ccxt, as little of it as is needed: one exchange's class, and what its constructor takes."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from bot.settings.problems import show_value
from bot.settings.values import closest

_PACKAGES = ("ccxt", "ccxt.async_support")
# What ccxt's own modules take from the package while they are imported.
_HOMES = ("ccxt.base.errors", "ccxt.base.exchange", "ccxt.base.precise")
CREDENTIALS = (
    "apiKey",
    "secret",
    "uid",
    "accountId",
    "login",
    "password",
    "twofa",
    "privateKey",
    "walletAddress",
    "token",
)


def exchange_names() -> tuple[str, ...]:
    """ccxt's names of the exchanges it knows, without importing any of them."""
    folder = Path(_location()) / "async_support"
    return tuple(sorted(file.stem for file in folder.glob("*.py") if not file.stem.startswith("_")))


@cache
def exchange_class(name: str) -> type[Any]:
    """ccxt's asynchronous client for one exchange; raises LookupError if there is none of this name.

    The package imports all of its hundred exchanges: 103 MB. One of them with what it needs is 53 MB and half the
    time, so it is imported past the package's own list, which a later ``import ccxt`` of somebody else finds untouched.
    """
    if name not in exchange_names():
        raise LookupError(name)
    module = f"ccxt.async_support.{name}"
    try:
        with _without_lists():
            found = importlib.import_module(module)
    except (ImportError, AttributeError):
        # A release that is built another way: then all of it.
        found = importlib.import_module(module)
    return getattr(found, name)  # type: ignore[no-any-return]


@contextmanager
def _without_lists() -> Iterator[None]:
    """ccxt's two packages without what their ``__init__`` would import, for as long as it takes."""
    present = {name: sys.modules[name] for name in _PACKAGES if name in sys.modules}
    if len(present) < len(_PACKAGES):
        location = _location()
        for name, folder in zip(_PACKAGES, (location, f"{location}/async_support"), strict=True):
            package = ModuleType(name)
            package.__path__ = [folder]
            package.__spec__ = ModuleSpec(name, None, is_package=True)
            package.__getattr__ = _looked_up  # type: ignore[method-assign]
            sys.modules[name] = package
    try:
        yield
    finally:
        for name in _PACKAGES:
            sys.modules.pop(name, None)
        sys.modules.update(present)


def _looked_up(name: str) -> Any:
    for home in _HOMES:
        module = importlib.import_module(home)
        if hasattr(module, name):
            return getattr(module, name)
    raise AttributeError(name)


@cache
def _location() -> str:
    spec = find_spec("ccxt")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("ccxt is not installed")
    return next(iter(spec.submodule_search_locations))


def problems_of(name: str, options: Mapping[str, Any]) -> list[str]:
    """What is wrong with the settings of a client, each as a line; empty if nothing is."""
    try:
        kind = exchange_class(name)
    except LookupError:
        near = closest(name, exchange_names())
        hint = f'; did you mean "{near}"?' if near else ""
        return [f'feed.ccxt.exchange = "{name}": ccxt has no such exchange{hint}']
    if options.keys() & set(CREDENTIALS):
        keys = ", ".join(sorted(options.keys() & set(CREDENTIALS)))
        return [f"feed.ccxt.options: prices are public and need no credentials; remove {keys}"]
    client = kind({})
    if not client.has.get("fetchTickers"):
        return [f'feed.ccxt.exchange = "{name}": it cannot be asked for all tickers at once (ccxt has no fetchTickers)']
    return list(_wrong_options(client, name, options))


def _wrong_options(client: Any, name: str, options: Mapping[str, Any]) -> Iterable[str]:
    known = tuple(key for key in dir(client) if not key.startswith("_") and not callable(getattr(client, key)))
    for key, value in options.items():
        where = f"feed.ccxt.options.{key}"
        if key not in known:
            near = closest(key, known)
            yield f"{where}: ccxt's client for {name} has no such key" + (f"; did you mean {near}?" if near else "")
        elif not _fits(getattr(client, key), value):
            yield f"{where} = {show_value(value, (key,))} must be {_kind_of(getattr(client, key))}"


def _fits(default: Any, value: Any) -> bool:
    if isinstance(default, bool):
        return isinstance(value, bool)
    if isinstance(default, int | float):
        return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
    for kind in (Mapping, str):
        if isinstance(default, kind):
            return isinstance(value, kind)
    return True


def _kind_of(default: Any) -> str:
    if isinstance(default, bool):
        return "true or false"
    if isinstance(default, str):
        return "text"
    return "a table" if isinstance(default, Mapping) else "a number"
