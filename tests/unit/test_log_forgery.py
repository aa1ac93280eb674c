"""What others wrote into a log line: it is shown, not obeyed, it ends, and no secret is in it."""

from __future__ import annotations

import io
import json
import logging
import os
import threading
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.typing import FilteringBoundLogger

from bot.repositories import LedgerError
from bot.service.logs import Crashed, crashes_told, logging_to, priority_prefix
from bot.service.plain import LINE_CHARS_MAX, TEXT_CHARS_MAX, printable, without

# What the journal cuts a line at.
JOURNAL_BYTES = 48 * 1024
FORGED = '{"timestamp": "2026-01-01T00:00:00Z", "level": "critical", "event": "sold everything"}'
CORPUS = {
    "LF": f"x\n{FORGED}",
    "CR": f"x\r{FORGED}",
    "CRLF": f"x\r\n<0>{FORGED}\r\n",
    "ESC": "x\x1b[2J\x1b]0;title\x07\x1b[31mred",
    "NUL": "x\x00y",
    "BEL": "x\x07y",
    "C1": "x\x9b31my\x85z",
    "separators": "x\u2028y\u2029z",
    "right to left": "x\u202egnp.exe\u2066y\u200f",
    "lone surrogate": "x\ud800y\udfffz",
    "no width": "B\u200bT\u2060C\ufeff",
    "tag": "x\U000e0041y",
    "priority": "<0>x\n<0>y",
    "quotes": '", "level": "critical", "x": "',
    "long": "x\n" * 50_000,
    "long and wide": "\U0001f680" * 100_000,
}


def every_shape(text: str) -> dict[str, Any]:
    """A text everywhere in an event where somebody else's text may come to stand."""
    return {
        "error": text,
        "several": [text, (text, {text: text})],
        "table": {text: {"inner": [text]}},
        "cause": ValueError(text),
        "thing": {text},
    }


@contextmanager
def logged(
    stream: io.StringIO, form: str = "json", level: str = "debug", secrets: Collection[str] = ()
) -> Iterator[FilteringBoundLogger]:
    with logging_to(stream, level, form, float, secrets=secrets) as log:
        yield log


class TestOneEventIsOneLine:
    @pytest.mark.parametrize("form", ["json", "console"])
    @pytest.mark.parametrize("text", CORPUS.values(), ids=CORPUS)
    def test_whatever_it_holds(self, form: str, text: str) -> None:
        stream = io.StringIO()
        with logged(stream, form) as log:
            event = f"trade {text}"
            log.info(event, **every_shape(text))
            try:
                raise RuntimeError(text)
            except RuntimeError as error:
                log.exception("failed", error=f"{error}")
        lines = stream.getvalue().split("\n")
        assert lines.pop() == ""
        assert len(lines) == 2
        for line, level in zip(lines, ("info", "error"), strict=True):
            assert line.isprintable()
            assert len(line.encode()) < JOURNAL_BYTES
            if form == "json":
                event = json.loads(line)
                assert event["level"] == level
                assert list(event)[:3] == ["timestamp", "level", "event"]
            else:
                assert f"[{level}" in line[:25]
        assert "trade" in lines[0]
        assert "RuntimeError" in lines[1]

    def test_what_is_shown(self) -> None:
        assert printable("a\tb\x1b\x85\u2028\ud800\U000e0041é€") == "a\\x09b\\x1b\\x85\\u2028\\ud800\\U000e0041é€"

    def test_a_long_text_is_cut_and_the_rest_of_the_event_is_there(self) -> None:
        stream = io.StringIO()
        with logged(stream) as log:
            log.info("no prices", error="x" * 100_000, many=["y" * 1000] * 1000, retry_s=5.0)
        event = json.loads(stream.getvalue())
        assert len(event["error"]) == TEXT_CHARS_MAX + 1
        assert event["many"][-1].startswith("… ")
        assert event["retry_s"] == 5.0
        assert len(stream.getvalue()) < LINE_CHARS_MAX * 1.2

    def test_of_a_long_traceback_both_ends_are_kept(self) -> None:
        stream = io.StringIO()
        with logged(stream) as log:
            try:
                raise KeyError("k" * 9000)
            except KeyError:
                log.exception("failed", many=["y" * 1000] * 1000)
        event = json.loads(stream.getvalue())
        assert event["traceback"].startswith("Traceback")
        assert "kkk … kkk" in event["traceback"]
        assert event["traceback"].endswith("kkk'")

    def test_nesting_without_end(self) -> None:
        stream, loop = io.StringIO(), list[Any]()
        loop.append(loop)
        wide: Any = 1
        for _ in range(6):
            wide = [wide] * 20
        with logged(stream) as log:
            log.info("odd", loop=loop, wide=wide, deep=[[[[[[[[["x"]]]]]]]]])
        assert json.loads(stream.getvalue())["event"] == "odd"
        assert len(stream.getvalue()) < LINE_CHARS_MAX * 1.2

    def test_numbers_that_json_does_not_know(self) -> None:
        stream = io.StringIO()
        with logged(stream) as log:
            log.info("odd", values=[float("nan"), float("inf"), 10**5000, 10**19, True, None, 0.5])
        line = stream.getvalue()
        assert "NaN" not in line
        found = json.loads(line)["values"]
        assert found[:2] == ["nan", "inf"]
        assert found[2].startswith("0x")
        assert found[3:] == [10**19, True, None, 0.5]

    def test_what_cannot_be_shown(self) -> None:
        class Odd:
            def __repr__(self) -> str:
                raise OSError

        stream = io.StringIO()
        with logged(stream) as log:
            log.info("odd", value=Odd())
        assert json.loads(stream.getvalue())["value"] == "<Odd, OSError when shown>"


