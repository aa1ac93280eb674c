"""How a problem with the settings is told: the key, its value, where it was set and what to write instead."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, time
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, SecretStr

Path = tuple[str | int, ...]

VALUE_CHARS_MAX = 80
MASK = "***"
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SECRET_KEY = re.compile(
    r"api_?key|secret|passw|passphrase|token|private_?key|credential|mnemonic|authori[sz]ation|^pwd$|^uid$|^key$",
    re.IGNORECASE,
)
_HIDDEN: tuple[Path, ...] = (("notify",), ("notify", "urls"))
_URL_LOGIN = re.compile(r"(?<=://)[^/\s@]+(?=@)")


class SettingsError(Exception):
    """The settings cannot be used; ``problems`` holds all the reasons, one readable line each."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value was set. ``rank`` grows with precedence."""

    rank: int
    text: str
    word: str = "from"

    def __str__(self) -> str:
        return f"{self.word} {self.text}"


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One line of complaint; problems sort by the precedence of their source, then by key."""

    rank: int
    key: str
    line: str

    @classmethod
    def at(cls, origin: Origin, path: Path, reason: str) -> Problem:
        key = show_key(path)
        return cls(origin.rank, key, f"{key} {origin}: {reason}")

    @classmethod
    def with_value(cls, origin: Origin, path: Path, value: Any, reason: str) -> Problem:
        key = show_key(path)
        return cls(origin.rank, key, f"{key} = {show_value(value, path)} {origin}: {reason}")


def show_key(path: Path) -> str:
    """``strategy#2.capital``: list entries count from 1; odd keys are in quotes, so that a space is seen."""
    shown = ""
    for part in path:
        if isinstance(part, int):
            shown += f"#{part + 1}"
        else:
            name = part if _BARE_KEY.fullmatch(part) else json.dumps(part, ensure_ascii=False)
            shown += f".{name}" if shown else name
    return shown


def showable(value: Any, key: str = "", *, mask: bool = True) -> Any:
    """As JSON can hold it: secrets masked (an empty one is shown as such), what is not set left out."""
    shown: Any
    match value:
        case SecretStr():
            shown = MASK if value.get_secret_value() else ""
        case _ if mask and is_secret(key) and value not in (None, ""):
            shown = MASK
        case BaseModel():
            shown = {name: showable(entry, name, mask=mask) for name, entry in value if entry is not None}
        case Mapping():
            shown = {name: showable(entry, name, mask=mask) for name, entry in value.items()}
        case list() | tuple():
            shown = [showable(entry, mask=mask) for entry in value]
        case date() | time():
            shown = value.isoformat().replace("+00:00", "Z")
        case Decimal():
            shown = f"{value:f}"
        case str():
            shown = value if not mask else MASK if _holds_secret(value) else _URL_LOGIN.sub(MASK, value)
        case _:
            shown = value
    return shown


def is_secret(key: str) -> bool:
    # Where a secret is kept is none.
    return _SECRET_KEY.search(key) is not None and not key.endswith("_file")


def _is_hidden(path: Path) -> bool:
    """Whether nothing of a value is shown: an address of somebody who is notified has its password in any place."""
    return any(is_secret(part) for part in path if isinstance(part, str)) or path in _HIDDEN or path[:2] in _HIDDEN


def _holds_secret(text: str) -> bool:
    """A table that did not parse is shown as the text it was, and may have a secret inside."""
    return is_secret(text) and ("=" in text or ":" in text)


def show_value(value: Any, path: Path) -> str:
    """The value as it would be written, secrets masked, cut to one readable line."""
    written = f'"{MASK}"' if _is_hidden(path) else _written(value)
    return written if len(written) <= VALUE_CHARS_MAX else f"{written[: VALUE_CHARS_MAX - 3]}..."


def _written(value: Any, key: str = "") -> str:
    if is_secret(key):
        return f'"{MASK}"'
    if isinstance(value, Mapping):
        entries = (f"{show_key((name,))} = {_written(entry, name)}" for name, entry in value.items())
        return "{" + ", ".join(entries) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_written, value)) + "]"
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        # Python refuses to print an integer of more than 4300 decimal digits.
        return hex(value) if isinstance(value, int) and value.bit_length() > 4300 else str(value)
    return json.dumps(showable(value), ensure_ascii=False)
