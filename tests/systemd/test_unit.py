"""What systemd's own tools say of the unit file."""

from __future__ import annotations

from tests.systemd.lab import CHECKOUT, Lab
from tests.systemd.service import UNIT, Service

SIMULATED = CHECKOUT / "systemd" / "simulated.conf"
EXPOSURE_MAX = 15  # 1.5


def exposed(lab: Lab, unit: str, exposure_max: int) -> None:
    command = ("systemd-analyze", "security", "--offline=true", f"--threshold={exposure_max}", unit)
    done = lab.tried(*command)
    assert done.returncode == 0, done.stdout.splitlines()[-1:]


def test_verified(lab: Lab) -> None:
    done = lab.tried("systemd-analyze", "verify", "/etc/systemd/system/paperloop.service")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_locked_down(lab: Lab) -> None:
    exposed(lab, "/etc/systemd/system/paperloop.service", EXPOSURE_MAX)


def test_locked_down_further_without_a_network(service: Service) -> None:
    service.install(directives=SIMULATED.read_text().partition("[Service]\n")[2])
    exposed(service.lab, f"/etc/systemd/system/{service.name}.service", 2)
    service.start()
    assert service.polls > 0


def test_an_exchange_that_is_down_never_uses_up_the_starts(lab: Lab) -> None:
    """Starts that the watchdog or the time-out ended are so far apart that the limit on starts is for crashes alone."""
    given = dict(line.split("=", 1) for line in UNIT.read_text().splitlines() if "=" in line and line[0] != "#")
    names = ("StartLimitIntervalSec", "RestartSec", "WatchdogSec", "TimeoutStartSec")
    interval_us, pause_us, *ends_us = (microseconds(lab, given[name]) for name in names)
    assert all(int(given["StartLimitBurst"]) * (end_us + pause_us) > interval_us for end_us in ends_us)


def microseconds(lab: Lab, span: str) -> int:
    told = lab.run("systemd-analyze", "timespan", span)
    return int(next(line.split()[1] for line in told.splitlines() if line.strip().startswith("μs:")))
