"""Notifications as they go out: apprise, and a service on this machine that answers, refuses or says nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from bot.clock import SystemClock
from bot.domain import Signal
from bot.feeds import ArrayFeed
from bot.service.alerts import REASON_CHARS_MAX, AlertRules, Alerts, Send
from bot.service.logs import logging_to
from bot.service.notify import NotDelivered, alerts_for, sender
from bot.settings import SettingsError, load_settings
from tests.integration.daemon import WAIT_S_MAX, wait_until
from tests.integration.test_loop import MARKETS, Heard, Setup, everything, several, tape

pytest.importorskip("apprise", reason="notifications need apprise")
# Apprise imports it where there is one.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

# Any of it in a line would be one too many.
TOKEN = "hunter2-is-the-password-of-everybody"


@dataclass
class Service:
    """What the messages are sent to. ``status`` 0: it takes them and never answers."""

    port: int
    status: int = 200
    messages: list[dict[str, Any]] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    def url(self, options: str = "") -> str:
        return f"json://me:{TOKEN}@127.0.0.1:{self.port}/{TOKEN}/{options}"


@contextmanager
def serving(status: int = 200) -> Iterator[Service]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            service.messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            if not service.status:
                service.closing.wait(WAIT_S_MAX)
                return
            self.send_response(service.status)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service = Service(server.server_port, status)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield service
    finally:
        service.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


def sending(*urls: str) -> Send:
    return sender([SecretStr(url) for url in urls])


class TestDelivery:
    def test_a_message_arrives(self) -> None:
        with serving() as service:
            assert sending(service.url())("Paperloop: a trade", "line one\nline <b>two</b>")
        ((title, body),) = [(message["title"], message["message"]) for message in service.messages]
        assert (title, body) == ("Paperloop: a trade", "line one\nline <b>two</b>")

    def test_one_that_refuses_does_not_keep_it_from_the_next(self, capfd: pytest.CaptureFixture[str]) -> None:
        with serving(500) as bad, serving() as good:
            with pytest.raises(NotDelivered, match=r"^json: .*500"):
                sending(bad.url(), good.url())("title", "body")
            assert len(bad.messages) == len(good.messages) == 1
        assert capfd.readouterr() == ("", "")

    def test_one_that_never_answers_is_given_up(self) -> None:
        with serving(0) as silent, serving() as good:
            with pytest.raises(NotDelivered, match="json: "):
                sending(silent.url("?rto=0.2"), good.url())("title", "body")
            assert len(silent.messages) == len(good.messages) == 1

    def test_it_leaves_no_thread_and_no_file(self, tmp_path: Path) -> None:
        """The end of a process waits for threads of a pool, however long they take."""
        with serving() as service:
            program = (
                "import sys, threading; from pydantic import SecretStr; from bot.service.notify import sender;"
                "sender([SecretStr(sys.argv[1])])('title', 'body'); print(threading.active_count())"
            )
            done = python(program, service.url(), folder=tmp_path)
        assert (done.stdout, done.stderr) == ("1\n", "")
        assert list(tmp_path.iterdir()) == []


def python(program: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {"HOME": str(folder), "PYTHONPATH": str(Path(__file__).parents[2]), "LANG": "C.UTF-8"}
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=WAIT_S_MAX,
        check=False,
    )


class TestSettings:
    def test_an_address_that_apprise_does_not_know(self, capfd: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SettingsError) as caught:
            sending("json://host/path", f"nonsense://{TOKEN}", f"tgram://{TOKEN}")
        assert caught.value.problems == [
            "notify.urls: apprise does not understand address 2 (nonsense://...)",
            "notify.urls: apprise does not understand address 3 (tgram://...)",
        ]
        assert capfd.readouterr() == ("", "")

    def test_without_apprise(self, tmp_path: Path) -> None:
        program = (
            "import sys; sys.modules['apprise'] = None\n"
            "from pydantic import SecretStr; from bot.settings import SettingsError\n"
            "from bot.service.notify import sender\n"
            "try: sender([SecretStr('json://host')])\n"
            "except SettingsError as error: print(error)"
        )
        assert python(program, folder=tmp_path).stdout == (
            "notify.urls: apprise is not installed: pip install '.[notify]'\n"
        )


class Both(Heard):
    """Writes down what it hears, and passes it on."""

    def __init__(self, alerts: Alerts) -> None:
        super().__init__()
        self.alerts = alerts

    def filled(self, signal: Signal, order: Mapping[str, Any]) -> None:
        super().filled(signal, order)
        self.alerts.filled(signal, order)

    def stepped(self, status: Any) -> None:
        super().stepped(status)
        self.alerts.stepped(status)


class TestInTheLoop:
    @pytest.mark.parametrize("status", [200, 500, 0], ids=["answers", "refuses", "never answers"])
    async def test_trades_do_not_depend_on_it(self, tmp_path: Path, status: int) -> None:
        undisturbed = Setup(tmp_path / "undisturbed.db", several())
        digest = await undisturbed.run(ArrayFeed(tape(3), MARKETS), ahead=1)
        log = tmp_path / "log"
        with (
            log.open("w") as stream,
            logging_to(stream, "info", "json", float) as lines,
            serving(status) as service,
            Alerts(sending(service.url()), lines, SystemClock().monotonic, AlertRules(), 0.01) as alerts,
        ):
            heard = Both(alerts)
            told = Setup(tmp_path / "told.db", several(), heard=heard)
            assert await told.run(ArrayFeed(tape(3), MARKETS), ahead=1) == digest
            assert len(heard.filled_) > 50
            assert everything(told.ledger) == everything(undisturbed.ledger)
            wait_until(lambda: len(service.messages) > 0, "the first message")
            if not status:
                # It is given up when the service closes: that it answers never is for the end of a process.
                service.closing.set()
        assert TOKEN not in log.read_text()

    def test_the_end_of_the_process_does_not_wait_for_it(self, tmp_path: Path) -> None:
        program = (
            "import sys, threading; from bot.settings import load_settings; from bot.service.logs import logging_to\n"
            "from bot.service.notify import alerts_for\n"
            "settings = load_settings((), [f'notify.urls=[\"{sys.argv[1]}\"]'], {}, None)\n"
            "with logging_to(sys.stderr, 'info', 'json', float) as log, alerts_for(settings, log, float) as alerts:\n"
            "    alerts.halted('a bug')\n"
        )
        with serving(0) as silent:
            done = python(program, silent.url("?rto=1000"), folder=tmp_path)
            assert len(silent.messages) == 1
        assert [json.loads(line)["event"] for line in done.stderr.splitlines()] == [
            "notifications were not delivered before the end"
        ]
        assert done.returncode == 0

    def test_no_secret_leaves_in_a_message_or_a_line(self, tmp_path: Path) -> None:
        with serving(500) as refusing, serving() as service:
            urls = json.dumps([service.url(), refusing.url()])
            settings = load_settings((), [f"notify.urls={urls}"], {}, None)
            log = tmp_path / "log"
            with (
                log.open("w") as stream,
                logging_to(stream, "info", "json", float, secrets=settings.secrets()) as lines,
                alerts_for(settings, lines, float) as alerts,
            ):
                # Where it is cut the beginning of a secret would be left.
                beginning = "x" * (REASON_CHARS_MAX - len("halted: ") - 3)
                alerts.halted(beginning + TOKEN)
                alerts.halted(f"RuntimeError: {service.url()} and {TOKEN}")
        (line,) = [json.loads(line) for line in log.read_text().splitlines()]
        assert line["event"] == "a notification was not delivered"
        assert line["error"].startswith("NotDelivered: json: ")
        assert "500" in line["error"]
        for text in (log.read_text(), json.dumps(service.messages), json.dumps(refusing.messages)):
            assert TOKEN not in text
            assert "hunter2" not in text
        assert service.messages[0]["message"].splitlines()[0].endswith("x***")
