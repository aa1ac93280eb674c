"""This machine's own systemd, booted as process 1 of its own namespaces on this machine's own files.

Its root is an overlay whose upper side is in memory, its processes are in a cgroup of their own, and all of it ends
with process 1. The network is the machine's, so that an exchange of the tests can be asked.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL
from typing import IO

import pytest

from tests.integration.daemon import MAIN, WAIT_S_MAX, wait_until

CHECKOUT = MAIN.parent
BOOT = Path(__file__).with_name("boot.sh")
SYSTEMD = Path("/lib/systemd/systemd")
TOOLS = ("unshare", "nsenter", "setpriv", "mount", "pivot_root", "ldconfig", "systemctl", "systemd-analyze")
NAMESPACES = ("--mount", "--pid", "--cgroup", "--ipc", "--uts")
# Version 1's that systemd looks for, by their names there; "" is version 2.
CONTROLLERS = {"": "unified", "name=systemd": "systemd", "memory": "memory", "pids": "pids"}
UNSHARED = ("unshare", *NAMESPACES, "--propagation", "private", "--fork", "--kill-child")
BOOTED = ("running", "degraded")
# What boot.sh begins with, and not every machine or container lets root do.
TRIAL = """
mount -t tmpfs lab /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work lab /mnt/root
"""


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A tree of cgroups: how systemd calls it, and the folder of the group that we are in."""

    name: str
    folder: Path


def hierarchies() -> list[Hierarchy]:
    """Those that a systemd of our own needs, as far as this machine has them."""
    mounts = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        words = line.split()
        kind, _, options = words[words.index("-") + 1 :][:3]
        if kind == "cgroup2":
            mounts[""] = Path(words[4])
        elif kind == "cgroup":
            mounts |= {option: Path(words[4]) for option in options.split(",") if option in CONTROLLERS}
    found = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        found += [
            Hierarchy(CONTROLLERS[name], mounts[name] / path.lstrip("/"))
            for name in names.split(",")
            if name in CONTROLLERS and name in mounts
        ]
    if "systemd" in (each.name for each in found):
        return found
    # Version 2 by itself is enough.
    return [Hierarchy("alone", each.folder) for each in found if each.name == "unified"]


class NotBooted(Exception):
    """This machine does not let a systemd start; with its last words."""


class Lab:
    def __init__(self, init: int, state: Path) -> None:
        """``init`` is process 1 as the machine numbers it; ``state`` is the lab's /var/lib/private."""
        self.init, self.state = init, state

    def path(self, inside: str) -> Path:
        return Path(f"/proc/{self.init}/root{inside}")

    def tried(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command inside, as root, to its end."""
        return subprocess.run(
            ["nsenter", "--target", str(self.init), "--all", *command],
            env={"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/root"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=WAIT_S_MAX,
        )

    def run(self, *command: str) -> str:
        done = self.tried(*command)
        assert done.returncode == 0, done
        return done.stdout


def need_lab() -> None:
    """Skips the test where no systemd can be booted."""
    if os.geteuid() != 0:
        pytest.skip("systemd: only root can boot one")
    missing = [name for name in TOOLS if shutil.which(name) is None]
    if missing or not SYSTEMD.exists():
        pytest.skip(f"systemd: there is no {', '.join(missing) or SYSTEMD}")
    trees = hierarchies()
    if not trees or not all(os.access(tree.folder, os.W_OK) for tree in trees):
        pytest.skip("systemd: there are no cgroups that it could use")
    tried = subprocess.run([*UNSHARED, "sh", "-ec", TRIAL], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"systemd: {tried.stderr.strip()}")


@contextmanager
def booted(folder: Path) -> Iterator[Lab]:
    """A systemd that has started, and of which nothing is left at the end. Raises NotBooted."""
    trees = hierarchies()
    groups = [tree.folder / f"paperloop-lab-{os.getpid()}-{folder.name}" for tree in trees]
    log = folder / "console"
    root, state = folder / "root", folder / "state"
    root.mkdir()
    state.mkdir(0o700)
    try:
        try:
            for group in groups:
                group.mkdir()
        except OSError as error:
            raise NotBooted(f"no cgroup of its own: {error}") from None
        with (
            log.open("w") as console,
            _unshared(groups, [tree.name for tree in trees], (root, state), console) as process,
        ):
            init = _first(process, log)
            lab = Lab(init, state)
            try:
                _wait_until(process, log, lambda: lab.tried("systemctl", "is-system-running").stdout.strip() in BOOTED)
                yield lab
            finally:
                # With it, the kernel ends every process of the lab; its parent reaps it.
                if process.poll() is None:
                    os.kill(init, SIGKILL)
                    process.wait(WAIT_S_MAX)
    finally:
        for group in groups:
            wait_until(lambda group=group: _removed(group), f"{group} is empty")  # type: ignore[misc]


@contextmanager
def _unshared(
    groups: Sequence[Path], names: Sequence[str], folders: Sequence[Path], console: IO[str]
) -> Iterator[subprocess.Popen[bytes]]:
    # In its cgroups before it has a namespace of them: its own group is the root of what it sees.
    enter = 'for group in $0; do echo $$ > "$group/cgroup.procs"; done; exec "$@"'
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    boot = ("sh", *map(str, (BOOT, *folders, CHECKOUT)), sys.base_prefix, sysconfig.get_path("purelib"), python, *names)
    process = subprocess.Popen(
        # Ended with the thread that started it, should that be killed.
        ["setpriv", "--pdeathsig", "KILL", "sh", "-ec", enter, " ".join(map(str, groups)), *UNSHARED, *boot],
        stdin=subprocess.DEVNULL,
        stdout=console,
        stderr=console,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(WAIT_S_MAX)


def _first(process: subprocess.Popen[bytes], log: Path) -> int:
    """Process 1, as the machine numbers it."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    _wait_until(process, log, lambda: bool(children.read_text()))
    return int(children.read_text())


def _wait_until(process: subprocess.Popen[bytes], log: Path, condition: Callable[[], bool]) -> None:
    def met() -> bool:
        if process.poll() is not None:
            raise NotBooted(f"it ended: {log.read_text()}")
        return condition()

    try:
        wait_until(met, "systemd has started")
    except AssertionError as error:
        raise NotBooted(f"{error}: {log.read_text()}") from None


def _removed(group: Path) -> bool:
    """Removes a cgroup with those in it; False as long as a process is still ending there."""
    if not group.exists():
        return True
    for path, _, _ in os.walk(group, topdown=False):
        with suppress(OSError):
            os.rmdir(path)
    return not group.exists()
