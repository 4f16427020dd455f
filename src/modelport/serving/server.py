"""Run a service: a socket, uvicorn's loop, and an end that lets requests under way finish."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Sequence
from functools import partial
from types import FrameType
from typing import Any

import uvicorn

from modelport.serving.app import Application, create_app
from modelport.serving.fastpath import Connection, FastPath
from modelport.serving.listener import BACKLOG, bind
from modelport.serving.logs import Log
from modelport.serving.service import Service
from modelport.serving.settings import Settings


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
    app.telemetry.close()


class Server(uvicorn.Server):
    """uvicorn's server with the fast path, which tells the application when it begins to stop. `http` stands in for the fast path."""

    def __init__(self, app: Application, settings: Settings, http: Any = None) -> None:
        protocol: Any = http or partial(Connection, FastPath(app))  # uvicorn wants a class, and calls it
        super().__init__(
            uvicorn.Config(
                app,
                loop="uvloop" if os.name == "posix" else "asyncio",
                http=protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=round(settings.grace_s),
                # longer than proxies keep theirs (60 s in nginx), so that none sends a request into a connection that is just closing
                timeout_keep_alive=75,
                backlog=BACKLOG,
            )
        )
        self._application = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop: what is under way is finished first, unless told twice. uvicorn's own would end with the signal; this is no failure: 0."""
        self._application.draining = True
        self.force_exit = self.should_exit
        self.should_exit = True
