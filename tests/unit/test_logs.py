"""Log lines: one an event, as few as can be, and never in the way of a trade."""

from __future__ import annotations

import errno
import io
import json
import os
import resource
import select
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.typing import FilteringBoundLogger

from bot.service.logs import QUEUE_LINES, REPEAT_S, LineWriter, logging_to
from tests.integration.daemon import wait_until

WAIT_S_MAX = 10.0


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Stalled(io.StringIO):
    """A reader that takes nothing until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.released, self.reached = threading.Event(), threading.Event()

    def write(self, text: str) -> int:
        self.reached.set()
        self.released.wait(WAIT_S_MAX)
        return super().write(text)


class Gone(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


class Full(io.StringIO):
    """A disk that is full for so many lines."""

    def __init__(self, lines: int) -> None:
        super().__init__()
        self.refuses, self.asked = lines, threading.Semaphore(0)

    def write(self, text: str) -> int:
        try:
            if self.refuses:
                self.refuses -= 1
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(text)
        finally:
            self.asked.release()


class Ticking:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def events(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@contextmanager
def logged(
    stream: io.StringIO, level: str = "info", form: str = "json", monotonic: Callable[[], float] = float
) -> Iterator[FilteringBoundLogger]:
    with logging_to(stream, level, form, monotonic) as log:
        yield log


class TestForm:
    @pytest.mark.parametrize(
        ("stream", "form", "is_json"),
        [
            (io.StringIO(), "auto", True),
            (Terminal(), "auto", False),
            (Terminal(), "json", True),
            (io.StringIO(), "console", False),
        ],
    )
    def test_for_eyes_on_a_terminal_and_for_machines_elsewhere(
        self, stream: io.StringIO, form: str, is_json: bool
    ) -> None:
        with logged(stream, form=form) as log:
            log.info("trade", symbol="BTC/USDT", amount=0.5)
        line = stream.getvalue()
        assert line.endswith("\n")
        assert line.startswith("{") is is_json
        assert "BTC/USDT" in line

    def test_a_json_line(self) -> None:
        stream = io.StringIO()
        with logged(stream) as log:
            log.info("trade", symbol="BTC/USDT", amount=0.5)
        (event,) = events(stream)
        assert event.pop("timestamp").endswith("Z")
        assert event == {"event": "trade", "level": "info", "symbol": "BTC/USDT", "amount": 0.5}

    def test_no_colours_in_a_file(self) -> None:
        stream = io.StringIO()
        with logged(stream, form="console") as log:
            log.error("bad", reason="x")
        assert "\x1b" not in stream.getvalue()

    @pytest.mark.parametrize(
        ("level", "expected"),
        [
            ("debug", ["debug", "info", "warning", "error"]),
            ("info", ["info", "warning", "error"]),
            ("warning", ["warning", "error"]),
            ("error", ["error"]),
        ],
    )
    def test_levels(self, level: str, expected: list[str]) -> None:
        stream = io.StringIO()
        with logged(stream, level) as log:
            for name in ("debug", "info", "warning", "error"):
                getattr(log, name)(f"a {name}")
        assert [event["level"] for event in events(stream)] == expected


class TestOneEventOneLine:
    NASTY = "a\nb\r\x1b[31mc\x00\u2028d\x85e"

    @pytest.mark.parametrize("form", ["json", "console"])
    def test_control_characters_are_shown_not_obeyed(self, form: str) -> None:
        stream = io.StringIO()
        with logged(stream, form=form) as log:
            nasty = f"event {self.NASTY}"
            log.info(nasty, symbol=self.NASTY, several=[self.NASTY], table={"key": self.NASTY})
            log.warning("no prices", error=self.NASTY, cause=ValueError(self.NASTY))
        text = stream.getvalue()
        assert len(text.splitlines()) == text.count("\n") == 2
        assert all(character.isprintable() for character in text if character != "\n")
        assert "\\x0ab" in text or "\\nb" in text

    @pytest.mark.parametrize(
        "form",
        [
            "json",
            "console",
        ],
    )
    def test_an_exception_is_one_line(self, form: str) -> None:
        stream = io.StringIO()
        with logged(stream, form=form) as log:
            try:
                raise RuntimeError("first\nsecond")
            except RuntimeError:
                log.exception("failed")
        assert stream.getvalue().count("\n") == 1
        assert "RuntimeError" in stream.getvalue()

    def test_text_that_no_encoding_knows(self) -> None:
        raw = io.BytesIO()
        stream = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
        with logging_to(stream, "info", "console", Ticking()) as log:
            log.info("lone", surrogate="\ud800")
            log.info("euro", sign="€")
            log.info("after")
        assert b"lone" in raw.getvalue()
        assert b"after" in raw.getvalue()


class TestRepeats:
    def test_a_repeated_warning_is_told_once_a_minute_with_a_count(self) -> None:
        stream, clock = io.StringIO(), Ticking()
        with logged(stream, monotonic=clock) as log:
            for _ in range(100):
                log.warning("no prices", error="timeout")
                clock.now_s += 1
            clock.now_s = 2 * REPEAT_S
            log.warning("no prices", error="timeout")
        told = events(stream)
        assert [event.get("repeated") for event in told] == [None, 59, 39]

    def test_other_errors_are_told(self) -> None:
        stream = io.StringIO()
        with logged(stream) as log:
            log.warning("no prices", error="timeout")
            log.warning("no prices", error="refused")
            log.error("strategy failed", error="timeout")
        assert len(events(stream)) == 3

    def test_what_is_no_complaint_is_never_held_back(self) -> None:
        stream = io.StringIO()
        with logged(stream) as log:
            for _ in range(5):
                log.info("trade", symbol="BTC/USDT")
        assert len(events(stream)) == 5

    def test_endless_kinds_of_errors_take_bounded_memory(self) -> None:
        stream = io.StringIO()
        with logged(stream) as log:
            for number in range(3000):
                log.warning("no prices", error=f"request {number}")
        assert len(events(stream)) == 3000


class TestNeverInTheWay:
    def test_a_stalled_reader_costs_lines_which_are_counted(self) -> None:
        stream = Stalled()
        with logged(stream) as log:
            log.info("first")
            assert stream.reached.wait(WAIT_S_MAX)
            for number in range(QUEUE_LINES + 250):
                log.info("line", number=number)
            stream.released.set()
            for _ in range(1000):
                if "dropped" in stream.getvalue():
                    break
                threading.Event().wait(0.01)
        told = events(stream)
        (dropped,) = (event for event in told if event["event"] == "log lines dropped")
        assert dropped["count"] == 250
        assert [event["number"] for event in told if event["event"] == "line"] == list(range(QUEUE_LINES))

    def test_dropped_lines_are_counted_at_the_end_too(self) -> None:
        stream = Stalled()
        with logged(stream) as log:
            log.info("first")
            assert stream.reached.wait(WAIT_S_MAX)
            for number in range(QUEUE_LINES + 250):
                log.info("line", number=number)
            threading.Timer(0.2, stream.released.set).start()
        assert "dropped" in stream.getvalue()

    def test_the_count_has_the_form_of_the_other_lines(self) -> None:
        stream = Stalled()
        with logged(stream, form="console") as log:
            log.info("first")
            assert stream.reached.wait(WAIT_S_MAX)
            for _ in range(QUEUE_LINES + 1):
                log.info("line")
            stream.released.set()
            for _ in range(1000):
                if "dropped" in stream.getvalue():
                    break
                threading.Event().wait(0.01)
        (line,) = (line for line in stream.getvalue().splitlines() if "dropped" in line)
        assert not line.startswith("{")

    def test_a_reader_that_never_comes_back_does_not_hold_the_exit(self) -> None:
        stream = Stalled()
        with logged(stream) as log:
            for _ in range(10):
                log.info("line")
        assert stream.getvalue() == ""
        stream.released.set()

    def test_a_reader_that_left_is_no_error(self) -> None:
        with logged(Gone()) as log:
            for _ in range(10):
                log.info("line")

    def test_lines_that_found_a_disk_full_are_counted(self) -> None:
        stream = Full(lines=3)
        with logged(stream) as log:
            for number in range(5):
                log.info("line", number=number)
                assert stream.asked.acquire(timeout=WAIT_S_MAX)
        assert [(event["event"], event.get("number", event.get("count"))) for event in events(stream)] == [
            ("line", 3),
            ("log lines dropped", 3),
            ("line", 4),
        ]

    def test_a_line_that_a_full_disk_cuts_does_not_spoil_the_next(self, tmp_path: Path) -> None:
        def fills(bytes_max: int) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_max, before[1]))

        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        file = tmp_path / "log"
        with file.open("w") as stream:
            writer = LineWriter(stream, "{} lost\n".format)
            writer.write("first\n")
            wait_until(lambda: file.read_text() == "first\n", "the first line")
            try:
                fills(8)
                writer.write("second\n")
                wait_until(lambda: file.read_text() == "first\nse", "half a line")
            finally:
                fills(before[0])
            writer.write("third\n")
            writer.close()
        assert file.read_text() == "first\nse\nthird\n1 lost\n"

    def test_a_reader_that_must_be_asked_when_loses_nothing(self) -> None:
        reader, end = os.pipe()
        os.set_blocking(end, False)
        got = bytearray()

        def reads() -> None:
            while data := os.read(reader, 4096):
                got.extend(data)

        thread = threading.Thread(target=reads)
        with os.fdopen(end, "w") as stream, logging_to(stream, "info", "json", float) as log:
            for number in range(5000):
                log.info("line", number=number)
            # Not before the pipe is full.
            wait_until(lambda: not select.select([], [end], [], 0)[1], "a full pipe")
            thread.start()
            wait_until(lambda: got.count(b"\n") == 5000, "all lines")
        thread.join(WAIT_S_MAX)
        os.close(reader)
        assert [json.loads(line)["number"] for line in got.splitlines()] == list(range(5000))

    def test_all_that_waits_is_written_at_the_end(self) -> None:
        stream = io.StringIO()
        with logged(stream) as log:
            for number in range(5000):
                log.info("line", number=number)
        assert [event["number"] for event in events(stream)] == list(range(5000))
