"""uvicorn's server as a worker runs it: its loop, the fast path, and an end that lets requests under way finish."""

from __future__ import annotations

import os
from functools import partial
from types import FrameType
from typing import Any

import uvicorn

from modelport.serving.app import Application
from modelport.serving.fastpath import Connection, FastPath
from modelport.serving.listener import BACKLOG
from modelport.serving.settings import Settings


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
