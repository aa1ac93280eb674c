"""The daemon under strace: which system calls it made, in order, and how it takes errors that are put in.

The calls that change a ledger become typed events. What changes its bytes or tells the world of them counts from the
moment it begins, an fsync only once it has ended: of two calls that overlap, that is the worse case.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

import pytest

from tests.integration.daemon import MAIN, WAIT_S_MAX, Daemon, Result

# The journal lives only while the file is turned to WAL. -shm is rebuilt at every start; .lock holds no data.
LEDGER_FILES = ("", "-wal", "-journal")
SYNCS = ("fdatasync", "fsync")
WRITES = ("pwrite64", "pwritev", "write", "writev")
OTHERS = (
    "openat",
    "open",
    "ftruncate",
    "truncate",
    "fallocate",
    "unlink",
    "unlinkat",
    "rename",
    "renameat",
    "renameat2",
)
STDERR = 2
BYTES_SHOWN_MAX = 1 << 24

_LINE = re.compile(r"(\d+) +(?:<\.\.\. \w+ resumed>(.*)|(\w+)\((.*))")
_ANSWER = re.compile(r"\) += (-?\d+)(.*)$")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(?:\.\.\.)?')
_PATH = re.compile(r"(\d+|AT_FDCWD)<((?:\\x[0-9a-f]{2}|[^>\\])*)>(?:\(deleted\))?")
_UNFINISHED = " <unfinished ...>"


@dataclass(frozen=True, slots=True)
class Call:
    """``files``: the one behind the descriptor, else those named. ``numbers``: a pwrite64's length and offset, an
    ftruncate's size. ``result`` is -1 for every error. ``begun`` and ``ended`` are places in the order of all calls."""

    name: str
    files: list[str]
    descriptor: int | None
    data: bytes
    numbers: tuple[int, ...]
    flags: str
    result: int
    injected: bool
    begun: int
    ended: int


@dataclass(frozen=True, slots=True)
class Opened:
    file: str


@dataclass(frozen=True, slots=True)
class Written:
    file: str
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Resized:
    file: str
    size: int


@dataclass(frozen=True, slots=True)
class Synced:
    file: str


@dataclass(frozen=True, slots=True)
class Removed:
    file: str


@dataclass(frozen=True, slots=True)
class Told:
    """Bytes that have left the daemon on stderr."""

    data: bytes


Event = Opened | Written | Resized | Synced | Removed | Told


def need_strace(folder: Path) -> None:
    """Skips the test where there is no strace, or where it is not allowed to trace."""
    try:
        tried = subprocess.run(
            ["strace", "-f", "--seccomp-bpf", "-e", "trace=fsync", "-o", str(folder / "tried"), "true"],
            capture_output=True,
            text=True,
            check=False,
            timeout=WAIT_S_MAX,
        )
    except OSError as error:
        pytest.skip(f"strace: {error}")
    if tried.returncode:
        pytest.skip(f"strace exits with {tried.returncode}: {tried.stderr.strip()}")


def traced(
    *arguments: str,
    folder: Path,
    options: Iterable[str] = (),
    program: tuple[str, ...] = (str(MAIN),),
    environment: Mapping[str, str] | None = None,
) -> tuple[Result, list[Call]]:
    """Runs the daemon to its end; ``options`` narrow or disturb what is traced."""
    log = folder / "calls.strace"
    watched = ",".join(f"?{name}" for name in (*SYNCS, *WRITES, *OTHERS))
    # With --seccomp-bpf only the watched calls stop the process: the run takes a third of the time.
    how = ("-f", "--seccomp-bpf", "-qq", "-y", "-xx", "-s", str(BYTES_SHOWN_MAX), "-e", f"trace={watched}")
    before = ("strace", *how, *options, "-o", str(log))
    with Daemon(*arguments, folder=folder, before=before, program=program, environment=environment) as daemon:
        result = daemon.finish()
    with log.open(encoding="ascii") as lines:
        found = list(calls(lines))
    log.unlink()
    return result, found


def ledger_paths(ledger: Path) -> list[str]:
    return [str(ledger) + suffix for suffix in LEDGER_FILES]


def only(ledger: Path) -> list[str]:
    """Options that leave out every other file."""
    return [word for path in ledger_paths(ledger) for word in ("-P", path)]


def calls(lines: Iterable[str]) -> Iterator[Call]:
    """The calls of a log in the order in which they ended; one that the process did not live to see is left out."""
    begun: dict[str, tuple[int, str, str]] = {}
    for number, line in enumerate(lines):
        found = _LINE.match(line)
        if found is None:
            continue
        thread, rest, name, arguments = found.groups()
        start, name, text = (number, name, arguments) if name else begun.pop(thread)
        text += rest or ""
        if text.endswith(_UNFINISHED):
            begun[thread] = (start, name, text.removesuffix(_UNFINISHED))
        elif (answer := _ANSWER.search(text)) is not None:
            yield _call(name, text[: answer.start()], answer, (start, number))


def _call(name: str, arguments: str, answer: re.Match[str], lines: tuple[int, int]) -> Call:
    texts = [_bytes(text) for text in _TEXT.findall(arguments)]
    paths = _PATH.findall(_TEXT.sub("", arguments))
    plain = [word.strip() for word in _PATH.sub("", _TEXT.sub("", arguments)).split(",")]
    # An openat or unlinkat begins with a folder, and what it names is a file.
    on_descriptor = bool(paths) and paths[0][0].isdigit()
    return Call(
        name,
        [_bytes(paths[0][1]).decode()] if on_descriptor else [text.decode() for text in texts],
        int(paths[0][0]) if on_descriptor else None,
        b"".join(texts) if on_descriptor else b"",
        tuple(int(word) for word in plain if word.isdigit()),
        next((word for word in plain if word.startswith("O_")), ""),
        int(answer[1]),
        "(INJECTED)" in answer[2],
        *lines,
    )


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", "")) if text.startswith("\\x") else text.encode()


def events(found: Iterable[Call], ledger: Path) -> list[Event]:
    """What happened to a ledger's files and was said on stderr, in order. Raises ValueError for a change that it does
    not know: what is not understood cannot be rebuilt."""
    names = {path: Path(path).name for path in ledger_paths(ledger)}
    moments: list[tuple[int, Event]] = []
    for call in found:
        if call.result < 0:
            continue
        if call.descriptor == STDERR and call.name in WRITES:
            moments.append((call.begun, Told(call.data[: call.result])))
            continue
        for file in names.keys() & set(call.files):
            if (event := _event(call, names[file])) is not None:
                moments.append((call.ended if call.name in SYNCS else call.begun, event))
    return [event for _, event in sorted(moments, key=itemgetter(0))]


def _event(call: Call, file: str) -> Event | None:
    match call.name:
        case "openat" | "open" if "O_TRUNC" in call.flags:
            return Resized(file, 0)
        case "openat" | "open":
            return Opened(file) if "O_CREAT" in call.flags else None
        case "pwrite64" | "pwritev":
            if len(call.data) != call.result:
                raise ValueError(f"{call.name} wrote {call.result} bytes, and {len(call.data)} of them were seen")
            return Written(file, call.numbers[-1], call.data)
        case "ftruncate" | "truncate":
            return Resized(file, call.numbers[-1])
        case "fdatasync" | "fsync":
            return Synced(file)
        case "unlink" | "unlinkat":
            return Removed(file)
    raise ValueError(f"{call.name} changes {file} in a way that is not modelled")
