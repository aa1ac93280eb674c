"""Dockerfile and compose.yaml, as far as they can be told to be right without docker."""

from __future__ import annotations

import json
import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
from pydantic import BaseModel
from typer.main import get_command

from bot import cli
from bot.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE, COMPOSE = (ROOT / "Dockerfile").read_text(), (ROOT / "compose.yaml").read_text()
USER = "10001"
VERBS = set(get_command(cli.shared.application).commands)  # type: ignore[attr-defined]


def instructions() -> list[tuple[str, str]]:
    """Each instruction with its arguments, comments left out and continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ")
    return [(words[0], words[1]) for line in text.splitlines() if (words := line.split(maxsplit=1))]


def last_stage() -> list[tuple[str, str]]:
    found = instructions()
    start = max(place for place, (name, _) in enumerate(found) if name == "FROM")
    return found[start:]


def only(name: str) -> str:
    """The arguments of an instruction that the image has once."""
    (found,) = (arguments for other, arguments in last_stage() if other == name)
    return found


def version(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def setting_of(variable: str) -> object:
    """What a variable of the environment sets; raises KeyError if there is no such setting."""
    model: type[BaseModel] = Settings
    *tables, key = variable.removeprefix("PAPERLOOP_").lower().split("__")
    for table in tables:
        model = model.model_fields[table].annotation  # type: ignore[assignment]
    return model.model_fields[key]


def test_every_stage_has_the_one_base_that_can_be_exchanged() -> None:
    found = instructions()
    assert found[0] == ("ARG", "BASE=python:3.13-slim")
    assert {arguments.split()[0] for name, arguments in found if name == "FROM"} == {"${BASE}"}
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert wanted.startswith(">=")
    assert version(found[0][1]) >= version(wanted)


def test_what_is_copied_is_there_and_not_ignored() -> None:
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] not in "#!"]
    wanted = re.findall(r"^!(.*)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert ignored[0] == "*"
    copied = [
        path
        for name, arguments in instructions()
        if name == "COPY" and not arguments.startswith("--from")
        for path in arguments.split()[:-1]
    ]
    assert sorted(copied) == sorted(wanted)
    assert all((ROOT / path).exists() for path in copied)
    assert not any(fnmatch(path, pattern) for path in copied for pattern in ignored[1:])


def test_nothing_is_installed_but_what_is_pinned() -> None:
    installs = [arguments for name, arguments in instructions() if name == "RUN" and "pip " in arguments]
    assert len(installs) == 2
    for line in installs:
        assert "--no-cache-dir" in line
        assert "--constraint constraints.txt" in line or "--no-deps" in line
    assert not any(name == "RUN" and "pip " in arguments for name, arguments in last_stage())


def test_it_is_nobody_in_particular_who_owns_the_volume() -> None:
    assert only("USER") == f"{USER}:{USER}"
    (folder,) = (arguments for name, arguments in last_stage() if name == "RUN")
    assert folder.split() == f"install --directory --owner {USER} --group {USER} --mode 0700 {only('VOLUME')}".split()
    assert f"PAPERLOOP_STORAGE__PATH={only('VOLUME')}/" in only("ENV")
    assert f"- data:{only('VOLUME')}\n" in COMPOSE


def test_signals_reach_the_daemon_itself() -> None:
    """No shell stands between: it would be process 1 and keep them."""
    assert json.loads(only("ENTRYPOINT")) == ["paperloop"]
    assert only("STOPSIGNAL") == "SIGTERM"
    assert json.loads(only("CMD"))[0] in VERBS


def test_health_is_asked_of_a_verb_that_there_is() -> None:
    program, verb, *_ = json.loads(only("HEALTHCHECK").partition(" CMD ")[2])
    assert program == json.loads(only("ENTRYPOINT"))[0]
    assert verb in VERBS


def test_the_settings_that_the_verbs_read_are_where_they_look_for_them() -> None:
    assert ("COPY", f"config/paperloop.toml {only('WORKDIR')}/config/paperloop.toml") in last_stage()
    assert f"- ./config:{only('WORKDIR')}/config:ro\n" in COMPOSE


@pytest.mark.parametrize("variable", sorted(set(re.findall(r"PAPERLOOP_\w+", DOCKERFILE + COMPOSE))))
def test_the_environment_sets_what_can_be_set(variable: str) -> None:
    assert setting_of(variable)


@pytest.mark.parametrize(
    "line",
    ["read_only: true", "cap_drop: [ALL]", 'security_opt: ["no-new-privileges:true"]', "restart: unless-stopped"],
)
def test_compose_gives_it_no_more_than_it_needs(line: str) -> None:
    assert f"    {line}\n" in COMPOSE


def test_its_port_is_for_this_machine_only() -> None:
    (ports,) = re.findall(r"^ +ports: (.*)$", COMPOSE, re.MULTILINE)
    assert json.loads(ports) == [f"127.0.0.1:{port}:{port}" for port in [Settings().http.port]]
