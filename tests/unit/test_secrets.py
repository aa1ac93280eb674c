"""What is secret in the settings: never shown, found wherever it is spelt out, and kept in files that are one's own."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from pydantic import ValidationError

from bot.compose import plans_of, recorded_config
from bot.settings import Settings, SettingsError, load_settings
from bot.settings.secrets import SECRET_FILE_BYTES_MAX, secret_file
from bot.settings.values import NOTIFY_URLS_MAX

# No word of it may be seen.
TOKEN = "hunter2-HUNTER2"
URL = f"tgram://{TOKEN}/chat"


def load(*overrides: str, files: Sequence[Path] = (), environ: Mapping[str, str] | None = None) -> Settings:
    return load_settings(files, overrides, environ or {}, default_file=None)


def problems(*overrides: str, files: Sequence[Path] = (), environ: Mapping[str, str] | None = None) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(*overrides, files=files, environ=environ)
    assert "hunter" not in str(caught.value).lower()
    return caught.value.problems


class TestNotify:
    def test_from_every_source(self, tmp_path: Path) -> None:
        file = tmp_path / "own.toml"
        file.touch(mode=0o600)
        file.write_text(f'[notify]\nurls = ["{URL}"]\nevents = ["halts"]\noutage_after_s = 0\nper_hour_max = 1\n')
        listed = json.dumps([URL])
        for settings in (
            load(files=[file]),
            load(f"notify.urls={listed}", 'notify.events=["halts"]'),
            load('notify.events=["halts"]', environ={"PAPERLOOP_NOTIFY__URLS": listed}),
            load(environ={"PAPERLOOP_NOTIFY": f'{{urls={listed}, events=["halts"]}}'}),
        ):
            assert [url.get_secret_value() for url in settings.notify.urls] == [URL]
            assert settings.notify.events == ("halts",)

    def test_it_is_not_shown(self) -> None:
        settings = load(f"notify.urls={json.dumps([URL, 'json://host'])}")
        assert settings.masked()["notify"]["urls"] == ["***", "***"]
        recorded = json.dumps(recorded_config(settings, plans_of(settings), {}, 1))
        for text in (repr(settings), str(settings), str(settings.masked()), recorded):
            assert "hunter" not in text.lower()

    @pytest.mark.parametrize(
        ("override", "reason"),
        [
            (f"notify.urls={URL}", 'must be a list of addresses such as ["json://host/path"]'),
            (f'notify.urls=["{URL}", 5]', "address 2 must be text"),
            (f'notify.urls=["{URL} "]', "address 1 must not begin or end with a space"),
            (f'notify.urls=["{URL}\\n"]', "address 1 must not begin or end with a space"),
            (f'notify.urls=["{URL}\\u001b[m"]', "address 1 must not hold control characters"),
            (f'notify.urls=["{TOKEN}"]', "address 1 must be one that apprise knows, such as json://host/path"),
            (f'notify.urls=["//{TOKEN}"]', "address 1 must be one that apprise knows, such as json://host/path"),
            (f'notify.urls=["{URL}", "{URL}"]', "must list every address once"),
            (f"notify.urls=[{', '.join([repr(URL)] * 21)}]", f"must list at most {NOTIFY_URLS_MAX} addresses"),
            (f'notify.urls=["{URL}"', "is neither valid TOML nor valid JSON"),
            (f'notify.urls={{x="{URL}"}}', 'must be a list of addresses such as ["json://host/path"]'),
            ('notify.events=["trade"]', 'must be one of "trades", "outages", "halts"; did you mean "trades"?'),
            ("notify.events=[]", "must list one kind of news at least, and none twice"),
            ('notify.events=["halts", "halts"]', "must list one kind of news at least, and none twice"),
            ("notify.events=halts", "must be a list of some of trades, outages, halts"),
            ("notify.per_hour_max=0", "must be between 1 and 3600 (messages)"),
            ("notify.outage_after_s=-1", "must be between 0 and 86400 (seconds)"),
        ],
    )
    def test_what_is_wrong_is_told_without_it(self, override: str, reason: str) -> None:
        (line,) = problems(override)
        assert line.endswith(f" from --set: {reason}")
        name, _, value = override.partition("=")
        (line,) = problems(environ={f"PAPERLOOP_{name.upper().replace('.', '__')}": value})
        assert line.endswith(f": {reason}")

    @pytest.mark.parametrize(
        "override",
        [
            f"notify={URL}",
            f'notify=["{URL}"]',
            f'notify={{urls="{URL}"}}',
            f'notify={{urls=["{URL}"',
            f"notify.url={URL}",
            f"notify.urls.first={URL}",
            f"notify.urls:{URL}",
        ],
    )
    def test_nor_in_the_wrong_place(self, override: str, tmp_path: Path) -> None:
        assert len(problems(override)) == 1

    def test_nor_by_pydantic(self) -> None:
        for given in ({"urls": URL}, {"urls": [TOKEN]}, URL):
            with pytest.raises(ValidationError) as caught:
                Settings(notify=given)  # type: ignore[arg-type]
            assert "hunter" not in str(caught.value).lower()


class TestWhatMustNotBeLogged:
    def test_nothing(self) -> None:
        assert load().secrets() == ()

    def test_addresses_and_what_they_are_made_of(self) -> None:
        urls = [
            "tgram://123456789:AAF-token_xyz/chat",
            "mailto://me:pa%2Fss@example.com",
            "json://localhost:80/aPath123",
        ]
        found = load(f"notify.urls={json.dumps(urls)}").secrets()
        assert {*urls, "AAF-token_xyz", "123456789", "me:pa%2Fss", "pa%2Fss", "pa/ss", "aPath123"} <= set(found)
        assert not {"chat", "example.com", "localhost", "tgram", "80", "me"} & set(found)
        assert list(found) == sorted(found, key=len, reverse=True)

    def test_options_and_logins(self) -> None:
        found = load(
            'feed.ccxt.options={headers={Authorization="Bearer abc\\"def"}, timeout=5000}',
            'feed.ccxt.options.apiKeys=["k-one-1", {a="k-two-2"}]',
            "feed.ccxt.options.httpsProxy=http://user:proxyword@host:1",
            "feed.ccxt.base_url=http://user:baseword@host:2",
            'strategy=[{name="a", params={key="close", token="fast"}}]',
        ).secrets()
        assert {'Bearer abc"def', 'Bearer abc\\"def', "k-one-1", "k-two-2"} <= set(found)
        assert {"user:proxyword", "proxyword", "user:baseword", "baseword"} <= set(found)
        assert not {"close", "fast", "5000", "host", "user"} & set(found)

    def test_no_word_of_a_log_is_a_secret(self) -> None:
        assert load("feed.ccxt.options={password='a', secret='', token='abc'}").secrets() == ()


def written(path: Path, data: bytes, mode: int) -> Path:
    path.touch()
    path.write_bytes(data)
    path.chmod(mode)
    return path


class TestFiles:
    @pytest.mark.parametrize("mode", [0o400, 0o440, 0o600, 0o640])
    @pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
    def test_a_secret_in_a_file(self, tmp_path: Path, mode: int, end: bytes) -> None:
        assert secret_file(written(tmp_path / "token", TOKEN.encode() + end, mode)) == TOKEN

    @pytest.mark.parametrize(
        ("mode", "reason"),
        [
            (0o644, "is open to everybody (mode 644): chmod 600"),
            (0o604, "is open to everybody (mode 604): chmod 600"),
            (0o602, "is open to everybody (mode 602): chmod 600"),
            (0o660, "may be changed by its group (mode 660): chmod 600"),
        ],
    )
    def test_one_that_others_may_read_or_change(self, tmp_path: Path, mode: int, reason: str) -> None:
        with pytest.raises(ValueError, match="^" + reason.replace("(", r"\(").replace(")", r"\)") + "$"):
            secret_file(written(tmp_path / "token", b"x", mode))

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (b"", "must hold one line of text, and nothing else"),
            (b"\n", "must hold one line of text, and nothing else"),
            (b"a\nb\n", "must hold one line of text, and nothing else"),
            (b" a", "must hold one line of text, and nothing else"),
            (b"a\x1b", "must hold one line of text, and nothing else"),
            (b"\xff", "is not UTF-8 text"),
            (b"x" * (SECRET_FILE_BYTES_MAX + 1), "is larger than 4096 bytes"),
        ],
    )
    def test_one_with_something_else_in_it(self, tmp_path: Path, data: bytes, reason: str) -> None:
        with pytest.raises(ValueError, match=f"^{reason}$"):
            secret_file(written(tmp_path / "token", data, 0o600))

    def test_what_is_no_file(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe", 0o600)
        for name, reason in (("missing", "cannot be read"), ("pipe", "is no file"), (".", "is no file")):
            with pytest.raises(ValueError, match=reason):
                secret_file(tmp_path / name)

    @pytest.mark.parametrize(
        ("text", "key"),
        [
            (f'[notify]\nurls = ["{URL}"]', "notify.urls"),
            (f'[feed.ccxt.options]\nhttpsProxy = "http://me:{TOKEN}@host"', "feed.ccxt.options.httpsProxy"),
            (f'[feed.ccxt.options]\npassword = "{TOKEN}"', "feed.ccxt.options.password"),
        ],
    )
    def test_settings_with_a_secret(self, tmp_path: Path, text: str, key: str) -> None:
        file = written(tmp_path / "own.toml", text.encode(), 0o644)
        told = "it is to be kept secret, and the file is open to everybody (mode 644): chmod 600"
        assert problems(files=[file]) == [f"{key} in {file}: {told}"]
        file.chmod(0o640)
        load(files=[file])

    def test_settings_without_one_may_be_read(self, tmp_path: Path) -> None:
        text = 'strategy = [{name = "a", params = {key = "close"}}]\n[notify]\nurls = []\n'
        file = written(tmp_path / "own.toml", text.encode(), 0o644)
        load(files=[file], environ={"PAPERLOOP_NOTIFY__URLS": f'["{URL}"]'})
