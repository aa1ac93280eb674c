"""The lab itself: nothing of it is left on the machine, whatever happened in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.systemd.lab import booted, hierarchies
from tests.systemd.service import FAST, Service

UNIT = "/etc/systemd/system/paperloop-left.service"


class Failed(Exception):
    """What a test that fails raises."""


def mounts(folder: Path) -> set[str]:
    """Those of the machine, without those that other tests come and go with."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return {line for line in lines if str(folder) in line or str(folder.parent) not in line}


def groups() -> set[Path]:
    return {path for tree in hierarchies() for path in tree.folder.glob(f"paperloop-lab-{os.getpid()}-*")}


def fails(folder: Path, processes: list[Path]) -> None:
    """With a daemon that runs, and nothing changed but in the lab."""
    before, others = mounts(folder), groups()
    with booted(folder) as lab:
        service = Service(lab, "paperloop-left")
        service.install(FAST)
        service.start()
        assert lab.path(UNIT).exists()
        assert not Path(UNIT).exists()
        assert mounts(folder) == before
        processes += [Path(f"/proc/{lab.init}"), *(group / "cgroup.procs" for group in groups() - others)]
        assert all(path.exists() for path in processes)
        raise Failed


@pytest.mark.usefixtures("lab")
def test_nothing_is_left_of_it(tmp_path: Path) -> None:
    before = mounts(tmp_path), groups()
    processes: list[Path] = []
    with pytest.raises(Failed):
        fails(tmp_path, processes)
    assert (mounts(tmp_path), groups()) == before
    assert len(processes) > 1
    assert not any(path.exists() for path in processes)
    assert list((tmp_path / "root").iterdir()) == []
