"""Which keys the settings have, read off the model, and what to say of a key that is none of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr

from bot.settings.values import closest

NodeKind = Literal["table", "tables", "free", "text", "flag", "value"]


@dataclass(frozen=True, slots=True)
class Node:
    """What may stand at a key: a table of known keys, a list of such tables, a free table, one value."""

    kind: NodeKind
    children: Mapping[str, Node] = field(default_factory=dict)

    def below(self, key: str) -> Node:
        return self if self.kind == "free" else self.children[key]

    def tables(self, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Node]]:
        """This table and all below it, each with its path."""
        yield path, self
        for name, child in self.children.items():
            if child.children:
                yield from child.tables((*path, name))


def schema_of(model: type[BaseModel], kind: Literal["table", "tables"] = "table") -> Node:
    return Node(kind, {name: _node(info.annotation) for name, info in model.model_fields.items()})


def _node(annotation: Any) -> Node:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if _is_model(annotation):
        return schema_of(annotation)
    if origin is tuple and _is_model(arguments[0]):
        return schema_of(arguments[0], "tables")
    if origin in (Union, UnionType):
        return _node(next(argument for argument in arguments if argument is not type(None)))
    if origin is dict:
        return Node("free")
    if annotation in (str, SecretStr) or origin is Literal:
        return Node("text")
    return Node("flag" if annotation is bool else "value")


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def unknown_key(schema: Node, table: tuple[str, ...], key: str) -> str:
    """Where the key belongs if another table has it, else the nearest one, else what its table has."""
    homes = [path for path, node in schema.tables() if key in node.children]
    if homes:
        return f"unknown key; {key} belongs {' or '.join(_in_table(schema, home) for home in homes)}"
    here = dict(schema.tables())[table]
    near = closest(key, tuple(here.children))
    if near:
        return f"unknown key; did you mean {near}?"
    for path, node in schema.tables():
        near = closest(key, tuple(node.children))
        if near:
            return f"unknown key; did you mean {near} {_in_table(schema, path)}?"
    return f"unknown key; {_label(schema, table)} has {', '.join(here.children)}"


def _in_table(schema: Node, table: tuple[str, ...]) -> str:
    return f"{'in' if table else 'at'} {_label(schema, table)}"


def _label(schema: Node, table: tuple[str, ...]) -> str:
    if not table:
        return "the top level"
    name = ".".join(table)
    return f"[[{name}]]" if dict(schema.tables())[table].kind == "tables" else f"[{name}]"
