"""A daemon under the lab's systemd: the unit of this checkout under a name of its own, with what a test adds to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from tests.integration.daemon import pause, polls_in, wait_until
from tests.systemd.lab import CHECKOUT, Lab

UNIT = CHECKOUT / "systemd" / "paperloop.service"
# systemctl is a process: asked no more often than this.
ASK_EVERY_S = 0.05
FAST = "[feed]\npoll_interval_s = 0.05\n"
PAPERLOOP = "/opt/paperloop/.venv/bin/paperloop"


@dataclass(frozen=True, slots=True)
class Service:
    lab: Lab
    name: str

    def install(self, configuration: str = "", directives: str = "") -> None:
        """``directives`` are a drop-in's, for its section [Service]."""
        units = self.lab.path("/etc/systemd/system")
        (units / f"{self.name}.service").write_bytes(UNIT.read_bytes())
        folder = units / f"{self.name}.service.d"
        folder.mkdir()
        (folder / "test.conf").write_text(f"[Service]\nRestartSec=100ms\n{directives}")
        self.configure(configuration)
        self.lab.run("systemctl", "daemon-reload")

    def configure(self, text: str) -> None:
        self.lab.path(f"/etc/paperloop/{self.name}.toml").write_text(text)

    @property
    def ledger(self) -> Path:
        return self.lab.state / self.name / "paperloop.db"

    @property
    def polls(self) -> int:
        return polls_in(self.ledger)

    def systemctl(self, verb: str, *options: str) -> CompletedProcess[str]:
        return self.lab.tried("systemctl", *options, verb, self.name)

    def start(self) -> None:
        """Returns when it is ready."""
        started = self.systemctl("start")
        assert started.returncode == 0, (started, self.said())

    def kill(self, signal: str) -> None:
        self.lab.run("systemctl", "kill", f"--signal={signal}", "--kill-whom=main", self.name)

    def show(self, name: str) -> str:
        return self.lab.run("systemctl", "show", f"--property={name}", "--value", self.name).strip()

    @property
    def active(self) -> bool:
        return self.show("ActiveState") == "active"

    def wait_for(self, name: str, value: str) -> None:
        self.wait_until(lambda: self.show(name) == value, f"{name}={value}")

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        def asked() -> bool:
            pause(ASK_EVERY_S)
            return condition()

        wait_until(asked, f"{self.name}: {what}")

    def said(self) -> list[str]:
        """Its lines in the journal, and systemd's about it."""
        self.lab.run("journalctl", "--sync")
        return self.lab.run("journalctl", "--quiet", "--output=cat", f"--unit={self.name}").splitlines()

    def paperloop(self, verb: str) -> Any:
        """What a reading verb says of its ledger, asked by root as a user would."""
        ledger = f"storage.path=/var/lib/{self.name}/paperloop.db"
        return json.loads(self.lab.run(PAPERLOOP, verb, "--json", "--set", ledger))


def strategies(service: Service, text: str, name: str) -> str:
    """A folder with one strategy file, and the configuration that has it; relative as a user would write it."""
    folder = service.lab.path(f"/etc/paperloop/{service.name}")
    folder.mkdir()
    (folder / f"{name}.py").write_text(text)
    return f'strategy_folder = "{service.name}"\n[[strategy]]\nname = "{name}"\n'


def sound(service: Service) -> None:
    report = service.paperloop("audit")
    assert report["ok"], report
