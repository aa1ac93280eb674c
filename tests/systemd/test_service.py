"""The daemon under a real systemd, in its real unit: started, watched, reloaded, killed and stopped."""

from __future__ import annotations

import fcntl
import json
import os
import stat
from pathlib import Path

import pytest

from bot.repositories.errors import EXIT_CONFIGURATION, EXIT_LEDGER_LOCKED
from bot.repositories.lock import lock_path
from tests.integration.daemon import rows
from tests.systemd.lab import CHECKOUT
from tests.systemd.service import FAST, UNIT, Service, sound, strategies

PROBE = Path(__file__).with_name("probe.py")
TOKEN = "a-token-that-nobody-else-can-read"
# What a crash is to systemd, before anything is opened.
CRASHES = "import os\n\nos.kill(os.getpid(), 9)\n"


def example() -> str:
    """The drop-in that is a comment of the unit."""
    return "\n".join(line[4:] for line in UNIT.read_text().splitlines() if line.startswith("#   "))


def commands(section: str, name: str) -> list[str]:
    """The blocks of a section of the README, for a unit of another name; whoever runs them here is root already."""
    text = (CHECKOUT / "systemd" / "README.md").read_text().split(f"\n## {section}\n")[1].split("\n## ")[0]
    blocks = [part.split("```")[0] for part in text.split("```sh\n")[1:]]
    for word in ("/var/lib/", "systemctl stop ", "systemctl start "):
        blocks = [block.replace(f"{word}paperloop", word + name) for block in blocks]
    return ['sudo() { "$@"; }\n' + block for block in blocks]


def test_ready_with_a_first_step_and_stopped_with_everything_committed(service: Service) -> None:
    service.install(FAST)
    service.start()
    assert service.polls > 0
    shown = service.systemctl("status").stdout
    assert "Active: active (running)" in shown
    assert 'Status: "equity sma_cross ' in shown
    before = service.polls
    service.wait_until(lambda: service.polls > before + 5, "some polls")
    assert service.systemctl("stop").returncode == 0
    assert (service.show("Result"), service.show("ExecMainStatus")) == ("success", "0")
    log = service.ledger.with_name("paperloop.db-wal")
    assert not log.exists() or log.stat().st_size == 0
    summary = dict(line.split(maxsplit=1) for line in service.said() if line.startswith(("polls ", "reason ")))
    assert summary == {"polls": str(service.polls), "reason": "stopped"}
    assert rows(service.ledger, "SELECT stop_reason FROM runs") == [("stopped",)]
    sound(service)


def test_killed_and_started_again(service: Service) -> None:
    service.install(FAST)
    service.start()
    service.kill("KILL")
    service.wait_until(lambda: service.show("NRestarts") == "1" and service.active, "started again")
    sound(service)
    assert [reason for (reason,) in rows(service.ledger, "SELECT stop_reason FROM runs")] == [None, None]


def test_reloaded(service: Service) -> None:
    service.install(FAST)
    service.start()
    process = service.show("MainPID")
    service.configure(FAST + "[storage]\nkeep_ticks_days = 7\n[execution]\nslippage_bps = 1\n")
    assert service.systemctl("reload").returncode == 0
    service.wait_until(lambda: any("settings read again" in line for line in service.said()), "read again")
    event = json.loads(next(line for line in service.said() if "settings read again" in line))
    assert event["changed"] == ["storage.keep_ticks_days"]
    assert event["need_a_restart"] == ["execution.slippage_bps"]
    service.wait_until(lambda: service.active, "running")
    polls = service.polls
    service.wait_until(lambda: service.polls > polls, "another poll")
    assert (service.show("MainPID"), service.show("NRestarts")) == (process, "0")


def test_a_bad_configuration_is_not_tried_again(service: Service) -> None:
    service.install("[feed]\npoll_interval_s = -1\n")
    assert service.systemctl("start").returncode == 1
    assert service.show("ActiveState") == "failed"
    assert (service.show("ExecMainStatus"), service.show("NRestarts")) == (str(EXIT_CONFIGURATION), "0")
    assert any("poll_interval_s" in line for line in service.said())


def test_a_ledger_in_use_is_not_tried_again(service: Service) -> None:
    service.install(FAST)
    service.start()
    service.systemctl("stop")
    with lock_path(service.ledger).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert service.systemctl("start").returncode == 1
    assert service.show("ActiveState") == "failed"
    assert (service.show("ExecMainStatus"), service.show("NRestarts")) == (str(EXIT_LEDGER_LOCKED), "0")
    # Root's reading, which makes files beside the ledger, leaves one that can be started on.
    sound(service)
    polls = service.polls
    service.start()
    assert service.polls > polls


def test_what_it_may_and_may_not(service: Service) -> None:
    token = service.lab.path("/etc/paperloop/http-token")
    token.write_text(TOKEN)
    token.chmod(0o600)
    service.install(strategies(service, PROBE.read_text(), "probe"), example())
    service.start()
    found = json.loads((service.ledger.parent / "probe.json").read_text())
    assert set(found.pop("outside").values()) <= {"OSError", "PermissionError", "FileNotFoundError"}
    assert set(found.pop("inside").values()) == {"5"}
    assert set(found.pop("run").values()) == {"PermissionError"}
    assert found == {
        "write and execute": "PermissionError",
        "netlink": "OSError",
        "packet": "OSError",
        "priority": "PermissionError",
        "root": "PermissionError",
        "home": "PermissionError",
        "other processes": True,
        "kernel": False,
        "capabilities": "0000000000000000",
        "bounding": "0000000000000000",
        "seccomp": "2",
        "no new privileges": "1",
        "core": 0,
        "sorted": "5000",
        "temporary": "None",
        "tls": True,
        "http": "aiohttp",
        "secret": TOKEN,
    }
    folder = service.ledger.parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = {path.name: path.stat() for path in folder.iterdir()}
    assert {"paperloop.db", "paperloop.db-wal", "paperloop.db-shm", "paperloop.db.lock"} <= files.keys()
    assert {stat.S_IMODE(file.st_mode) for file in files.values()} <= {0o600, 0o700}
    assert {file.st_uid for file in files.values()} == {folder.stat().st_uid}
    assert folder.stat().st_uid != os.geteuid()


@pytest.mark.usefixtures("takes_seconds")
def test_a_crash_loop_ends(service: Service) -> None:
    service.install(strategies(service, CRASHES, "crashes"))
    assert service.systemctl("start").returncode == 1
    service.wait_for("ActiveState", "failed")
    said = service.said()
    assert sum("Starting" in line for line in said) == 5, said
    assert service.show("Result") == "signal"
    assert any("Start request repeated too quickly." in line for line in said)


@pytest.mark.usefixtures("takes_seconds")
def test_backed_up_and_restored_by_the_commands_of_the_readme(service: Service) -> None:
    backup, restore = commands("Backup", service.name)
    service.install(FAST)
    service.start()
    service.lab.run("sh", "-ec", backup)
    polls = service.polls
    service.wait_until(lambda: service.polls > polls + 5, "what the copy has not")
    service.lab.run("sh", "-ec", restore)
    service.wait_until(lambda: service.active, "trading on the copy")
    sound(service)
    # The run that was copied while it ran, and the one on the copy.
    assert [reason for (reason,) in rows(service.ledger, "SELECT stop_reason FROM runs")] == [None, None]
    assert service.ledger.stat().st_uid == service.ledger.parent.stat().st_uid
