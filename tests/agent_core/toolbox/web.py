"""A web server on loopback whose pages misbehave, a resolver that says what it is told, and a witness of dials."""

from __future__ import annotations

import json
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from agent_core import Tool, ToolContext
from agent_core.tools import Registry, ToolResult
from agent_core.types import Json

CERTIFICATE = Path(__file__).with_name("api.example.test.pem")
"""Of api.example.test, signed by itself, with its key; good until 2126."""


class Web:
    """Serves in a thread until it is closed. Its path says what a page does; `hosts` are the Host headers that came."""

    def __init__(self, *, tls: bool = False) -> None:
        self.requests: list[str] = []
        self.hosts: list[str] = []
        self.names: list[str | None] = []
        """What clients said by SNI."""
        self.closed = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("PagesOfOne", (Pages,), {"web": self}))
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(CERTIFICATE)
            context.sni_callback = lambda _socket, name, _context: self.names.append(name)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.closed.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Pages(BaseHTTPRequestHandler):
    """A page for each method with one underscore; its query says what it does."""

    web: ClassVar[Web]

    def do_GET(self) -> None:
        self.web.requests.append(self.path)
        self.web.hosts.append(self.headers["host"])
        asked = urlsplit(self.path)
        told = {name: values[0] for name, values in parse_qs(asked.query).items()}
        try:
            getattr(self, f"_{asked.path[1:]}")(told)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _say(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def _page(self, told: dict[str, str]) -> None:
        self._say(told.get("body", "hello").encode(), content_type=told.get("type", "text/plain"))

    def _status(self, told: dict[str, str]) -> None:
        self._say(b"no such page", int(told["code"]), content_type="text/plain")

    def _bytes(self, told: dict[str, str]) -> None:
        self._say(bytes(int(told["count"])), content_type="image/png")

    def _redirect(self, told: dict[str, str]) -> None:
        self._say(b"x" * int(told.get("count", "0")), 302, location=told["to"])

    def _endless(self, told: dict[str, str]) -> None:
        self.send_response(302 if "to" in told else 200)
        self.send_header("location", told.get("to", "/"))
        self.end_headers()
        while not self.web.closed.is_set():
            self.wfile.write(b"x" * 65_536)

    def _packed(self, told: dict[str, str]) -> None:
        self._say(b"\x1f\x8b", content_encoding="gzip")

    def _silent(self, told: dict[str, str]) -> None:
        self.web.closed.wait()

    def _broken(self, told: dict[str, str]) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Says nothing."""


class Names:
    """A resolver that knows these hosts alone, with the answers to give in turn; the last one goes on."""

    def __init__(self, **hosts: list[list[str]]) -> None:
        self.hosts = {name.replace("_", "."): answers for name, answers in hosts.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        answers = self.hosts.get(host)
        if answers is None:
            raise OSError(f"no such host: {host}")
        return answers.pop(0) if len(answers) > 1 else answers[0]


WATCHED = {"socket.connect": 1, "socket.sendto": 1, "socket.getaddrinfo": 0, "sqlite3.connect": 0}
"""Events of the interpreter, and which of their arguments says where to."""
_dials: list[tuple[str, Any]] = []
_watching = threading.Event()


def _witness(event: str, args: tuple[Any, ...]) -> None:
    if _watching.is_set() and event in WATCHED:
        _dials.append((event, args[WATCHED[event]]))


sys.addaudithook(_witness)


@contextmanager
def dials() -> Iterator[list[tuple[str, Any]]]:
    """What this process dials, resolves and opens meanwhile, as the interpreter itself reports it, whoever does it."""
    _dials.clear()
    _watching.set()
    try:
        yield _dials
    finally:
        _watching.clear()


async def call(made: Tool, workspace: Path, /, shelf: Any = None, **given: Any) -> ToolResult:
    """One call of a tool as a run makes it."""
    registry = Registry([made], pause=lambda _: 0.0)
    return await registry.call(made.name, given, ToolContext("job_1", "job_1.toolu_1", workspace, shelf))


def error(result: ToolResult) -> Json:
    """The error in a result, which must be one."""
    assert result.is_error, result.content
    found: Json = json.loads(result.content)["error"]
    return found
