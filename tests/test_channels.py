"""Every channel against real servers and programs, good ones and bad ones."""

import asyncio
import hashlib
import hmac
import io
import json
import logging
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
import wave
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from program import Program, simulator, write_config
from structlog.testing import capture_logs

from alerts.channels.apprise import AppriseChannel
from alerts.channels.channel import Channel, DeliveryError, Message, masked
from alerts.channels.command import CommandChannel
from alerts.channels.sound import SoundChannel, tone
from alerts.channels.threads import Threads
from alerts.channels.webhook import LONGEST_WAIT_S, WebhookChannel
from alerts.conditions import Priority
from tests.notify_servers import (
    Answer,
    certificate_of_nobody,
    free_port,
    http_server,
    smtp_server,
)

# Apprise's e-mail imports it for an encryption that is not used.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

TITLE = "URGENT: Åsa <b> & *Jo*: heart_paused_ `now`"
MESSAGE = Message(
    key="7f0c:raised:0",
    thread="7f0c",
    priority=Priority.HIGH,
    title=TITLE,
    body="Since 07:32, for < 1 min & *more*.\nWhat to do: look.",
    data={"alarm": "7f0c", "patient": "grandma", "since": 1_795_242_720},
    picture=b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40,
)
PLAIN = replace(MESSAGE, picture=None)
SECRET = "s3cr3t-t0ken"
NOW_S = 1_795_242_720.5  # Saturday 21 November 2026, 06:32:00.5 UTC


