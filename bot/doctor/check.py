"""One finding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class State(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Check:
    """``text`` is one line for people, and says what to do where something is to be done; ``facts`` are its numbers."""

    name: str
    state: State
    text: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        return {"name": self.name, "state": self.state.value, "text": self.text, **self.facts}


def ok(name: str, text: str, **facts: Any) -> Check:
    return Check(name, State.OK, text, facts)


def warning(name: str, text: str, **facts: Any) -> Check:
    return Check(name, State.WARNING, text, facts)


def failed(name: str, text: str, **facts: Any) -> Check:
    return Check(name, State.FAILED, text, facts)
