"""A strategy file that tries what the unit should allow and what it should not, in the daemon's own process, and writes
what came of it beside the ledger. It is loaded by the daemon only, from a copy."""

from __future__ import annotations

import json
import mmap
import os
import resource
import socket
import sqlite3
import ssl
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import aiohttp

from bot.domain import Bars, FloatArray
from bot.strategies import build

STATE = Path(os.environ["STATE_DIRECTORY"])


def tried(action: Callable[[], object]) -> str:
    """The error's name, or what it answered."""
    try:
        return str(action())
    except (OSError, ssl.SSLError, sqlite3.Error) as error:
        return type(error).__name__


def written(folder: Path) -> Callable[[], object]:
    return lambda: (folder / "probe").write_text("probe")


def executed_from(folder: Path) -> str:
    """What is written there cannot be run, though it is marked as a program."""
    program = folder / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    return tried(lambda: subprocess.run([program], check=False).returncode)


def sorted_rows() -> int:
    """More than SQLite sorts in memory: it needs a temporary file."""
    with closing(sqlite3.connect(STATE / "sorted.db")) as connection:
        connection.execute("PRAGMA cache_size = 10")
        connection.execute(
            "CREATE TABLE t AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)"
            " SELECT hex(randomblob(500)) AS x FROM n"
        )
        connection.commit()
        rows = connection.execute("SELECT x FROM t ORDER BY x").fetchall()
        connection.execute(f"VACUUM INTO '{STATE / 'copy.db'}'")
    return len(rows)


def status(field: str) -> str:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(f"{field}:"))


def findings() -> dict[str, object]:
    outside = (
        "/etc/paperloop",
        "/opt/paperloop",
        "/usr",
        "/var/lib",
        "/var/log",
        "/run",
        "/dev",
        "/home",
        "/root",
        "/",
    )
    inside = (str(STATE), "/tmp", "/var/tmp")  # noqa: S108 - whether these can be written is the question
    return {
        "outside": {path: tried(written(Path(path))) for path in outside},
        "inside": {path: tried(written(Path(path))) for path in inside},
        "run": {path: executed_from(Path(path)) for path in inside},
        "write and execute": tried(lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC)),
        "netlink": tried(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)),
        "packet": tried(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)),
        "priority": tried(lambda: os.setpriority(os.PRIO_PROCESS, 0, -5)),
        "root": tried(lambda: os.setuid(0)),
        "other processes": [path.name for path in Path("/proc").iterdir() if path.name.isdigit()] == [str(os.getpid())],
        "kernel": Path("/proc/kallsyms").exists() or Path("/proc/sys").exists(),
        "home": tried(lambda: os.listdir("/home")),
        "capabilities": status("CapEff"),
        "bounding": status("CapBnd"),
        "seccomp": status("Seccomp"),
        "no new privileges": status("NoNewPrivs"),
        "core": resource.getrlimit(resource.RLIMIT_CORE)[1],
        "sorted": tried(sorted_rows),
        "temporary": tried(lambda: tempfile.TemporaryFile().close()),
        "tls": bool(ssl.create_default_context().get_ca_certs()),
        "http": aiohttp.__name__,
        "secret": tried(lambda: Path(os.environ["PAPERLOOP_HTTP__TOKEN_FILE"]).read_text()),
    }


# The daemon loads a strategy file more than once.
if not (found := STATE / "probe.json").exists():
    found.write_text(json.dumps(findings()))


class Probe:
    name = "probe"
    lookback = 1

    def targets(self, bars: Bars) -> FloatArray:
        return build("buy_and_hold").targets(bars)