class Log(logging.Handler):
    """What reaches the handlers of the root, where the daemon's log is written."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        # The mail server of the tests is no part of what is tested.
        if record.name != "mail.log":
            self.lines.append(record.getMessage())


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> Iterator[Log]:
    caplog.set_level(logging.DEBUG)
    log = Log()
    logging.getLogger().addHandler(log)
    yield log
    logging.getLogger().removeHandler(log)
    assert SECRET not in "\n".join(log.lines)


def test_the_check_of_the_log_would_see_a_secret(log: Log) -> None:
    logging.getLogger("some.library").debug("GET /%s", SECRET)
    assert [line for line in log.lines if SECRET in line] == [f"GET /{SECRET}"]
    log.lines.clear()


async def failure_of(channel: Channel, message: Message = MESSAGE) -> DeliveryError:
    with pytest.raises(DeliveryError) as caught:
        await asyncio.wait_for(channel.send(message), 8)
    text = str(caught.value)
    assert text.startswith(channel.name)
    assert "\n" not in text
    assert SECRET not in text
    # Nor in what a traceback would show.
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return caught.value


# --- webhook ---


def webhook(url: str, read_s: float = 5.0) -> WebhookChannel:
    return WebhookChannel(
        "house", f"{url}/hook/{SECRET}?k={SECRET}", SECRET, now_s=lambda: NOW_S, read_s=read_s
    )


async def test_a_webhook_is_signed_and_holds_the_message() -> None:
    with http_server() as server:
        await webhook(server.url).send(MESSAGE)
    (request,) = server.requests
    assert request.method == "POST"
    assert request.path == f"/hook/{SECRET}?k={SECRET}"
    assert request.headers["idempotency-key"] == "7f0c:raised:0"
    assert request.headers["x-leadone-timestamp"] == "1795242720"
    digest = hmac.new(SECRET.encode(), b"1795242720." + request.body, hashlib.sha256).hexdigest()
    assert request.headers["x-leadone-signature"] == f"sha256={digest}"
    assert request.headers["content-type"] == "application/json; charset=utf-8"
    content = json.loads(request.body)
    assert b64decode(content.pop("picture")) == MESSAGE.picture
    assert content == {
        "key": "7f0c:raised:0",
        "thread": "7f0c",
        "priority": "high",
        "title": TITLE,
        "body": MESSAGE.body,
        "data": {"alarm": "7f0c", "patient": "grandma", "since": 1_795_242_720},
    }


def test_the_signature_is_what_openssl_makes() -> None:
    from alerts.channels.webhook import signature

    # printf '1795242720.{"a":1}' | openssl dgst -sha256 -hmac s3cr3t-t0ken
    expected = "b942f0f8a5ce713e327a577189e306459e5bedff39107117af812bd0f210794f"
    assert signature(SECRET.encode(), "1795242720", b'{"a":1}') == expected


@pytest.mark.parametrize(
    ("answer", "permanent", "retry_after_s", "says"),
    [
        (Answer(500), False, None, "answered 500 Internal Server Error"),
        (Answer(503, {"Retry-After": "7"}), False, 7.0, "answered 503 Service Unavailable"),
        (Answer(429, {"Retry-After": "30"}), False, 30.0, "answered 429 Too Many Requests"),
        (
            # 06:34:00 is 119.5 s after 06:32:00.5
            Answer(429, {"Retry-After": "Sat, 21 Nov 2026 06:34:00 GMT"}),
            False,
            119.5,
            "answered 429",
        ),
        (Answer(429, {"Retry-After": "Sat, 21 Nov 2026 06:00:00 GMT"}), False, 0.0, "answered 429"),
        (Answer(429, {"Retry-After": "9" * 5000}), False, LONGEST_WAIT_S, "answered 429"),
        (Answer(429, {"Retry-After": "soon"}), False, None, "answered 429"),
        (Answer(408), False, None, "answered 408"),
        (Answer(401), True, None, "answered 401 Unauthorized"),
        (Answer(404), True, None, "answered 404 Not Found"),
        (Answer(799), False, None, "answered 799"),
    ],
)
async def test_what_a_webhook_answers(
    answer: Answer, permanent: bool, retry_after_s: float | None, says: str
) -> None:
    with http_server(answer) as server:
        error = await failure_of(webhook(server.url))
    assert says in str(error)
    assert error.permanent is permanent
    assert error.retry_after_s == retry_after_s


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_webhook_follows_no_redirect(status: int) -> None:
    with (
        http_server() as other,
        http_server(Answer(status, {"Location": f"{other.url}/{SECRET}"})) as server,
    ):
        error = await failure_of(webhook(server.url))
        assert error.permanent
        assert len(server.requests) == 1
        assert other.requests == []


async def test_a_webhook_that_nobody_listens_to() -> None:
    error = await failure_of(webhook(f"http://127.0.0.1:{free_port()}"))
    assert str(error) == "house: no connection: connection refused"
    assert not error.permanent


async def test_a_webhook_of_an_unknown_host() -> None:
    error = await failure_of(webhook("http://nobody.invalid"))
    assert "no host of that name" in str(error)
    assert not error.permanent


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (Answer(manner="hang"), "no answer in time"),
        (Answer(late_s=0.6), "no answer in time"),
        (Answer(manner="drop"), "no connection: cut off"),
    ],
)
async def test_a_webhook_that_does_not_answer(answer: Answer, says: str) -> None:
    with http_server(answer) as server:
        error = await failure_of(webhook(server.url, read_s=0.2))
    assert says in str(error)
    assert not error.permanent


async def test_an_answer_without_end_is_not_read() -> None:
    with http_server(Answer(manner="endless")) as server:
        await asyncio.wait_for(webhook(server.url).send(MESSAGE), 3)
        assert len(server.requests) == 1


async def test_a_webhook_can_be_given_up() -> None:
    with http_server(Answer(manner="hang")) as server:
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(webhook(server.url).send(MESSAGE), 0.2)
        assert time.monotonic() - began < 2


async def test_a_webhook_trusts_no_certificate_of_nobody(tmp_path: Path) -> None:
    with http_server(certificate=certificate_of_nobody(tmp_path)) as server:
        error = await failure_of(webhook(server.url))
        assert server.requests == []
    assert "certificate is not trusted" in str(error)


@pytest.mark.parametrize(
    "url", ["ftp://host/x", "http://", f"{SECRET}", "http://host:x/", "http://[::"]
)
def test_what_is_no_url_for_a_webhook(url: str) -> None:
    with pytest.raises(ValueError, match="house: url: must be") as caught:
        WebhookChannel("house", url, SECRET)
    assert SECRET not in str(caught.value)


def test_a_webhook_without_a_secret() -> None:
    with pytest.raises(ValueError, match="house: secret: must not be empty"):
        WebhookChannel("house", "http://host/", "")


async def test_calls_that_hang_do_not_take_more_threads_than_allowed() -> None:
    go, started = threading.Event(), []
    threads = Threads("test", limit=2)

    def work() -> str:
        started.append(1)
        go.wait(5)
        return "done"

    given_up = [asyncio.create_task(threads.run(work)) for _ in range(2)]
    third = asyncio.create_task(threads.run(work))
    await asyncio.sleep(0.05)
    for task in given_up:
        task.cancel()
    await asyncio.sleep(0.05)
    assert len(started) == 2
    assert not third.done()
    assert threads.all_hang
    go.set()
    assert await asyncio.wait_for(third, 3) == "done"
    assert len(started) == 3
    assert not threads.all_hang


async def test_calls_that_somebody_waits_for_do_not_hang() -> None:
    go = threading.Event()
    threads = Threads("test", limit=2)
    calls = [asyncio.create_task(threads.run(go.wait)) for _ in range(3)]
    await asyncio.sleep(0.05)
    # One that never began is none that hangs.
    for task in calls[1:]:
        task.cancel()
    await asyncio.sleep(0.05)
    assert not threads.all_hang
    calls[0].cancel()
    await asyncio.sleep(0.05)
    assert threads.all_hang
    go.set()
    assert await asyncio.wait_for(threads.run(lambda: "done"), 3) == "done"
    assert not threads.all_hang


# --- Apprise ---


def ntfy(port: int, more: str = "") -> AppriseChannel:
    return AppriseChannel(
        "phone", f"ntfy://me:{SECRET}@127.0.0.1:{port}/{SECRET}?cto=1&rto=0.4{more}"
    )


async def test_ntfy_gets_text_priority_and_picture() -> None:
    with http_server() as server:
        await ntfy(server.port).send(MESSAGE)
    (request,) = server.requests
    from urllib.parse import parse_qs, urlsplit

    parts = urlsplit(request.path)
    assert parts.path == f"/{SECRET}"
    query = parse_qs(parts.query)
    assert query["title"] == [TITLE]
    assert query["message"] == [MESSAGE.body]
    assert query["filename"] == ["ecg.png"]
    assert request.body == MESSAGE.picture
    assert request.headers["x-priority"] == "max"
    # No picture of somebody else's server.
    assert "x-icon" not in request.headers


@pytest.mark.parametrize(
    ("priority", "more", "expected"),
    [
        (Priority.HIGH, "", "max"),
        (Priority.MEDIUM, "", "high"),
        (Priority.LOW, "", "low"),
        (Priority.HIGH, "&priority=min", "min"),
    ],
)
async def test_priorities_of_ntfy(priority: Priority, more: str, expected: str) -> None:
    with http_server() as server:
        await ntfy(server.port, more).send(replace(PLAIN, priority=priority))
    (request,) = server.requests
    assert request.headers["x-priority"] == expected
    content = json.loads(request.body)
    assert (content["title"], content["message"]) == (TITLE, MESSAGE.body)


async def test_priorities_of_gotify() -> None:
    with http_server() as server:
        channel = AppriseChannel("desk", f"gotify://127.0.0.1:{server.port}/{SECRET}")
        for priority in (Priority.HIGH, Priority.MEDIUM, Priority.LOW):
            await channel.send(replace(PLAIN, priority=priority))
    assert [json.loads(r.body)["priority"] for r in server.requests] == [10, 8, 3]


async def test_priorities_of_pushover(monkeypatch: pytest.MonkeyPatch) -> None:
    from apprise.plugins.pushover import NotifyPushover

    with http_server(Answer(body=b'{"status":1}')) as server:
        monkeypatch.setattr(NotifyPushover, "notify_url", f"{server.url}/1/messages.json")
        channel = AppriseChannel("phone", f"pover://{'u' * 30}@{'t' * 30}")
        for priority in (Priority.HIGH, Priority.MEDIUM, Priority.LOW):
            await channel.send(replace(PLAIN, priority=priority))
    found = [re.search(rb"priority=(-?\d)", r.body) for r in server.requests]
    assert [match and match[1] for match in found] == [b"1", b"0", b"-1"]


@pytest.mark.parametrize(
    ("answer", "permanent", "says"),
    [
        (Answer(500), False, "phone (ntfy): answered 500 Internal Server Error"),
        (Answer(503), False, "phone (ntfy): answered 503 Service Unavailable"),
        (
            Answer(429, {"Retry-After": "7"}, b'{"code":42901,"http":429,"error":"limit reached"}'),
            False,
            "phone (ntfy): answered 429 Too Many Requests",
        ),
        (
            Answer(403, {}, b'{"code":40301,"http":403,"error":"forbidden"}'),
            True,
            "phone (ntfy): answered 403 Forbidden",
        ),
        (Answer(401), True, "phone (ntfy): answered 401 Unauthorized"),
        (Answer(manner="hang"), False, "phone (ntfy): no connection: no answer in time"),
        (Answer(late_s=0.8), False, "phone (ntfy): no connection: no answer in time"),
        (Answer(manner="drop"), False, "phone (ntfy): no connection: cut off"),
    ],
)
async def test_what_ntfy_answers(answer: Answer, permanent: bool, says: str) -> None:
    with http_server(answer) as server:
        error = await failure_of(ntfy(server.port), PLAIN)
        assert len(server.requests) == 1
    assert str(error) == says
    assert error.permanent is permanent


async def test_ntfy_refuses_the_connection() -> None:
    error = await failure_of(ntfy(free_port()))
    assert str(error) == "phone (ntfy): no connection: connection refused"
    assert not error.permanent


@pytest.mark.parametrize("status", [400, 413, 507])
async def test_if_the_picture_is_refused_the_text_goes_alone(status: int) -> None:
    with http_server(Answer(status), Answer()) as server:
        await ntfy(server.port).send(MESSAGE)
    with_picture, without = server.requests
    assert with_picture.body == MESSAGE.picture
    assert json.loads(without.body)["message"] == MESSAGE.body


@pytest.mark.parametrize("answer", [Answer(401), Answer(429), Answer(manner="hang")])
async def test_the_text_is_not_sent_alone_where_it_would_not_help(answer: Answer) -> None:
    with http_server(answer) as server:
        await failure_of(ntfy(server.port))
        assert len(server.requests) == 1


async def test_apprise_follows_no_redirect() -> None:
    # A POST becomes a GET on its way, and a GET of anything is answered with 200.
    with (
        http_server() as other,
        http_server(Answer(301, {"Location": f"{other.url}/"})) as server,
    ):
        error = await failure_of(ntfy(server.port), PLAIN)
        assert other.requests == []
    assert str(error) == "phone (ntfy): answered 301 Moved Permanently"
    assert error.permanent


async def test_optional_in_a_url_hides_no_failure() -> None:
    with http_server(Answer(500)) as server:
        await failure_of(ntfy(server.port, "&optional=yes"), PLAIN)


async def test_a_retry_in_a_url_is_left_to_the_outbox() -> None:
    with http_server(Answer(500)) as server:
        await failure_of(ntfy(server.port, "&retry=3&wait=0"), PLAIN)
        assert len(server.requests) == 1


async def test_apprise_can_be_given_up() -> None:
    with http_server(Answer(manner="hang")) as server:
        channel = AppriseChannel("phone", f"ntfy://127.0.0.1:{server.port}/topic?rto=3")
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(channel.send(MESSAGE), 0.2)
        assert time.monotonic() - began < 2


async def test_html_arrives_as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    from html import unescape

    from apprise.plugins.telegram import NotifyTelegram

    token = f"123456789:{'a' * 30}"
    with http_server(Answer(body=b'{"ok":true,"result":{}}')) as server:
        monkeypatch.setattr(NotifyTelegram, "notify_url", f"{server.url}/bot")
        await AppriseChannel("chat", f"tgram://{token}/12345").send(PLAIN)
    request = server.requests[-1]
    content = json.loads(request.body)
    assert content["parse_mode"] == "HTML"
    assert "<b> &" not in content["text"]
    # Telegram's own markup around it aside, what is read is what was written.
    read = unescape(re.sub(r"</?[a-z]+>", "", content["text"]))
    assert TITLE in read
    for line in MESSAGE.body.split("\n"):
        assert line in read


async def test_markdown_arrives_as_written() -> None:
    with http_server() as server:
        await ntfy(server.port, "&format=markdown").send(PLAIN)
    (request,) = server.requests
    assert request.headers["x-markdown"] == "yes"
    content = json.loads(request.body)
    assert content["title"] == TITLE
    assert "\\*more\\*" in content["message"]
    read = re.sub(r"\\([\\_*\[\]()~`>#+=|{}.!-])", r"\1", content["message"])
    assert "Since 07:32, for < 1 min & *more*." in read


async def test_what_is_too_long_for_one_message_goes_in_several() -> None:
    long = replace(PLAIN, body="\n".join(f"line {i:04}" for i in range(1500)))
    with http_server() as server:
        await AppriseChannel("team", f"mmost://127.0.0.1:{server.port}/{'k' * 26}").send(long)
    text = "".join(json.loads(request.body)["text"] for request in server.requests)
    assert len(server.requests) > 1
    assert re.findall(r"line \d{4}", text) == [f"line {i:04}" for i in range(1500)]


def mail(port: int, user: str = "") -> AppriseChannel:
    return AppriseChannel(
        "mail",
        f"mailto://{user}127.0.0.1:{port}?from=lead@one.example&to=jo@one.example&cto=1&mode=insecure",
    )


async def test_mail_has_text_picture_and_thread() -> None:
    with smtp_server() as server:
        await mail(server.port).send(MESSAGE)
        await mail(server.port).send(replace(PLAIN, key="7f0c:ended:0"))
    first, second = server.mails
    assert first["Subject"] == TITLE
    body = first.get_body(("plain",))
    assert body is not None
    assert body.get_content().strip().replace("\r\n", "\n") == MESSAGE.body
    (picture,) = first.iter_attachments()
    assert picture.get_content_type() == "image/png"
    assert picture.get_filename() == "ecg.png"
    assert picture.get_content() == MESSAGE.picture
    assert first["References"] == second["References"] == "<7f0c@leadone>"
    assert list(second.iter_attachments()) == []


async def test_mail_with_a_password() -> None:
    with smtp_server(users={"jo": SECRET}) as server:
        await mail(server.port, f"jo:{SECRET}@").send(PLAIN)
        assert len(server.mails) == 1


async def test_mail_with_a_wrong_password() -> None:
    with smtp_server(users={"jo": "other"}) as server:
        error = await failure_of(mail(server.port, f"jo:{SECRET}@"))
        assert server.mails == []
    assert str(error) == "mail (E-Mail): user or password refused"
    assert error.permanent


@pytest.mark.parametrize(
    ("reply", "permanent"), [("451 later", False), ("554 not wanted", True), ("421 busy", False)]
)
async def test_mail_that_is_refused(reply: str, permanent: bool) -> None:
    with smtp_server(reply) as server:
        error = await failure_of(mail(server.port), PLAIN)
    assert str(error) == f"mail (E-Mail): the mail server answered {reply[:3]}"
    assert error.permanent is permanent


async def test_mail_too_large_goes_without_the_picture() -> None:
    with smtp_server("552 too large", largest=5000) as server:
        await mail(server.port).send(MESSAGE)
    refused, taken = server.mails
    assert len(list(refused.iter_attachments())) == 1
    assert list(taken.iter_attachments()) == []
    assert taken["Subject"] == TITLE


async def test_a_mail_server_that_hangs() -> None:
    with smtp_server(hang=True) as server:
        error = await failure_of(mail(server.port))
        assert "no answer in time" in str(error)
        assert not error.permanent


async def test_a_mail_server_that_refuses_the_connection() -> None:
    error = await failure_of(mail(free_port()))
    assert "connection refused" in str(error)


@pytest.mark.parametrize("url", [SECRET, f"nothing://{SECRET}", f"tgram://{SECRET}", ""])
def test_what_is_no_url_for_apprise(url: str) -> None:
    with pytest.raises(ValueError, match="phone: url: Apprise does not understand") as caught:
        AppriseChannel("phone", url)
    assert SECRET not in str(caught.value)


def test_apprise_is_loaded_only_where_it_is_used() -> None:
    import subprocess
    import sys

    program = (
        "import sys, alerts.channels.apprise, alerts.channels.webhook, alerts.channels.sound, "
        "alerts.strip\nprint(*sorted({'apprise', 'requests', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


# --- command ---


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], list[str]]:
    def make(text: str) -> list[str]:
        path = tmp_path / "tell"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return [str(path), "an argument; rm -rf /"]

    return make


Script = Callable[[str], list[str]]


async def test_a_command_finds_the_message(script: Script, tmp_path: Path) -> None:
    argv = script(
        f'cat > {tmp_path}/stdin; printf %s "$1" > {tmp_path}/argument\n'
        f'printf "%s|" "$LEADONE_TITLE" "$LEADONE_BODY" "$LEADONE_PRIORITY" "$LEADONE_KEY" '
        f'"$LEADONE_THREAD" > {tmp_path}/environment\n'
        f'cp "$LEADONE_PICTURE" {tmp_path}/picture; ln -s "$LEADONE_PICTURE" {tmp_path}/link'
    )
    await CommandChannel("bell", argv).send(MESSAGE)
    assert (tmp_path / "argument").read_text() == "an argument; rm -rf /"
    assert json.loads((tmp_path / "stdin").read_bytes()) == {
        "key": "7f0c:raised:0",
        "thread": "7f0c",
        "priority": "high",
        "title": TITLE,
        "body": MESSAGE.body,
        "data": {"alarm": "7f0c", "patient": "grandma", "since": 1_795_242_720},
    }
    assert (tmp_path / "environment").read_text() == (
        f"{TITLE}|{MESSAGE.body}|high|7f0c:raised:0|7f0c|"
    )
    assert (tmp_path / "picture").read_bytes() == MESSAGE.picture
    assert (tmp_path / "link").is_symlink()
    assert not (tmp_path / "link").exists()


@contextmanager
def full_disk() -> Iterator[None]:
    """Let no file grow beyond 4096 bytes, in memory neither, as where there is no more room.

    Not for longer than the test itself: what pytest prints may go to a file too.
    """
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


async def test_where_a_picture_finds_no_room_the_command_runs_without(
    script: Script, tmp_path: Path
) -> None:
    argv = script(f'printf %s "$LEADONE_TITLE${{LEADONE_PICTURE-, no picture}}" > {tmp_path}/said')
    with capture_logs() as logs, full_disk():
        await CommandChannel("bell", argv).send(MESSAGE)
    assert (tmp_path / "said").read_text() == f"{TITLE}, no picture"
    assert [log["event"] for log in logs] == ["no picture"]


async def test_a_command_sees_nothing_of_the_secrets_of_others(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEADONE_WEBHOOK", SECRET)
    monkeypatch.setenv("NTFY_TOKEN", SECRET)
    monkeypatch.setenv("PGPASSWORD", SECRET)
    monkeypatch.setenv("LC_TIME", "sv_SE.UTF-8")
    argv = script(f"env > {tmp_path}/environment")
    await CommandChannel("bell", argv).send(PLAIN)
    lines = (tmp_path / "environment").read_text().splitlines()
    names = {line.partition("=")[0] for line in lines if not line.startswith("What to do")}
    own = {f"LEADONE_{name}" for name in ("TITLE", "BODY", "PRIORITY", "KEY", "THREAD")}
    assert own <= names
    # The shell sets the last ones itself.
    assert names - own <= {
        *("PATH", "HOME", "LANG", "LANGUAGE", "LC_TIME", "LC_ALL", "LC_CTYPE", "TZ"),
        *("XDG_RUNTIME_DIR", "PWD", "SHLVL", "_", "OLDPWD"),
    }
    assert "LC_TIME" in names
    assert SECRET not in (tmp_path / "environment").read_text()


async def test_a_picture_can_be_opened_by_what_a_command_starts(
    script: Script, tmp_path: Path
) -> None:
    """Also by a program to which no file of its parent is handed down."""
    reader = tmp_path / "reader.py"
    reader.write_text(
        "import os, subprocess\n"
        "subprocess.run(['cp', os.environ['LEADONE_PICTURE'], "
        f"'{tmp_path}/picture'], close_fds=True, check=True)\n"
    )
    await CommandChannel("bell", script(f"exec {sys.executable} {reader}")).send(MESSAGE)
    assert (tmp_path / "picture").read_bytes() == MESSAGE.picture


@pytest.fixture(params=["full", "missing", "read-only"])
def sick_tmp(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder for temporary files that takes none."""
    folder = tmp_path / "sick"
    if request.param == "missing":
        yield folder
        return
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount a file system")
    try:
        if request.param == "full":
            # All but one page: one who looks whether something can be written is told that it can.
            (folder / "filler").write_bytes(bytes(60 * 1024))
        else:
            subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_alarms_go_out_whatever_is_wrong_with_the_folder_for_temporary_files(
    sick_tmp: Path, tmp_path: Path
) -> None:
    bell, player = tmp_path / "bell", tmp_path / "bin/aplay"
    bell.write_text(
        f'#!/bin/sh\ncat > {tmp_path}/message; cp "$LEADONE_PICTURE" {tmp_path}/strip\n'
    )
    player.parent.mkdir()
    player.write_text(f'#!/bin/sh\ncp "$2" {tmp_path}/heard\n')
    for program in (bell, player):
        program.chmod(0o755)
    channels = [{"type": "command", "command": [str(bell)]}, {"type": "sound"}]
    contacts = [{"name": "anna", "channels": channels}]
    config = write_config(tmp_path, [simulator()], alarms={"contacts": contacts})
    environment = {"TMPDIR": str(sick_tmp), "PATH": f"{player.parent}:{os.environ['PATH']}"}
    with Program(
        *("alarms", "test", "-c", config, "--json"), folder=tmp_path, env=environment
    ) as program:
        done = program.end()
    assert done.code == 0, done.err + done.out
    assert {row["channel"] for row in done.rows if row["delivered"]} == {
        "anna-command",
        "anna-sound",
    }
    assert json.loads((tmp_path / "message").read_bytes())["data"] == {"kind": "test"}
    assert (tmp_path / "strip").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "strip").read_bytes().endswith(b"IEND\xaeB`\x82")
    assert (tmp_path / "heard").read_bytes() == tone(Priority.LOW)


