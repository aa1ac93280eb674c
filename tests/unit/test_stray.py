"""What libraries say by themselves is a log line like any other."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import threading
import warnings
import weakref

import pytest
from structlog.testing import LogCapture

from bot.service.stray import gathered, on_loop
from tests.observed import log_to


@pytest.fixture
def lines() -> LogCapture:
    return LogCapture()


def test_a_librarys_log(lines: LogCapture) -> None:
    with gathered(log_to(lines)):
        logging.getLogger("ccxt.base").warning("odd\n%s", "answer")
        logging.getLogger("ccxt.base").info("not worth it")
        # A library's mistake; not through its logger, where pytest would find it first.
        mistake = {"name": "aiohttp", "msg": "%d things", "args": ("no number",), "levelno": logging.ERROR}
        logging.getLogger().handlers[-1].emit(logging.makeLogRecord(mistake))
    assert [(line["logger"], line["error"], line["log_level"]) for line in lines.entries] == [
        ("ccxt.base", "odd\nanswer", "warning"),
        ("aiohttp", "%d things", "error"),
    ]
    assert logging.getLogger().handlers == [
        h for h in logging.getLogger().handlers if "stray" not in type(h).__module__
    ]


def test_a_warning(lines: LogCapture) -> None:
    with gathered(log_to(lines)), warnings.catch_warnings():
        warnings.simplefilter("always")
        # catch_warnings puts its own in place: what is tried is what the block has set.
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert (lines.entries[0]["kind"], lines.entries[0]["error"]) == ("DeprecationWarning", "old")


def test_what_a_finaliser_raises(lines: LogCapture) -> None:
    class Bad:
        def __del__(self) -> None:
            raise ValueError("too late")

    with gathered(log_to(lines)):
        Bad()
        gc.collect()
    assert isinstance(lines.entries[0]["exc_info"], ValueError)


def test_what_cannot_be_shown_when_it_dies(lines: LogCapture, capfd: pytest.CaptureFixture[str]) -> None:
    class Bad:
        def __call__(self, gone: object) -> None:
            raise ValueError("too late")

        def __repr__(self) -> str:
            raise ValueError("nor this")

    class Watched:
        pass

    with gathered(log_to(lines)):
        watched = Watched()
        reference = weakref.ref(watched, Bad())
        del watched
        gc.collect()
    assert reference() is None
    assert isinstance(lines.entries[0]["exc_info"], ValueError)
    assert capfd.readouterr().err == ""


def test_a_thread_that_dies(lines: LogCapture) -> None:
    def dies() -> None:
        raise ValueError("alone")

    with gathered(log_to(lines)):
        thread = threading.Thread(target=dies, name="lonely")
        thread.start()
        thread.join()
    assert lines.entries[0]["thread"] == "lonely"


async def test_a_callback_that_raises(lines: LogCapture) -> None:
    def fails() -> None:
        raise ValueError("in between")

    loop = asyncio.get_running_loop()
    on_loop(loop, log_to(lines))
    loop.call_soon(fails)
    done = asyncio.Event()
    loop.call_soon(done.set)
    await done.wait()
    assert isinstance(lines.entries[0]["exc_info"], ValueError)


def test_all_of_it_is_put_back(lines: LogCapture) -> None:
    before = sys.unraisablehook, threading.excepthook, warnings.showwarning, list(logging.getLogger().handlers)
    with gathered(log_to(lines)):
        assert sys.unraisablehook is not before[0]
    assert before == (sys.unraisablehook, threading.excepthook, warnings.showwarning, logging.getLogger().handlers)
