"""Disks of a test's own, to be filled, frozen and taken away. They need root: without it a test is skipped."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import which

import pytest

from tests.integration.daemon import WAIT_S_MAX, pause

PAGE = 4096
UNMOUNT_TRIES = 50


def _run(*command: str) -> str | None:
    """None if it did what it was asked for, else why not."""
    path = which(command[0], path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if path is None:
        return f"{command[0]} is not installed"
    done = subprocess.run(
        [path, *command[1:]], capture_output=True, text=True, timeout=WAIT_S_MAX, check=False, stdin=subprocess.DEVNULL
    )
    return None if done.returncode == 0 else f"{command[0]}: {done.stderr.strip()}"


def _needed(refusal: str | None) -> None:
    if refusal is not None:
        pytest.skip(refusal)


@contextmanager
def _mounted(folder: Path, *options: str) -> Iterator[Path]:
    if os.geteuid():
        pytest.skip("only root may mount a disk")
    folder.mkdir(exist_ok=True)
    _needed(_run("mount", *options, str(folder)))
    try:
        yield folder
    finally:
        _unmount(folder)


def _unmount(folder: Path) -> None:
    for _ in range(UNMOUNT_TRIES):
        # A process that was killed holds its files for a moment longer.
        if _run("umount", str(folder)) is None:
            return
        pause(0.02)
    assert _run("umount", "--lazy", str(folder)) is None, folder


@contextmanager
def small_disk(folder: Path, size: str = "2m") -> Iterator[Path]:
    """A disk in memory with room for so much."""
    with _mounted(folder, "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs") as disk:
        yield disk


def make_read_only(disk: Path) -> None:
    """For a disk that nobody writes to."""
    _needed(_run("mount", "-o", "remount,ro", str(disk)))


def make_writable(disk: Path) -> None:
    _needed(_run("mount", "-o", "remount,rw", str(disk)))


@contextmanager
def journalled_disk(image: Path, folder: Path) -> Iterator[Path]:
    """A real file system in ``image``, which outlives its mount as a disk outlives a restart."""
    if not image.exists():
        with image.open("wb") as file:
            file.truncate(16 * 2**20)
        _needed(_run("mke2fs", "-q", "-F", "-t", "ext4", "-b", str(PAGE), str(image)))
    with _mounted(folder, "-o", "loop", str(image)) as disk:
        yield disk


def abort(disk: Path) -> None:
    """What the kernel does to a file system that it finds broken: nothing can be written any more."""
    _needed(_run("mount", "-o", "remount,abort", str(disk)))


@contextmanager
def frozen(disk: Path) -> Iterator[None]:
    """Every write waits until the end of the block."""
    _needed(_run("fsfreeze", "--freeze", str(disk)))
    try:
        yield
    finally:
        assert _run("fsfreeze", "--unfreeze", str(disk)) is None


@contextmanager
def immutable(*files: Path) -> Iterator[None]:
    """Files that can be read and not written to, by those either who have them open."""
    names = [str(file) for file in files]
    _needed(_run("chattr", "+i", *names))
    try:
        yield
    finally:
        assert _run("chattr", "-i", *names) is None


def fill(disk: Path) -> Path:
    """Takes all the room that is left; to remove the file that is returned gives it back."""
    ballast = disk / "ballast"
    with ballast.open("ab", buffering=0) as file:
        for size in (64 * PAGE, PAGE, 1):
            with suppress(_Full):
                while True:
                    _append(file.fileno(), size)
    return ballast


class _Full(Exception):
    pass


def _append(handle: int, size: int) -> None:
    try:
        written = os.write(handle, bytes(size))
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _Full from None
        raise
    if written < size:
        raise _Full
