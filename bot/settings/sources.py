"""The sources of the settings: TOML files, the environment and ``--set``, each read into a layer of tables.

A layer keeps only what the settings know. What they do not know becomes a problem here, per source, even
where a later source would hide it: a typo without effect today is a surprise when the later source goes away.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path as FilePath
from typing import Any

from bot.settings.problems import Origin, Path, Problem, show_key
from bot.settings.schema import Node, NodeKind, unknown_key

ENVIRONMENT_PREFIX = "PAPERLOOP_"
NESTING_MAX = 20
_FLAG_WORDS = dict.fromkeys(("true", "yes", "on", "1"), True) | dict.fromkeys(("false", "no", "off", "0"), False)
_POSITION = re.compile(r"(?P<what>.*) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Layer:
    origin: Origin
    table: Mapping[str, Any]

    def sets(self, path: Path) -> bool:
        """Whether this layer sets the value at ``path``, itself or with a list that it sets as a whole."""
        inside: Any = self.table
        for part in path:
            if not isinstance(inside, Mapping):
                return True
            if part not in inside:
                return False
            inside = inside[part]
        return True


class Sources:
    """Reads sources in the order of their precedence; ``layers`` and ``problems`` hold what was found."""

    def __init__(self, schema: Node) -> None:
        self.layers: list[Layer] = []
        self.problems: list[Problem] = []
        self._schema = schema
        self._rank = 0

    def add_file(self, file: FilePath, *, optional: bool = False) -> None:
        origin = self._origin(str(file), "in")
        try:
            table = _read_file(file)
        except FileNotFoundError:
            if not optional:
                self._complain(origin, f"{file}: there is no such file")
        except OSError as error:
            is_folder = isinstance(error, IsADirectoryError)
            reason = "is a folder, not a file" if is_folder else f"cannot be read ({error.strerror})"
            self._complain(origin, f"{file}: {reason}")
        except ValueError as error:
            self._complain(origin, f"{file}{error}")
        else:
            self._add(origin, table)

    def add_environment(self, environ: Mapping[str, str]) -> None:
        """Variables from the shallowest to the deepest, so that one for a key refines one for its table."""
        names = [name for name in environ if name.upper().startswith(ENVIRONMENT_PREFIX)]
        seen: dict[Path, str] = {}
        for name in sorted(names, key=lambda name: (name.count("__"), name)):
            origin = self._origin(name)
            path = self._resolve(origin, name[len(ENVIRONMENT_PREFIX) :].split("__"), fold=True)
            if path in seen:
                reason = f"{seen[path]} sets it too; keep one of them"
                self.problems.append(Problem.at(origin, path, reason))
            elif path:
                seen[path] = name
                self._add_text(origin, path, environ[name])

    def add_override(self, text: str) -> None:
        origin = self._origin("--set")
        key, equals, value = text.partition("=")
        if not equals:
            # Something was meant to be a value, and may be a secret.
            shown = text.partition("://")[0]
            self._complain(origin, f"--set {shown}: must be KEY=VALUE, such as --set feed.kind=simulated")
        elif path := self._resolve(origin, key.split("."), fold=False):
            self._add_text(origin, path, value)

    def _origin(self, text: str, word: str = "from") -> Origin:
        self._rank += 1
        return Origin(self._rank, text, word)

    def _complain(self, origin: Origin, line: str) -> None:
        self.problems.append(Problem(origin.rank, "", line))

    def _add(self, origin: Origin, table: Mapping[str, Any]) -> None:
        if _is_deep(table):
            self._complain(origin, f"{origin.text}: tables and lists must not nest deeper than {NESTING_MAX}")
            return
        self.layers.append(Layer(origin, self._known(origin, self._schema, table, ())))

    def _add_text(self, origin: Origin, path: tuple[str, ...], text: str) -> None:
        node = self._schema
        for part in path:
            node = node.below(part)
        try:
            value = read_value(text, node.kind)
        except ValueError as error:
            self.problems.append(Problem.with_value(origin, path, text, str(error)))
            return
        for part in reversed(path):
            value = {part: value}
        self._add(origin, value)

    def _resolve(self, origin: Origin, parts: list[str], *, fold: bool) -> tuple[str, ...]:
        """The path that a dotted key or a variable's name leads to; empty, with a problem, if there is none.

        ``fold`` ignores the case of known keys; those of a free table are taken as written, since they
        mean something to someone else.
        """
        if not all(parts):
            written = f"--set {'.'.join(parts)}=..." if origin.text == "--set" else origin.text
            self._complain(origin, f"{written}: the key{' is' if len(parts) == 1 else ' has a part that is'} empty")
            return ()
        node, path = self._schema, tuple[str, ...]()
        for part in parts:
            name = part.lower() if fold and node.kind != "free" else part
            reason = self._dead_end(node, path, name)
            if reason:
                hint = self._variable_meant(parts) if fold and node.kind == "table" else None
                self.problems.append(Problem.at(origin, (*path, name), hint or reason))
                return ()
            node, path = node.below(name), (*path, name)
        return path

    def _dead_end(self, node: Node, path: tuple[str, ...], name: str) -> str | None:
        match node.kind:
            case "table":
                return None if name in node.children else unknown_key(self._schema, path, name)
            case "free":
                return None
            case "tables":
                example = """--set 'strategy=[{name="sma_cross"}]'"""
                return f"{show_key(path)} is a list and is set as a whole, as in {example}"
            case _:
                return f"{show_key(path)} is a value, not a table"

    def _variable_meant(self, parts: list[str]) -> str | None:
        """Sees through a single underscore where two are needed, the slip that everybody makes once."""
        squeezed = "".join(parts).replace("_", "").lower()
        for table, node in self._schema.tables():
            for key in node.children:
                path = (*table, key)
                if "".join(path).replace("_", "") == squeezed:
                    return f"unknown key; did you mean {ENVIRONMENT_PREFIX}{'__'.join(path).upper()}?"
        return None

    def _known(self, origin: Origin, node: Node, table: Mapping[str, Any], path: Path) -> dict[str, Any]:
        """The part of the table that the settings know, with a problem for the rest."""
        known: dict[str, Any] = {}
        for key, value in table.items():
            full = (*path, key)
            child = node.children.get(key)
            if child is None:
                names = tuple(part for part in path if isinstance(part, str))
                self.problems.append(Problem.at(origin, full, unknown_key(self._schema, names, key)))
            elif child.kind == "table" and not isinstance(value, Mapping):
                reason = f"must be a table of {', '.join(child.children)}"
                self.problems.append(Problem.with_value(origin, full, value, reason))
            elif child.kind == "table":
                known[key] = self._known(origin, child, value, full)
            elif child.kind == "tables" and isinstance(value, list):
                known[key] = [
                    self._known(origin, child, entry, (*full, position)) if isinstance(entry, Mapping) else entry
                    for position, entry in enumerate(value)
                ]
            else:
                known[key] = value
        return known


def _is_deep(table: Mapping[str, Any]) -> bool:
    """Level by level, since what recurses (the merge, pydantic) would fall over what this refuses."""
    level: list[Any] = [table]
    for _ in range(NESTING_MAX + 1):
        level = [inner for outer in level for inner in _entries(outer)]
        if not level:
            return False
    return True


def _entries(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list) else ()


def _read_file(file: FilePath) -> dict[str, Any]:
    """Raises OSError, or ValueError with a text that follows the file's name."""
    data = file.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise ValueError(f", line {line}, column {column}: not UTF-8 text") from None
    try:
        return tomllib.loads(text, parse_float=_exact_float)
    except RecursionError:
        raise ValueError(": not valid TOML (nested too deeply)") from None
    except ValueError as error:
        raise ValueError(_placed(str(error), text)) from None


