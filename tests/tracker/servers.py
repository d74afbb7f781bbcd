"""An operator who asks the server without the tracker, and servers that do not do what they should."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

PATIENCE_S = 30.0
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Operator:
    """Asks the server directly."""

    http: httpx.Client

    def ask(self, method: str, path: str, body: object = None) -> Json:
        """The answer of a request that must succeed."""
        response = self.http.request(method, path, json=body)
        assert response.is_success, response.text
        return dict(response.json())

    def session(self, session_id: str | None) -> Json:
        """A session as the server has it."""
        return self.ask("GET", f"/v1/sessions/{session_id}")

    def sessions(self) -> list[Json]:
        """All that are live."""
        return list(self.ask("GET", "/v1/sessions?status=active")["sessions"])

    def kick(self, session_id: str | None) -> None:
        """Throw somebody out."""
        self.ask("DELETE", f"/v1/sessions/{session_id}")

    def configure(self, **changes: object) -> Json:
        """Change the pool."""
        return self.ask("PUT", "/v1/pools/main", changes)


@dataclass
class Canned:
    """A server that gives the same answers to everybody, one after the other, the last for ever."""

    url: str
    asked: list[str] = field(default_factory=list)


@contextmanager
def answering(*answers: tuple[int, object], headers: Sequence[tuple[str, str]] = ()) -> Iterator[Canned]:
    """Serve these statuses and bodies; a body that is a text is no JSON."""
    canned = Canned("")

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, body = answers[min(len(canned.asked), len(answers) - 1)]
            canned.asked.append(f"{self.command} {self.path.partition('?')[0]}")
            content = (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - http.server's names

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    canned.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield canned
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def silence() -> Iterator[str]:
    """A server that accepts everybody and answers nobody."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def wait_until(is_so: Callable[[], bool]) -> None:
    """Look until it is so; fail if it does not become so."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def nobody_there() -> str:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


class Switch:
    """A relay in front of a server: switched off, it refuses everybody, as a server that is away."""

    def __init__(self, url: str) -> None:
        self._target = httpx.URL(url)
        self._http = httpx.Client(timeout=20)
        self.is_on = True
        self.asked: list[str] = []

    def relay(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        """The server's answer, or that of a proxy that cannot reach it."""
        self.asked.append(f"{method} {path.partition('?')[0]}")
        if not self.is_on:
            return 503, b"<html>no server</html>"
        answer = self._http.request(method, str(self._target.join(path)), headers=headers, content=body)
        return answer.status_code, answer.content

    def close(self) -> None:
        """Close its connections."""
        self._http.close()


@contextmanager
def switched(url: str) -> Iterator[tuple[str, Switch]]:
    """The address of a relay to `url`, and its switch."""
    switch = Switch(url)

    class Handler(BaseHTTPRequestHandler):
        def relay(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            kept = {
                name: self.headers[name] for name in ("Authorization", "Content-Type") if self.headers[name]
            }
            status, content = switch.relay(self.command, self.path, kept, body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = relay  # noqa: N815 - http.server's names

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", switch
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        switch.close()
