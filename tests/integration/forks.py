"""Commands in forks of one process that has imported the program: processes of their own for a tenth of a start.

A fork has its own descriptors, folder, environment and end, and goes through all of ``main.py``; only Python's start
and the imports are not its own. Each test process has one such server, which ends with it.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

ROOT = Path(__file__).resolve().parents[2]
MODULES = ("bot.app", "bot.cli", "bot.proof", "bot.service.export", "bot.service.inspect", "bot.service.render")
REQUEST_BYTES_MAX = 1 << 17
WORD_BYTES = 8

_starting = threading.Lock()


def forked(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str], timeout_s: float
) -> tuple[int, str, str]:
    """Exit code (below zero: a signal's number), stdout and stderr. Raises TimeoutError, after which it is killed."""
    request = json.dumps([arguments, str(folder), dict(environment)]).encode()
    reader, writer = os.pipe()
    with open(reader, "rb") as status, TemporaryFile("w+") as out, TemporaryFile("w+") as err:
        try:
            with _starting:
                server = _server()
            socket.send_fds(server, [request], [out.fileno(), err.fileno(), writer])
        finally:
            os.close(writer)
        pid = _word(status, timeout_s)
        try:
            code = _word(status, timeout_s)
        except BaseException:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            raise
        for stream in (out, err):
            stream.seek(0)
        return code, out.read(), err.read()


def _word(status: IO[bytes], timeout_s: float) -> int:
    if not select.select([status], [], [], timeout_s)[0]:
        raise TimeoutError(f"not within {timeout_s:g} s")
    word = os.read(status.fileno(), WORD_BYTES)
    assert len(word) == WORD_BYTES, "the server of forks is gone"
    return int.from_bytes(word, sys.byteorder, signed=True)


@cache
def _server() -> socket.socket:
    """What it is asked through; it ends when this is closed."""
    mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-m", "tests.integration.forks", str(its.fileno())]
    # No thread but its own, which a fork would leave behind: as main.py has it.
    environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1"}
    with its:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[its.fileno()],
        )
    atexit.register(process.wait)
    atexit.register(mine.close)
    return mine


def _serve(channel: socket.socket) -> None:
    """Returns in each fork that is to be a command; in the server never."""
    # A Ctrl-C is for whoever runs the tests.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        request, descriptors, *_ = socket.recv_fds(channel, REQUEST_BYTES_MAX, 3)
        with suppress(ChildProcessError):
            # Of those that have ended by now nothing need be kept.
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not request:
            sys.exit()
        if os.fork() == 0:
            break
        for descriptor in descriptors:
            os.close(descriptor)
    channel.close()
    *streams, status = descriptors
    pid = os.fork()
    if pid:
        _tell_end(pid, status)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.close(status)
    for number, stream in enumerate(streams, start=1):
        os.dup2(stream, number)
        os.close(stream)
    arguments, folder, environment = json.loads(request)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["main.py", *arguments]


def _tell_end(pid: int, status: int) -> None:
    """The process between: the server's ear must be free for the next request."""
    os.write(status, pid.to_bytes(WORD_BYTES, sys.byteorder, signed=True))
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.write(status, code.to_bytes(WORD_BYTES, sys.byteorder, signed=True))
    os._exit(0)


if __name__ == "__main__":
    for module in MODULES:
        importlib.import_module(module)
    gc.collect()
    # What is there already is not looked through again, which would copy it.
    gc.freeze()
    _serve(socket.socket(fileno=int(sys.argv[1])))
    importlib.import_module("bot.entry").main()