class TestSecrets:
    SECRETS = ("hunter2hunter2", "hunter2hunter2 and more", "tgram://123:abc/d")

    @pytest.mark.parametrize("form", ["json", "console"])
    @pytest.mark.parametrize("secret", SECRETS)
    def test_wherever_they_stand(self, form: str, secret: str) -> None:
        stream = io.StringIO()
        text = f"https://me:{secret}@host/{secret}?x={secret}"
        with logged(stream, form, secrets=self.SECRETS) as log:
            event = f"event {text}"
            log.warning(event, **every_shape(text))
            try:
                raise RuntimeError(text)
            except RuntimeError:
                log.exception("failed")
        assert secret not in stream.getvalue()
        assert "hunter2" not in stream.getvalue()
        assert "me:***@host/***?x=***" in stream.getvalue()

    def test_before_it_is_cut(self) -> None:
        stream = io.StringIO()
        with logged(stream, secrets=self.SECRETS) as log:
            log.info("cut", error="x" * (TEXT_CHARS_MAX - 4) + self.SECRETS[0])
        assert "hunt" not in stream.getvalue()

    def test_none(self) -> None:
        assert without(())("a.*b") == "a.*b"
        assert without(("a.*b",))("axxb a.*b") == "axxb ***"


class TestInTheJournal:
    def test_a_stream_that_leads_there_and_others(self, tmp_path: Path) -> None:
        with (tmp_path / "journal").open("w") as stream:
            found = os.fstat(stream.fileno())
            journal = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
            levels = ("debug", "info", "warning", "error", "exception", "critical")
            assert [priority_prefix(stream, journal)(level) for level in levels] == [
                f"<{number}>" for number in (7, 6, 4, 3, 3, 2)
            ]
            for other in ({}, {"JOURNAL_STREAM": ""}, {"JOURNAL_STREAM": "1:2"}, {"JOURNAL_STREAM": "nonsense"}):
                assert priority_prefix(stream, other)("error") == ""
        for nowhere in (stream, io.StringIO(), None):
            assert priority_prefix(nowhere, journal)("error") == ""


class TestFromElsewhere:
    def test_what_libraries_log_and_warn_of(self) -> None:
        stream = io.StringIO()
        with logged(stream, secrets=["hunter2"]) as log:
            logging.getLogger("some.library").error("it failed: %s", "a\nb hunter2", exc_info=ValueError("c\nd"))
            logging.getLogger("some.library").info("nobody wants to know")
            odd = logging.LogRecord("some.library", logging.WARNING, "", 0, "%d %d", (1,), None)
            logging.getLogger().handlers[-1].handle(odd)
            with warnings.catch_warnings():
                warnings.simplefilter("always")
                warnings.showwarning("odd\nthing", UserWarning, "file.py", 3)
            log.info("own")
        events = [json.loads(line) for line in stream.getvalue().splitlines()]
        assert [(event["level"], event.get("logger")) for event in events] == [
            ("error", "some.library"),
            ("warning", "some.library"),
            ("warning", None),
            ("info", None),
        ]
        assert events[0]["error"] == "it failed: a\\x0ab ***"
        assert "ValueError: c\\x0ad" in events[0]["traceback"]
        assert events[2]["error"] == "odd\\x0athing"

    def test_a_thread_that_fails(self) -> None:
        def fail() -> None:
            raise OSError("a\nb")

        stream = io.StringIO()
        with logged(stream):
            thread = threading.Thread(target=fail, name="some thread")
            thread.start()
            thread.join()
        event = json.loads(stream.getvalue())
        assert (event["level"], event["thread"]) == ("error", "some thread")
        assert "OSError: a\\x0ab" in event["traceback"]


class TestCrashes:
    def test_one_line_with_the_traceback_as_a_field(self) -> None:
        stream = io.StringIO()
        with logged(stream) as log, pytest.raises(Crashed), crashes_told(log, (LedgerError,)):
            raise ZeroDivisionError("a\nb")
        event = json.loads(stream.getvalue())
        assert (event["level"], event["event"]) == ("critical", "crashed")
        assert event["error"] == "ZeroDivisionError: a\\x0ab"
        assert event["traceback"].startswith("Traceback (most recent call last):\\x0a")

    @pytest.mark.parametrize("error", [LedgerError("as told"), KeyboardInterrupt(), SystemExit(3)])
    def test_what_is_foreseen_passes(self, error: BaseException) -> None:
        stream = io.StringIO()
        with logged(stream) as log, pytest.raises(type(error)), crashes_told(log, (LedgerError,)):
            raise error
        assert stream.getvalue() == ""
