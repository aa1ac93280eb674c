"""From a name and parameters to a strategy: built in, importable, or a file in the user's folder.

A strategy that cannot be built is a mistake in somebody's configuration or file, so every failure here is a
StrategyError with sentences for that person.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from bot.ports import Strategy
from bot.strategies.breakouts import BollingerBreakout, DonchianBreakout
from bot.strategies.crossovers import EmaCross, Macd, SmaCross
from bot.strategies.parameters import StrategyError, did_you_mean
from bot.strategies.passive import BuyAndHold
from bot.strategies.reversion import RsiReversion
from bot.strategies.windowed import Windowed

BUILT_IN: dict[str, type[Windowed]] = {
    cls.name: cls for cls in (SmaCross, EmaCross, Macd, RsiReversion, BollingerBreakout, DonchianBreakout, BuyAndHold)
}

# A user's file can raise anything, sys.exit() included, and none of it may reach the user as a traceback.
_ANYTHING = (Exception, SystemExit)


@dataclass(frozen=True, slots=True)
class _Offer:
    """A class that could be built, under the name it is asked for."""

    name: str
    cls: type[Any]
    source: str


@dataclass(frozen=True, slots=True)
class Factory:
    """Builds the strategy of one name as often as it is asked to: a user's file is looked for and read once."""

    _offer: _Offer

    @classmethod
    def of(cls, name: str, folder: Path | None = None) -> Factory:
        """Raises StrategyError, see ``load``."""
        if ":" in name:
            return cls(_imported(name))
        if name not in BUILT_IN:
            return cls(_found(name, folder))
        if folder is not None and (folder / f"{name}.py").exists():
            raise StrategyError(_clash(name, f"{name}.py"))
        return cls(_Offer(name, BUILT_IN[name], "built in"))

    def build(self, params: Mapping[str, Any]) -> Strategy:
        return _construct(self._offer, params)

    def expect(self, names: Iterable[str]) -> None:
        """Raises StrategyError if there are no parameters of these names, or must be others too."""
        if problems := _matched(self._offer, dict.fromkeys(names))[0]:
            raise StrategyError(*problems)


def build(name: str, **params: Any) -> Strategy:
    """The strategy called ``name``: a built-in one, or ``package.module:Class``. Raises StrategyError."""
    return load(name, params)


def load(name: str, params: Mapping[str, Any], folder: Path | None = None) -> Strategy:
    """Like ``build``, and also finds the classes in the ``.py`` files of ``folder``, or in one file in its place.

    A file offers its public classes that have a ``targets`` method, each under its ``name`` attribute or else
    the file's name. Each file is imported by itself: it cannot import its neighbours, and sys.path is left
    alone.
    """
    return Factory.of(name, folder).build(params)


def known(folder: Path | None = None) -> list[str]:
    """The names that ``load`` understands, sorted; a file that cannot be imported offers none."""
    offers, _ = _scan(folder)
    return sorted({*BUILT_IN, *(offer.name for offer in offers)})


def names_in(file: Path) -> list[str]:
    """The names that ``load`` finds in one file. Raises StrategyError."""
    offers, broken = _scan(file)
    if broken:
        raise StrategyError(*broken.values())
    return [offer.name for offer in offers]


def _imported(path: str) -> _Offer:
    module_name, _, class_name = path.partition(":")
    if not module_name or not class_name:
        raise StrategyError(f"{path}: a strategy of your own is named package.module:Class.")
    try:
        module = importlib.import_module(module_name)
    except _ANYTHING as error:
        raise StrategyError(f"{path}: cannot import {module_name}: {_described(error)}.") from error
    cls = getattr(module, class_name, None)
    if not isinstance(cls, type):
        offered = [offer.cls.__name__ for offer in _offers(module, module_name)]
        raise StrategyError(f"{path}: {module_name} has no class {class_name!r}{did_you_mean(class_name, offered)}.")
    return _Offer(_name_of(cls, class_name), cls, path)


def _found(name: str, folder: Path | None) -> _Offer:
    offers, broken = _scan(folder)
    matches = [offer for offer in offers if offer.name == name]
    if len(matches) == 1:
        return matches[0]
    if matches:
        classes = " and ".join(f"{offer.source}:{offer.cls.__name__}" for offer in matches)
        raise StrategyError(f"{name}: {classes} share this name; give each class its own name attribute.")
    # Of the files that failed, the one the user asked for says all there is to say.
    if name in broken:
        raise StrategyError(broken[name])
    names = sorted({*BUILT_IN, *(offer.name for offer in offers)})
    raise StrategyError(
        f"unknown strategy {name!r}{did_you_mean(name, names)}; known are {', '.join(names)}.",
        *broken.values(),
    )