def _placed(error: str, text: str) -> str:
    """tomllib's message with the position in front; it gives none for the end of the text."""
    match = _POSITION.fullmatch(error)
    if match is None:
        return f": not valid TOML ({error})"
    line = match["line"] or text.count("\n") + 1
    column = match["column"] or len(text) - text.rfind("\n")
    what = match["what"]
    return f", line {line}, column {column}: not valid TOML ({what[:1].lower()}{what[1:]})"


def read_value(text: str, kind: NodeKind) -> Any:
    """A value given as text: TOML, or JSON for lists and tables, or else a bare word. Raises ValueError.

    A key that holds text takes any text as it is, so that a path like ``2024`` needs no quotes.
    """
    stripped = text.strip()
    structured = stripped[:1] in ("[", "{")
    if text != stripped and not structured:
        raise ValueError("must not begin or end with a space")
    if kind == "flag":
        return _FLAG_WORDS.get(text.lower(), text)
    try:
        parsed = tomllib.loads(f"value = {text}", parse_float=_exact_float)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except ValueError:
        return _read_other(text, kind, structured)
    if len(parsed) != 1:
        raise ValueError("must be one value")
    value = parsed["value"]
    return text if kind == "text" and not isinstance(value, str) else value


def _read_other(text: str, kind: NodeKind, structured: bool) -> Any:
    if structured and kind != "text":
        try:
            return json.loads(text, parse_float=_exact_float)
        except (ValueError, RecursionError):
            raise ValueError("is neither valid TOML nor valid JSON") from None
    if text[:1] in ('"', "'"):
        raise ValueError("is not a valid TOML string")
    return text


def _exact_float(text: str) -> Decimal:
    """Decimals as they are written: money is exact, and only the model knows which keys are floats."""
    try:
        return Decimal(text)
    except InvalidOperation:
        return Decimal("Infinity")
