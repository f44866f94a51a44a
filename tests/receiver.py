"""A web server on loopback that takes down what is posted to it and answers as it was told."""

from __future__ import annotations

import json
import threading
from collections import deque
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Received:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    """What to say to one request."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b"ok"


class Receiver:
    """Serves in a thread until it is closed. Gives its `answers` in turn, then 200; when `silent`, it gives none.

    `arrived` counts the requests, for who waits for one.
    """

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.answers: deque[Answer] = deque()
        self.silent = threading.Event()
        self.arrived = threading.Semaphore(0)
        self._closed = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def say(self, *statuses: int, **headers: str) -> None:
        """Answers the next requests with these statuses, the last one with the headers."""
        self.answers += [Answer(status) for status in statuses[:-1]]
        self.answers.append(Answer(statuses[-1], tuple((n.replace("_", "-"), value) for n, value in headers.items())))

    def take(self) -> list[Received]:
        """What came since the last call."""
        taken, self.received = self.received, []
        return taken

    def close(self) -> None:
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.received.append(Received(self.path, headers, body))
                receiver.arrived.release()
                if receiver.silent.is_set():
                    receiver._closed.wait()
                    return
                answer = receiver.answers.popleft() if receiver.answers else Answer()
                self.send_response(answer.status)
                for name, value in (*answer.headers, ("content-length", str(len(answer.body)))):
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        return Handler
