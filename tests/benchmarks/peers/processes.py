"""Engines as processes: which there are, and how they are asked."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[3]
ENGINES = "tests.benchmarks.peers.engines"


@dataclass(frozen=True, slots=True)
class Peer:
    """An engine: its module in ``engines``, what that is called with, and the packages that it imports.

    ``next_open``: it fills an order at the open of the next bar, not at the close of the bar that was decided on.
    ``ties``: it compares rounded averages, so that it may trade where they are equal.
    """

    name: str
    module: str
    packages: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    next_open: bool = False
    ties: bool = False


OURS = Peer("paperloop", "ours", ("bot",))
REFERENCE = Peer("numpy", "reference", ("numpy",))
PEERS = (
    Peer("numba", "numba", ("numba",)),
    Peer("vectorbt", "vectorbt", ("vectorbt",), ("numba",), ties=True),
    Peer("vectorbt-rust", "vectorbt", ("vectorbt", "vectorbt_rust"), ("rust",), ties=True),
    Peer("backtesting", "backtesting", ("backtesting",), ties=True),
    Peer("backtrader", "backtrader", ("backtrader",), ties=True),
    Peer("basana", "basana", ("basana",)),
    Peer("nautilus_trader", "nautilus_trader", ("nautilus_trader",), ties=True),
    Peer("jesse", "jesse", ("jesse",), ties=True),
    Peer("freqtrade", "freqtrade", ("freqtrade",), next_open=True, ties=True),
)

_HAS = "import sys, importlib.util as u; print(all(u.find_spec(name) for name in sys.argv[1:]))"


@dataclass(frozen=True, slots=True)
class Installed:
    """A peer and the interpreter that has it."""

    peer: Peer
    python: str


def installed(pythons: Sequence[str]) -> list[Installed]:
    """The peers that this environment has, or the interpreters, each NAME=PATH for one peer or PATH for all it has."""
    found = [Installed(peer, sys.executable) for peer in PEERS if all(map(importlib.util.find_spec, peer.packages))]
    for given in pythons:
        name, _, path = given.rpartition("=")
        if name and name not in {peer.name for peer in PEERS}:
            raise ValueError(f"no such peer: {name}; there are {', '.join(peer.name for peer in PEERS)}")
        wanted = [peer for peer in PEERS if peer.name == (name or peer.name)]
        has = [peer for peer in wanted if _has(path, peer)]
        if not has:
            raise ValueError(f"{path} has none of {', '.join(peer.name for peer in wanted)}")
        found += [Installed(peer, path) for peer in has]
    return found


def _has(python: str, peer: Peer) -> bool:
    command = [python, "-I", "-c", _HAS, *peer.packages]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "True"
    except (OSError, subprocess.CalledProcessError):
        raise ValueError(f"{python} is not an interpreter") from None


class EngineFailed(Exception):
    """What an engine said instead of an answer."""


@dataclass(slots=True)
class Engine:
    """A running process that answers requests, see ``engines.serving``."""

    peer: Peer
    requests: IO[str]
    answers: IO[str]
    errors: IO[bytes]
    version: str = ""
    works: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return f"{self.peer.name} {self.version}"

    def ask(self, work: str, tape: Path, *, repeat: int = 1) -> dict[str, Any]:
        """Raises EngineFailed."""
        request = {"work": work, "tape": str(tape), "repeat": repeat}
        with suppress(BrokenPipeError):  # it is gone: what it said last tells why
            self.requests.write(json.dumps(request) + "\n")
            self.requests.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        line = self.answers.readline()
        if not line:
            self.errors.seek(0)
            said = self.errors.read().decode(errors="replace").strip().splitlines()
            raise EngineFailed(said[-1] if said else "its process ended")
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise EngineFailed(found["error"])
        return found


@contextmanager
def running(peer: Peer, python: str = sys.executable) -> Iterator[Engine]:
    """The engine's process, ready to be asked. Raises EngineFailed if it does not start."""
    command = [python, "-W", "ignore", "-m", f"{ENGINES}.{peer.module}", *peer.arguments]
    pipe = subprocess.PIPE
    with (
        TemporaryFile() as errors,
        subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=errors, text=True) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            engine = Engine(peer, process.stdin, process.stdout, errors)
            hello = engine.answer()
            engine.version, engine.works = hello["version"], tuple(hello["works"])
            yield engine
        finally:
            process.kill()
            with suppress(BrokenPipeError):  # a request that never left is sent once more on closing
                process.stdin.close()
