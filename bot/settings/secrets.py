"""The values that nobody may read: what they are, how else they may be written, and files that hold one."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from pydantic import BaseModel, SecretStr

from bot.settings.problems import is_secret

SECRET_FILE_BYTES_MAX = 4096
# A shorter one would make *** of half the words of a log, and is none.
_CHARS_MIN = 4
# A part of an address that is shorter is an ordinary word: a path, a port, a chat.
_PART_CHARS_MIN = 8
_LOGIN = re.compile(r"://([^/\s@]+)@")
_AUTHORITY_END = re.compile(r"[/?#]")
_PARTS = re.compile(r"[:/?#&=@,;]+")


def secrets_in(value: Any) -> tuple[str, ...]:
    """Every secret below a table of settings, and the parts that a message may have of it; the longest first."""
    found = {spelt for text in _texts(value, "") for spelt in _spellings(text) if len(spelt) >= _CHARS_MIN}
    return tuple(sorted(found, key=lambda text: (-len(text), text)))


def _texts(value: Any, key: str) -> Iterator[str]:
    match value:
        case SecretStr():
            yield from _address(value.get_secret_value())
        case BaseModel():
            for name, entry in value:
                yield from _texts(entry, name)
        case Mapping():
            for name, entry in value.items():
                yield from _texts(entry, key if is_secret(key) else name)
        case list() | tuple():
            for entry in value:
                yield from _texts(entry, key)
        case str() | int() | float() if is_secret(key) and not isinstance(value, bool):
            yield str(value)
        case str():
            for login in _LOGIN.findall(value):
                yield from _login(login)


def _address(text: str) -> Iterator[str]:
    """A secret as a whole; of an address also its password, and whatever in it is long enough to be a key."""
    yield text
    rest = text.partition("://")[2]
    for login in _LOGIN.findall(text):
        yield from _login(login)
    host = _AUTHORITY_END.split(rest, maxsplit=1)[0].rpartition("@")[2].partition(":")[0]
    for part in _PARTS.split(rest):
        # The name of a machine is none; where a key stands in its place it has no dot.
        if len(part) >= _PART_CHARS_MIN and not (part == host and ("." in part or part == "localhost")):
            yield part


def _login(login: str) -> Iterator[str]:
    yield login
    yield login.partition(":")[2]


def _spellings(text: str) -> Iterator[str]:
    """As it is, as it stands in an address, and as Python or JSON write it down."""
    for one in (text, unquote(text)):
        yield from (one, quote(one, safe=""), quote(one), repr(one)[1:-1], json.dumps(one)[1:-1])


def secret_file(path: Path) -> str:
    """What a file holds that is to be kept secret, without the line end of an editor; at most 4 kB.

    Raises ValueError with what is wrong with the file, which follows its name: others may read it, a group may change
    it, it is empty, too large or no text. A group may read it: that is how systemd hands over a credential.
    """
    try:
        # A pipe that nobody writes to would be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from None
    try:
        # Of what was opened, not of what is there by now.
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise ValueError("is no file")
        if told := too_open(mode):
            raise ValueError(told)
        data = os.read(descriptor, SECRET_FILE_BYTES_MAX + 1)
    finally:
        os.close(descriptor)
    if len(data) > SECRET_FILE_BYTES_MAX:
        raise ValueError(f"is larger than {SECRET_FILE_BYTES_MAX} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text or text != text.strip() or not text.isprintable():
        raise ValueError("must hold one line of text, and nothing else")
    return text


def too_open(mode: int) -> str | None:
    """Why a file of this mode is no place for a secret, or None."""
    if mode & 0o006:
        return f"is open to everybody (mode {stat.S_IMODE(mode):03o}): chmod 600"
    if mode & 0o020:
        return f"may be changed by its group (mode {stat.S_IMODE(mode):03o}): chmod 600"
    return None
