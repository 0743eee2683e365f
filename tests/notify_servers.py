"""Servers on loopback that take notifications, and behave as well or badly as they are told."""

import asyncio
import socket
import ssl
import subprocess
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

PATIENCE_S = 10.0


@dataclass(frozen=True)
class Answer:
    """What an HTTP server does with a request; ``late_s`` seconds after it has read it.

    ``hang``: say nothing until the server is closed. ``drop``: break off within the status line.
    ``endless``: a body that never ends.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"{}"
    late_s: float = 0.0
    manner: Literal["answer", "hang", "drop", "endless"] = "answer"


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: Mapping[str, str]  # names in lower case
    body: bytes


class HttpServer:
    """Answers in the order of ``script``, the last one again and again."""

    def __init__(self, *script: Answer, certificate: tuple[Path, Path] | None = None) -> None:
        self._script = list(script or (Answer(),))
        self._lock = threading.Lock()
        self.closing = threading.Event()
        self.answered = threading.Event()
        self.requests: list[Request] = []
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.owner = self
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port: int = self._server.server_address[1]
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def take(self, request: Request) -> Answer:
        with self._lock:
            self.requests.append(request)
            return self._script.pop(0) if len(self._script) > 1 else self._script[0]

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that closing waits for them
    owner: HttpServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = PATIENCE_S

    def do_POST(self) -> None:
        owner = self.server.owner
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = owner.take(Request(self.command, self.path, headers, body))
        self.close_connection = True
        if answer.manner == "hang":
            owner.closing.wait(PATIENCE_S)
            return
        owner.closing.wait(answer.late_s)
        with suppress(OSError):
            if answer.manner == "drop":
                self.wfile.write(b"HTTP/1.1 2")
            else:
                self._answer(answer, owner)
        owner.answered.set()

    do_GET = do_POST  # noqa: N815

    def _answer(self, answer: Answer, owner: HttpServer) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        endless = answer.manner == "endless"
        self.send_header("Content-Length", str(10**12 if endless else len(answer.body)))
        self.send_header("Connection", "close")
        self.end_headers()
        if not endless:
            self.wfile.write(answer.body)
            return
        until = time.monotonic() + PATIENCE_S
        while not owner.closing.is_set() and time.monotonic() < until:
            self.wfile.write(bytes(65536))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as it is called
        """Not on the terminal."""


@contextmanager
def http_server(
    *script: Answer, certificate: tuple[Path, Path] | None = None
) -> Iterator[HttpServer]:
    server = HttpServer(*script, certificate=certificate)
    try:
        yield server
    finally:
        server.close()


class _Controller(Controller):
    def factory(self) -> Any:
        with warnings.catch_warnings():
            # It warns at every connection that a password needs TLS; not on loopback.
            warnings.simplefilter("ignore")
            return super().factory()


class SmtpServer:
    """A mail server.

    Args:
        reply: what it says to a message, refused or not; with ``largest``, only to one of more
            bytes.
        users: names and passwords; without any, everybody may send.
        hang: say nothing after a message until closed.
    """

    def __init__(
        self,
        reply: str = "250 OK",
        *,
        users: Mapping[str, str] | None = None,
        largest: int | None = None,
        hang: bool = False,
    ) -> None:
        self.mails: list[EmailMessage] = []
        self._reply, self._largest, self._hang = reply, largest, hang
        self.closing = threading.Event()
        self.port = free_port()
        users = users or {}

        def authenticate(server: Any, session: Any, envelope: Any, way: str, given: Any) -> Any:
            good = users.get(given.login.decode()) == given.password.decode()
            return AuthResult(success=good, handled=False)

        self._controller = _Controller(
            self,
            hostname="127.0.0.1",
            port=self.port,
            auth_required=bool(users),
            auth_require_tls=False,
            authenticator=authenticate if users else None,
        )
        self._controller.start()

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        mail = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(mail, EmailMessage)
        self.mails.append(mail)
        if self._hang:
            await asyncio.to_thread(self.closing.wait, PATIENCE_S)
        if self._largest is None or len(envelope.content) > self._largest:
            return self._reply
        return "250 OK"

    def close(self) -> None:
        self.closing.set()
        self._controller.stop()


@contextmanager
def smtp_server(reply: str = "250 OK", **more: Any) -> Iterator[SmtpServer]:
    server = SmtpServer(reply, **more)
    try:
        yield server
    finally:
        server.close()


def free_port() -> int:
    """A port on loopback where nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def certificate_of_nobody(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that no authority has signed, and its key."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key