async def test_a_command_that_wants_to_be_run_again(script: Script) -> None:
    error = await failure_of(CommandChannel("bell", script("echo the line is busy >&2; exit 75")))
    assert str(error) == "bell: tell: exit status 75: the line is busy"
    assert not error.permanent


async def test_a_command_that_fails_is_logged_with_its_last_words(script: Script) -> None:
    text = f"echo first >&2; echo no answer of https://u:{SECRET}@host/{SECRET}?a >&2; exit 3"
    with capture_logs() as logs:
        error = await failure_of(CommandChannel("bell", script(text)))
    assert str(error) == "bell: tell: exit status 3: no answer of https://host/…"
    assert error.permanent
    (entry,) = logs
    assert entry["said"] == "no answer of https://host/…"
    assert entry["channel"] == "bell"


async def test_a_command_killed_by_a_signal(script: Script) -> None:
    error = await failure_of(CommandChannel("bell", script("kill -9 $$")))
    assert str(error) == "bell: tell: killed by signal 9"


async def test_a_command_that_talks_without_end_and_reads_nothing(script: Script) -> None:
    long = replace(MESSAGE, body="x" * 100_000)
    text = "head -c 3000000 /dev/zero | tr '\\0' 'y' >&2; echo; echo >&2; echo last >&2; exit 1"
    # An environment variable of Linux holds 128 KiB.
    error = await failure_of(CommandChannel("bell", script(text)), long)
    assert str(error).endswith(": last")