def _scan(folder: Path | None) -> tuple[list[_Offer], dict[str, str]]:
    """What the files of a folder offer, and by file name what is wrong with the others."""
    offers: list[_Offer] = []
    broken: dict[str, str] = {}
    for file in _files(folder):
        try:
            found = list(_offers(_executed(file), file.name))
            _refuse_unusable(found, file)
        except StrategyError as error:
            broken[file.stem] = str(error)
        else:
            offers += found
    return offers, broken


def _files(folder: Path | None) -> list[Path]:
    if folder is None:
        return []
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise StrategyError(f"the strategies folder {folder} does not exist.")
    return sorted(file for file in folder.glob("*.py") if not file.name.startswith("_"))


def _executed(file: Path) -> ModuleType:
    name = f"paperloop_strategy_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None:
        raise StrategyError(f"{file.name}: not a Python file.")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickle look a class's module up by name.
    sys.modules[name] = module
    try:
        # Not by its loader: a file of the same size that was saved in the same second is taken from the cache.
        exec(compile(file.read_bytes(), file, "exec"), module.__dict__)  # noqa: S102 # nosec B102 # the user's own code, which is what it is for
    except _ANYTHING as error:
        del sys.modules[name]
        raise StrategyError(f"{file.name}{_line_in(file, error)}: {_described(error)}.") from error
    return module


def _offers(module: ModuleType, source: str) -> Iterator[_Offer]:
    for cls in vars(module).values():
        own = isinstance(cls, type) and cls.__module__ == module.__name__ and not cls.__name__.startswith("_")
        if own and callable(getattr(cls, "targets", None)):
            yield _Offer(_name_of(cls, Path(source).stem), cls, source)


def _refuse_unusable(found: list[_Offer], file: Path) -> None:
    if not found:
        raise StrategyError(f"{file.name}: has no class with a targets(bars) method and a lookback.")
    for offer in found:
        if offer.name in BUILT_IN:
            raise StrategyError(_clash(offer.name, file.name))


def _clash(name: str, file_name: str) -> str:
    return f"{file_name}: {name} is the name of a built-in strategy; rename the file or the class's name."


def _name_of(cls: type[Any], default: str) -> str:
    name = getattr(cls, "name", None)
    return name if isinstance(name, str) else default


def _construct(offer: _Offer, params: Mapping[str, Any]) -> Strategy:
    problems, accepted = _matched(offer, params)
    try:
        strategy = offer.cls(**accepted)
        lookback = getattr(strategy, "lookback", None)
    except StrategyError as error:
        raise StrategyError(*problems, *error.problems) from error
    except _ANYTHING as error:
        # With a parameter missing, the constructor only says again what is already known.
        if not problems:
            given = ", ".join(f"{key}={value!r}" for key, value in accepted.items()) or "no parameters"
            problems.append(f"{offer.name}: {offer.cls.__name__} refused {given}: {_described(error)}.")
        raise StrategyError(*problems) from error
    if problems:
        raise StrategyError(*problems)
    return _usable(strategy, lookback, offer)


def _matched(offer: _Offer, params: Mapping[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """What is wrong with the parameters' names, and the parameters whose names are right."""
    cls: Any = offer.cls
    allowed = _parameters(cls)
    if allowed is None:
        return [], dict(params)
    takes = f"it takes {', '.join(allowed)}" if allowed else "it takes none"
    problems = [
        f"{offer.name}: no parameter called {key!r}{did_you_mean(key, allowed)}; {takes}."
        for key in params
        if key not in allowed
    ]
    problems += [
        f"{offer.name}: {key} must be given."
        for key, parameter in allowed.items()
        if parameter.default is parameter.empty and key not in params
    ]
    return problems, {key: value for key, value in params.items() if key in allowed}


@functools.cache
def _parameters(cls: Any) -> dict[str, inspect.Parameter] | None:
    """What can be given by name; None for a class that takes anything, or does not say what."""
    try:
        signature = inspect.signature(cls).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature):
        return None
    return {p.name: p for p in signature if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}


def _usable(strategy: Any, lookback: object, offer: _Offer) -> Strategy:
    problems = []
    if not callable(getattr(strategy, "targets", None)):
        problems.append(f"{offer.name}: {offer.cls.__name__} has no targets(bars) method.")
    if lookback is None:
        problems.append(f"{offer.name}: {offer.cls.__name__} has no lookback, the number of bars it looks at.")
    elif isinstance(lookback, bool) or not isinstance(lookback, int) or lookback < 1:
        problems.append(f"{offer.name}: lookback must be a whole number from 1 up, got {lookback!r}.")
    if problems:
        raise StrategyError(*problems)
    if not isinstance(getattr(strategy, "name", None), str):
        offer.cls.name = offer.name
    checked: Strategy = strategy
    return checked


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".rstrip(".: ")


def _same(filename: str, file: Path) -> bool:
    return Path(filename).resolve() == file.resolve()


def _line_in(file: Path, error: BaseException) -> str:
    """Where in the user's file it went wrong, which is not always where it was raised."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if _same(frame.filename, file)]
    return f" line {lines[-1]}" if lines else ""
