"""Run a service: a socket, uvicorn's loop, and an end that lets requests under way finish."""

from __future__ import annotations

import errno
import gc
import os
import socket
from collections.abc import Callable, Sequence
from types import FrameType

import uvicorn

from modelport.errors import UsageError
from modelport.serving.app import Application, create_app
from modelport.serving.logs import Log
from modelport.serving.service import Service
from modelport.serving.settings import Settings

_BACKLOG = 2048


def run(services: Sequence[Service], settings: Settings, started: Callable[[str, int], None]) -> None:
    """Serve until told to stop by SIGTERM or SIGINT; `started` is called with the address once it is listened on.

    UsageError when the address cannot be had, before a model is tried. GoldenMismatch when a model does not give its recorded answers.
    """
    listener = bind(settings.host, settings.port)
    log = Log()
    for service in services:
        service.warm_up()
    app = create_app(services, settings, log)
    server = Server(app, settings)
    gc.collect()
    gc.freeze()
    host, port = listener.getsockname()[:2]
    log.event("serving", host=host, port=port, models=[service.label for service in services])
    started(host, port)
    server.run([listener])


class Server(uvicorn.Server):
    """uvicorn's server, which tells the application when it begins to stop."""

    def __init__(self, app: Application, settings: Settings) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                loop="uvloop" if os.name == "posix" else "asyncio",
                http="httptools",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=round(settings.grace_s),
                backlog=_BACKLOG,
            )
        )
        self._application = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop: what is under way is finished first, unless told twice. uvicorn's own would end with the signal; this is no failure: 0."""
        self._application.draining = True
        self.force_exit = self.should_exit
        self.should_exit = True


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. UsageError when the port is taken, or the address is not one of this machine."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UsageError(f"cannot listen on {host!r}: {error.strerror or error}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise UsageError(f"port {port} of {host} is taken by another program", hint="--port 0 takes a free one.") from error
        raise UsageError(f"cannot listen on {host} port {port}: {error.strerror}") from error
    return listener