@pytest.mark.parametrize("argv", [["/nowhere/at/all"], ["/etc/passwd"]])
async def test_a_command_that_cannot_be_run(argv: list[str]) -> None:
    error = await failure_of(CommandChannel("bell", argv))
    assert "cannot be run" in str(error)
    assert error.permanent


def test_a_command_must_be_named() -> None:
    with pytest.raises(ValueError, match="bell: command: must name a program"):
        CommandChannel("bell", [])


async def test_a_command_given_up_is_killed_with_all_it_started(
    script: Script, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "fifo")
    argv = script(f"sleep 60 & echo $! $$ > {tmp_path}/fifo; wait")
    task = asyncio.create_task(CommandChannel("bell", argv).send(MESSAGE))
    # Reading waits until the command has written.
    said = await asyncio.wait_for(asyncio.to_thread((tmp_path / "fifo").read_text), 5)
    pids = [int(pid) for pid in said.split()]
    assert [_runs(pid) for pid in pids] == [True, True]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for _ in range(200):
        if not any(_runs(pid) for pid in pids):
            break
        await asyncio.sleep(0.01)
    assert [_runs(pid) for pid in pids] == [False, False]


async def test_a_command_that_cannot_be_killed_is_given_up(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that waits for a sound card that was pulled out."""
    started: list[int] = []
    monkeypatch.setattr("alerts.channels.command._DEAD_S", 0.2)
    monkeypatch.setattr(os, "killpg", lambda pid, _: started.append(pid))
    try:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await CommandChannel("bell", script("exec sleep 60")).send(MESSAGE)
    finally:
        monkeypatch.undo()
        os.killpg(started[0], signal.SIGKILL)
        await asyncio.sleep(0.2)  # its end is taken in


async def test_what_a_command_leaves_running_is_not_waited_for(
    script: Script, tmp_path: Path
) -> None:
    argv = script(f"sleep 30 & echo $! > {tmp_path}/child; exit 0")
    began = time.monotonic()
    try:
        await CommandChannel("bell", argv).send(MESSAGE)
        assert time.monotonic() - began < 5
    finally:
        os.kill(int((tmp_path / "child").read_text()), 9)


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


# --- sound ---


def pulses(wav: bytes) -> tuple[int, float, float]:
    """How many pulses there are, how loud the loudest sample is, and how long it all takes."""
    with wave.open(io.BytesIO(wav)) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        rate = file.getframerate()
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(float) / 32768
    blocks = samples[: len(samples) // 220 * 220].reshape(-1, 220)  # of 10 ms
    loud = np.sqrt((blocks**2).mean(axis=1)) > 0.02
    begun = int(np.sum(loud[1:] & ~loud[:-1]) + loud[0])
    return begun, float(np.abs(samples).max()), len(samples) / rate


@pytest.mark.parametrize(
    ("priority", "count"), [(Priority.HIGH, 10), (Priority.MEDIUM, 3), (Priority.LOW, 2)]
)
def test_tones(priority: Priority, count: int) -> None:
    begun, peak, seconds = pulses(tone(priority))
    assert begun == count
    assert 0.3 < peak < 1
    assert seconds < 5


async def test_a_sound_is_played(script: Script, tmp_path: Path) -> None:
    player = script(f'cp "$2" {tmp_path}/heard')
    await SoundChannel("speaker", player).send(MESSAGE)
    assert (tmp_path / "heard").read_bytes() == tone(Priority.HIGH)


async def test_without_a_player_there_is_no_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    error = await failure_of(SoundChannel("speaker"))
    assert "no player (pw-play, paplay, aplay) is installed" in str(error)
    assert error.permanent


async def test_a_player_sees_its_server_and_no_secrets(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULSE_SERVER", "unix:/run/pulse")
    monkeypatch.setenv("NTFY_TOKEN", SECRET)
    await SoundChannel("speaker", script(f"env > {tmp_path}/environment")).send(MESSAGE)
    said = (tmp_path / "environment").read_text()
    assert "PULSE_SERVER=unix:/run/pulse" in said
    assert SECRET not in said


async def test_a_sound_card_that_is_busy(script: Script) -> None:
    player = script("echo Device or resource busy >&2; exit 1")
    error = await failure_of(SoundChannel("speaker", player))
    assert str(error) == "speaker: tell: exit status 1: Device or resource busy"
    assert not error.permanent


# --- what they share ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see https://a.example/b?c=d now", "see https://a.example/… now"),
        ("'ntfy://u:p@h:80/t'", "'ntfy://h:80/…'"),
        ("https://tok@en@host/x", "https://…"),
        ("no address here", "no address here"),
    ],
)
def test_urls_are_masked(text: str, expected: str) -> None:
    result = masked(text)
    if expected == "https://…":
        assert "tok" not in result
    else:
        assert result == expected
