"""Nothing in ``bot`` can make a decision depend on anything but the tape: the lint, its exceptions, and its teeth."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.integration.daemon import paperloop, settings

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "bot").rglob("*.py"))
LINT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
BANNED = set(LINT["flake8-tidy-imports"]["banned-api"])

# The files for which pyproject.toml switches the ban off, and all they use of what is banned.
EXCEPTIONS = {
    # Each process works out numbers that depend on its part of a search alone.
    "bot/backtest/optimize/workers.py": {
        "multiprocessing.connection.Connection",
        "multiprocessing.connection.wait",
        "multiprocessing.get_context",
        "multiprocessing.process.BaseProcess",
    },
    "bot/clock.py": {"time.time", "time.monotonic"},
    "bot/exchange/catalogue.py": {"threading.Thread"},
    "bot/exchange/lookups.py": {
        "concurrent.futures.Future",
        "concurrent.futures.ThreadPoolExecutor",
        "threading.Thread",
    },
    "bot/service/stray.py": {"threading.ExceptHookArgs", "threading.excepthook"},
    "bot/service/stalls.py": {"threading.Event", "threading.Thread", "threading.get_ident"},
    "bot/service/alerts.py": {"threading.Event", "threading.Thread"},
    "bot/service/logs.py": {"threading.Thread"},
}
# Methods, which ruff does not know from others of that name. A TaskGroup's own create_task is the way to do it.
METHODS = {"create_task", "run_in_executor", "call_later", "call_at"}
TASK_GROUPS = {"group", "tasks", "task_group"}
# Their order is that of a hash seed or of a disk, unless somebody makes one of it who does not care.
UNORDERED = {"set", "frozenset", "listdir", "scandir", "glob", "rglob", "iterdir"}
INDIFFERENT = {"sorted", "set", "frozenset", "len", "min", "max", "any", "all"}
IN_ORDER = {"list", "tuple", "iter", "enumerate", "zip", "map", "filter", "join", "fromkeys", "extend", "sum", "fsum"}


def suspects(source: str) -> list[tuple[int, str]]:
    """Line and name of what in a module could bring in the world and is out of ruff's sight."""
    tree = ast.parse(source)
    return sorted({*_calls(tree), *_orders(tree)})


def _calls(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="hash" | "id" as name)):
                yield node.lineno, f"{name}()"
            case ast.Call(func=ast.Attribute(attr="create_task", value=ast.Name(id=owner))) if owner in TASK_GROUPS:
                pass
            case ast.Call(func=ast.Attribute(attr="time"), args=[], keywords=[]):
                yield node.lineno, "time"
            case ast.Call(func=ast.Attribute(attr=name)) if name in METHODS:
                yield node.lineno, name


