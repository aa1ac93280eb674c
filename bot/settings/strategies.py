"""The strategies that the settings name, built, and what is wrong with those that cannot be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bot.ports import Strategy
from bot.settings.sources import Layer
from bot.settings.values import free_table
from bot.strategies import StrategyError, load

Entry = tuple[int, str, Mapping[str, Any]]


def built(entries: Iterable[Entry], folder: str, origin: str = "") -> tuple[list[Strategy], list[str]]:
    """Strategies from (number, name, parameters), and a line for each problem; ``origin`` tells who set them."""
    strategies, problems = [], []
    for number, name, params in entries:
        try:
            strategies.append(load(name, params, Path(folder) if folder else None))
        except StrategyError as error:
            problems += [f"strategy#{number}{origin}: {problem}" for problem in error.problems]
    return strategies, problems


def problems_of(layers: Sequence[Layer]) -> list[str]:
    """What is wrong with the strategies, also where the settings are wrong elsewhere: all is told at once."""
    source = _last(layers, "strategy")
    if source is None:
        return []
    found = source.table["strategy"]
    folder = _last(layers, "strategy_folder")
    path = folder.table["strategy_folder"] if folder else ""
    entries = []
    for number, entry in enumerate(found if isinstance(found, list | tuple) else (), start=1):
        name = entry.get("name") if isinstance(entry, Mapping) else None
        if isinstance(name, str) and name.strip() == name:
            try:
                entries.append((number, name, free_table(entry.get("params", {}))))
            except ValueError:
                continue
    return built(entries, path if _is_folder(path) else "", f" {source.origin}")[1]


def _is_folder(path: Any) -> bool:
    try:
        return isinstance(path, str) and path != "" and Path(path).is_dir()
    except (OSError, ValueError):
        return False


def _last(layers: Sequence[Layer], key: str) -> Layer | None:
    """The source whose word on a key counts."""
    return next((layer for layer in reversed(layers) if key in layer.table), None)
