"""A small proxy before a registry that does what networks and registries do on a bad day, and writes down what it was asked."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}


@dataclass
class Call:
    """A request that came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Answer:
    """What a fault gives instead of the registry's answer; `sent` cuts the body short, and breaks the connection then."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    sent: int | None = None


@dataclass
class Proxy:
    """The proxy: `faults` are asked one after the other whether they answer a call; those that do not give None."""

    registry: str
    host: str = ""
    calls: list[Call] = field(default_factory=list)
    faults: list[Callable[[Call], Answer | None]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def forwarded(self, call: Call) -> Answer:
        """The registry's own answer."""
        connection = http.client.HTTPConnection(self.registry, timeout=30)
        headers = {name: value for name, value in call.headers.items() if name.lower() not in _HOP}
        connection.request(call.method, call.path, call.body, {**headers, "Host": self.host, "Content-Length": str(len(call.body))})
        answer = connection.getresponse()
        body = answer.read()
        kept = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP}
        if call.method == "HEAD":
            kept["Content-Length"] = answer.headers.get("Content-Length", "0")
        connection.close()
        return Answer(answer.status, body, kept)

    def asked(self, method: str, part: str = "") -> list[Call]:
        """The calls of that method with `part` in their path."""
        return [call for call in self.calls if call.method == method and part in call.path]


@contextmanager
def before(registry: str, *faults: Callable[[Call], Answer | None]) -> Iterator[Proxy]:
    """A proxy on a port of its own before a registry."""
    proxy = Proxy(registry, faults=list(faults))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one(self) -> None:
            call = Call(self.command, self.path, dict(self.headers), self.rfile.read(int(self.headers.get("Content-Length", "0"))))
            with proxy.lock:
                proxy.calls.append(call)
                answer = next((found for fault in proxy.faults if (found := fault(call)) is not None), None)
            answer = answer or proxy.forwarded(call)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if "Content-Length" not in answer.headers:
                self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body if answer.sent is None else answer.body[: answer.sent])
            if answer.sent is not None:
                self.close_connection = True

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = handle_one

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    proxy.host = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def times(count: int, when: Callable[[Call], bool], answer: Callable[[Call], Answer]) -> Callable[[Call], Answer | None]:
    """A fault that happens `count` times to calls for which `when` holds."""
    left = [count]

    def fault(call: Call) -> Answer | None:
        if left[0] and when(call):
            left[0] -= 1
            return answer(call)
        return None

    return fault


class Tokens:
    """A fault that asks for a Bearer token on each call, and gives tokens that hold for a number of calls: a token server of its own."""

    def __init__(self, uses: int, password: str = "secret") -> None:
        self.uses, self.given, self.asked = uses, dict[str, int](), list[str]()
        self._basic = "Basic " + __import__("base64").b64encode(f"ann:{password}".encode()).decode()

    def __call__(self, call: Call) -> Answer | None:
        host = call.headers["Host"]
        if call.path.startswith("/token"):
            self.asked.append(call.path)
            if call.headers.get("Authorization") != self._basic:
                return Answer(401, b'{"errors":[{"code":"UNAUTHORIZED","message":"incorrect username or password"}]}')
            token = f"token{len(self.given)}"
            self.given[token] = self.uses
            return Answer(200, f'{{"token": "{token}"}}'.encode())
        token = call.headers.pop("Authorization", "").removeprefix("Bearer ")
        if self.given.get(token, 0) > 0:
            self.given[token] -= 1
            return None
        challenge = f'Bearer realm="http://{host}/token",service="tests",scope="repository:x:pull"'
        return Answer(401, b"", {"WWW-Authenticate": challenge})