def _orders(tree: ast.Module) -> Iterator[tuple[int, str]]:
    indifferent = {id(part) for node in ast.walk(tree) if _called(node) in INDIFFERENT for part in _arguments(node)}
    scopes = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Module)]
    for scope in scopes:
        names = {
            target.id
            for node in ast.walk(scope)
            if isinstance(node, ast.Assign) and _is_unordered(node.value, set())
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(scope):
            if id(node) in indifferent:
                continue
            for part in _gone_through(node):
                if id(part) not in indifferent and _is_unordered(part, names):
                    yield part.lineno, "order of a set"


def _gone_through(node: ast.AST) -> list[ast.expr]:
    """The expressions whose items a node takes in the order in which they come."""
    match node:
        case ast.For(iter=part) | ast.AsyncFor(iter=part) | ast.Starred(value=part) | ast.YieldFrom(value=part):
            return [part]
        case ast.ListComp(generators=loops) | ast.DictComp(generators=loops) | ast.GeneratorExp(generators=loops):
            return [loop.iter for loop in loops]
        case ast.Call() if _called(node) in IN_ORDER:
            return _arguments(node)
    return []


def _is_unordered(node: ast.expr, names: set[str]) -> bool:
    match node:
        case ast.Set() | ast.SetComp():
            return True
        case ast.Call():
            return _called(node) in UNORDERED
        case ast.BinOp(left=left, right=right, op=ast.BitOr() | ast.BitAnd() | ast.Sub() | ast.BitXor()):
            return any(_is_unordered(side, names) or _called(side) == "keys" for side in (left, right))
        case ast.Name(id=name):
            return name in names
    return False


def _called(node: ast.AST) -> str:
    match node:
        case ast.Call(func=ast.Name(id=name)) | ast.Call(func=ast.Attribute(attr=name)):
            return name
    return ""


def _arguments(node: ast.AST) -> list[ast.expr]:
    return node.args if isinstance(node, ast.Call) else []


def used(source: str) -> set[str]:
    """The dotted names of whatever banned thing a module uses; an import alone is not yet a use."""
    found = set()
    imported: dict[str, str] = {}
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {(alias.asname or alias.name.partition(".")[0]): alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported |= {(alias.asname or alias.name): f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        name = _dotted(node, imported)
        if name and any(f"{name}.".startswith(f"{banned}.") for banned in BANNED):
            found.add(name)
    return {name for name in found if not any(other.startswith(f"{name}.") for other in found)}


def _dotted(node: ast.AST, imported: dict[str, str]) -> str:
    match node:
        case ast.Name(id=name):
            return imported.get(name, "")
        case ast.Attribute(value=value, attr=attr):
            head = _dotted(value, imported)
            return f"{head}.{attr}" if head else ""
    return ""


def ruff(folder: Path, sources: Mapping[str, str]) -> dict[str, list[str]]:
    """By file, the banned names that the project's own lint finds in a copy of the project with these sources."""
    for name in ("pyproject.toml", "tests/ruff.toml"):
        _write(folder / name, (ROOT / name).read_text())
    for name, source in sources.items():
        _write(folder / name, source)
    process = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format=json", "."],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode in {0, 1}, process.stderr
    found: dict[str, list[str]] = {name: [] for name in sources}
    for problem in json.loads(process.stdout):
        if problem["code"] == "TID251":
            found[Path(problem["filename"]).relative_to(folder.resolve()).as_posix()].append(problem["message"])
    return found


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


class TestTheCode:
    @pytest.mark.parametrize("name", FILES)
    def test_nothing_that_ruff_cannot_see(self, name: str) -> None:
        found = [f"{name}:{line}: {what}" for line, what in suspects((ROOT / name).read_text())]
        assert found == []

    @pytest.mark.parametrize("name", FILES)
    def test_what_is_banned_is_used_where_it_is_named(self, name: str) -> None:
        assert used((ROOT / name).read_text()) == EXCEPTIONS.get(name, set())

    def test_the_exceptions_are_those_of_the_lint(self) -> None:
        ignoring = {path for path, rules in LINT["per-file-ignores"].items() if "TID251" in rules}
        assert {path for path in ignoring if path.startswith("bot/")} == set(EXCEPTIONS)

    def test_nobody_is_waved_through_line_by_line(self) -> None:
        assert [name for name in FILES if "noqa: TID251" in (ROOT / name).read_text()] == []


# A use of each thing that is banned, as somebody would write it.
PLANTED = [
    "import time\n\nnow = time.time()",
    "from time import time_ns\n\nnow = time_ns()",
    "import time as t\n\nnow = t.monotonic()",
    "from time import monotonic_ns as n\n\nnow = n()",
    "import time\n\nnow = time.perf_counter()",
    "import time\n\ntime.sleep(1)",
    "import datetime\n\nnow = datetime.datetime.now(datetime.UTC)",
    "from datetime import UTC, datetime\n\nnow = datetime.now(UTC)",
    "from datetime import datetime\n\nnow = datetime.utcnow()",
    "from datetime import datetime as d\n\nnow = d.today()",
    "from datetime import date\n\nnow = date.today()",
    "import random\n\ndie = random.randint(1, 6)",
    "from random import Random\n\ndie = Random(1)",
    "import secrets\n\nkey = secrets.token_hex()",
    "import numpy as np\n\nrng = np.random.default_rng(1)",
    "from numpy.random import default_rng\n\nrng = default_rng(1)",
    "import uuid\n\nidentity = uuid.uuid4()",
    "from uuid import uuid1\n\nidentity = uuid1()",
    "import uuid\n\nidentity = uuid.uuid7()",
    "import os\n\nnoise = os.urandom(8)",
    "import os\n\nos.system('true')",
    "import os\n\nos.fork()",
    "import threading\n\nthreading.Thread(target=print).start()",
    "from threading import Timer\n\nTimer(1, print).start()",
    "import concurrent.futures\n\npool = concurrent.futures.ThreadPoolExecutor()",
    "from concurrent.futures import ProcessPoolExecutor\n\npool = ProcessPoolExecutor()",
    "import multiprocessing as mp\n\nmp.Process().start()",
    "import subprocess\n\nsubprocess.run(['true'])",
    "import asyncio\n\n\nasync def work():\n    await asyncio.to_thread(print)",
    "import asyncio\n\n\nasync def work():\n    return asyncio.create_task(work())",
    "import asyncio as aio\n\n\nasync def work():\n    return aio.ensure_future(work())",
    "from asyncio import wait_for\n\n\nasync def work():\n    await wait_for(work(), 1)",
    "import asyncio\n\n\nasync def work():\n    await asyncio.sleep(1)",
    "import asyncio\n\n\nasync def work():\n    await asyncio.create_subprocess_exec('true')",
    "import asyncio\n\n\nasync def work():\n    await asyncio.create_subprocess_shell('true')",
    "import os\n\nos.popen('true')",
    "import os\n\nos.posix_spawn('true', [], {})",
    "import os\n\nnoise = os.getrandom(8)",
    "import uuid\n\nidentity = uuid.uuid6()",
    "import _thread\n\n_thread.start_new_thread(print, ())",
]
UNSEEN = [
    ("loop.create_task(work())", "create_task"),
    ("asyncio.get_running_loop().create_task(work())", "create_task"),
    ("loop.run_in_executor(None, work)", "run_in_executor"),
    ("now = asyncio.get_running_loop().time()", "time"),
    ("loop.call_later(1, work)", "call_later"),
    ("loop.call_at(1, work)", "call_at"),
    ("bucket = hash(symbol) % 8", "hash()"),
    ("order = sorted(symbols, key=id); key = id(symbols)", "id()"),
    ("for symbol in {'BTC', 'ETH'}: work(symbol)", "order of a set"),
    ("for symbol in set(symbols): work(symbol)", "order of a set"),
    ("found = [work(symbol) for symbol in {name for name in names}]", "order of a set"),
    ("found = list(frozenset(symbols))", "order of a set"),
    ("text = ', '.join({name for name in names})", "order of a set"),
    ("first, *rest = [*{1, 2}]", "order of a set"),
    ("first = next(iter(set(symbols)))", "order of a set"),
    ("total = sum({0.1, 0.2, 0.3})", "order of a set"),
    ("for name in config.keys() - known: work(name)", "order of a set"),
    ("for file in folder.glob('*.py'): work(file)", "order of a set"),
    ("files = list(os.listdir(folder))", "order of a set"),
    ("def f():\n    seen = {name for name in names}\n    for name in seen: work(name)", "order of a set"),
]
INNOCENT = [
    "async def run():\n    async with asyncio.TaskGroup() as tasks:\n        tasks.create_task(work())",
    "for symbol in sorted(set(symbols)): work(symbol)",
    "for file in sorted(folder.glob('*.py')): work(file)",
    "found = sorted(name for name in {n for n in names})",
    "found = {work(name) for name in set(names)}",
    "known = 'BTC' in {'BTC', 'ETH'}",
    "count = len(set(symbols))",
    "worst = max({1, 2})",
    "def f():\n    seen = set(names)\n    return ', '.join(sorted(seen))",
]


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What ruff says of each plant, in modules that nobody has made an exception for, and of the excepted ones."""
    sources = {f"bot/planted_{number}.py": f"{source}\n" for number, source in enumerate(PLANTED)}
    for name in EXCEPTIONS:
        sources[name] = sources[f"bot/copy_of_{Path(name).name}"] = (ROOT / name).read_text()
    sources["tests/threads.py"] = "import threading\n\nthreading.Thread()\n"
    sources["tests/sleeps.py"] = "import time\n\ntime.sleep(1)\n"
    return ruff(tmp_path_factory.mktemp("planted"), sources)


class TestItsTeeth:
    @pytest.mark.parametrize("number", range(len(PLANTED)), ids=[source.splitlines()[-1].strip() for source in PLANTED])
    def test_ruff_refuses(self, refused: dict[str, list[str]], number: int) -> None:
        assert refused[f"bot/planted_{number}.py"]

    def test_every_ban_was_tried(self, refused: dict[str, list[str]]) -> None:
        told = {message.split("`")[1] for messages in refused.values() for message in messages}
        assert told >= BANNED

    def test_the_named_exceptions_pass_where_they_stand_only(self, refused: dict[str, list[str]]) -> None:
        for name in EXCEPTIONS:
            assert refused[name] == []
            assert refused[f"bot/copy_of_{Path(name).name}"]

    def test_the_tests_may_start_threads_but_not_sleep(self, refused: dict[str, list[str]]) -> None:
        assert refused["tests/threads.py"] == []
        assert refused["tests/sleeps.py"]

    @pytest.mark.parametrize(("source", "what"), UNSEEN)
    def test_the_search_finds(self, source: str, what: str) -> None:
        assert what in {found for _, found in suspects(source)}

    @pytest.mark.parametrize("source", INNOCENT)
    def test_the_search_passes_by(self, source: str) -> None:
        assert suspects(source) == []


def test_one_digest_for_every_hash_seed_and_processor(tmp_path: Path) -> None:
    """Three symbols, three accounts and refusals: whatever goes through a set, by a hash or by wide sums would show."""
    strategies = (
        '[{name="sma_cross", params={fast=5, slow=20}}, {name="rsi_reversion", account="b", quote_amount=700},'
        ' {name="donchian_breakout", account="a", capital=50, equity_fraction=1}]'
    )
    keys = {"feed__symbols": '["SOL/USDT", "BTC/USDT", "ETH/USDT"]', "strategy": strategies, "log__level": "error"}
    wide = " ".join(np.show_config(mode="dicts")["SIMD Extensions"].get("found", []))
    environments = [{"PYTHONHASHSEED": "1"}, {"PYTHONHASHSEED": "2"}, {"NPY_DISABLE_CPU_FEATURES": wide}]
    results = [
        paperloop(
            *("run", "--max-speed", "--polls", "3000"),
            *settings(storage__path=f"{number}.db", **keys),
            folder=tmp_path,
            environment=environment,
        )
        for number, environment in enumerate(environments)
    ]
    assert [result.code for result in results] == [0, 0, 0], results
    first, *others = ({**result.summary, "ledger": ""} for result in results)
    assert int(first["signals"]) > int(first["trades"]) > 100
    assert others == [first, first]
