"""One lab for all tests here, and a daemon of its own for each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.systemd.lab import Lab, NotBooted, booted, need_lab
from tests.systemd.service import Service


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    need_lab()
    with ExitStack() as stack:
        try:
            lab = stack.enter_context(booted(tmp_path_factory.mktemp("systemd")))
        except NotBooted as error:
            pytest.skip(f"systemd does not boot here: {error}")
        yield lab


@pytest.fixture
def service(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Service]:
    """Called as the test is, and not installed yet; gone at the test's end, so that it costs the next one nothing."""
    service = Service(lab, request.node.name.removeprefix("test_").replace("_", "-"))
    yield service
    # Not asked to stop: what a failed test has left may not hear.
    lab.tried("systemctl", "kill", "--signal=KILL", service.name)
    service.systemctl("stop")


@pytest.fixture
def takes_seconds() -> None:
    """For a test that takes systemd seconds."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # Before a lab is booted for it.
    if not config.getoption("--systemd"):
        for item in items:
            if isinstance(item, pytest.Function) and "takes_seconds" in item.fixturenames:
                item.add_marker(pytest.mark.skip(reason="takes seconds: --systemd"))
