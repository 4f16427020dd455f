"""An application of somebody else, ASGI or WSGI, served as models are: with metrics, log, traces, limits, health and drain."""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import inspect
import os
import re
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import uvicorn
from uvicorn.lifespan.on import LifespanOn

from modelport.errors import DeadlineExceeded, MissingLibrary, ModelFailed, UsageError
from modelport.serving.app import Application, Handler
from modelport.serving.control import Model
from modelport.serving.guard import App, Exchange, Guard, Message, Receive, Scope, Send
from modelport.serving.logs import Log
from modelport.serving.problems import Answer
from modelport.serving.settings import Settings
from modelport.serving.tracing import Tracer, from_environment
from modelport.signature import did_you_mean

_NAME = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)(\(\))?")
_OPEN = frozenset({b"/livez", b"/readyz"})


def find(name: str, folder: Path) -> Model:
    """What is served: the application by its name, "module:attribute", and a digest of the module's files below `folder`.

    UsageError where it is no such name.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise UsageError(f"{name[:100]!r} names no application", hint="It is like app:app, or shop.main:create_app() for one that is made.")
    top = match[1].partition(".")[0]
    digest = hashlib.sha256()
    for path in sorted([folder / f"{top}.py", *(folder / top).rglob("*.py")]):
        if path.is_file():
            digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes() + b"\0")
    return Model(name, "", str(folder), f"sha256:{digest.hexdigest()}")


def create(model: Model, settings: Settings, log: Log) -> Hosted:
    """The application, imported and ready to be started. UsageError where there is none; ModelFailed where importing it fails."""
    tracer = from_environment(os.environ, lambda why: log.event("tracing", detail=why))
    return Hosted(load(model.name, Path(model.folder)), model.name, settings, log, tracer)


def load(name: str, folder: Path) -> App:
    """The application called "module:attribute", as ASGI; modules are looked for in `folder` first."""
    match = _NAME.fullmatch(name)
    assert match is not None, "the name was looked at before a worker was started"
    module_name, attribute, call = match.groups()
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    found: Any = _imported(module_name, folder)
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = did_you_mean(part, [one for one in vars(found) if not one.startswith("_")])
            raise UsageError(f"{module_name} has no {part!r}{near}", hint=f"{name} is looked for in {folder}.")
        found = getattr(found, part)
    if call:
        try:
            found = found()
        except Exception as error:
            raise ModelFailed(f"{attribute}() of {module_name} raised {type(error).__name__}: {error}") from error
    return _as_asgi(found, name)


def _imported(name: str, folder: Path) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise UsageError(
                f"there is no module {error.name!r} in {folder}", hint="It is looked for there, and among what is installed."
            ) from error
        raise MissingLibrary(f"{name} imports {error.name}, which is not installed", hint=f"pip install {error.name}") from error
    except Exception as error:
        raise ModelFailed(f"importing {name} raised {type(error).__name__}: {error}") from error


def _as_asgi(found: Any, name: str) -> App:
    """The application itself where it is ASGI; else behind a pool of threads that speaks WSGI. UsageError where it is neither."""
    if not callable(found):
        raise UsageError(f"{name} is {str(found)[:60]!r}, and no application", hint="An ASGI or WSGI application is called.")
    if inspect.isclass(found):
        raise UsageError(f"{name} is a class", hint=f"Name an instance of it, or {name}() for one that is made.")
    called = found
    while isinstance(called, partial):
        called = called.func
    asked = called if inspect.isroutine(called) else type(called).__call__
    if inspect.iscoroutinefunction(inspect.unwrap(asked)) or inspect.iscoroutinefunction(asked):
        return cast("App", found)
    try:
        from a2wsgi import WSGIMiddleware
    except ImportError as error:
        raise MissingLibrary(f"{name} is a WSGI application, which needs a2wsgi", hint="pip install 'modelport[wsgi]'") from error
    return cast("App", WSGIMiddleware(found))


class Hosted(Application):
    """The paths of health and metrics, and the application for all others."""

    def __init__(self, app: App, name: str, settings: Settings, log: Log, tracer: Tracer | None) -> None:
        super().__init__((), settings, log, tracer)
        self._hosted, self._name = app, name
        self.guard = _HostedGuard(self._router, settings, self.telemetry)
        self._lifespan = LifespanOn(uvicorn.Config(app, interface="asgi3", lifespan="auto", log_config=None))

    def _endpoints(self) -> dict[str, dict[str, Handler]]:
        return {"/livez": {"GET": self._livez}, "/readyz": {"GET": self._readyz}, "/metrics": {"GET": self._metrics}}

    async def start(self) -> None:
        """Run what the application does before its first request. ModelFailed where that fails."""
        await self._lifespan.startup()
        if self._lifespan.should_exit:
            raise ModelFailed(f"{self._name} did not start", hint="Its own log says why.")

    async def stop(self) -> None:
        """Run what it does after its last request."""
        await self._lifespan.shutdown()

    async def _not_found(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Whatever is no path of this service's own is the application's."""
        exchange: Exchange = scope["modelport"]
        exchange.model = self._name
        own = {key: value for key, value in scope.items() if key not in ("modelport", "router", "endpoint", "path_params")}
        own |= {"state": self._lifespan.state.copy(), "extensions": {}}
        timeout, is_over = asyncio.timeout(self.settings.timeout_s), False

        async def take() -> Message:
            return await exchange.passed_on()

        async def give(message: Message) -> None:
            nonlocal is_over
            if message["type"] == "http.response.start":
                timeout.reschedule(None)
                exchange.begin(message["status"])
                message = {**message, "headers": self._headers(message.get("headers", ()), exchange)}
            is_over = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        try:
            async with timeout:
                await self._hosted(own, take, give)
        except TimeoutError:
            if not timeout.expired():
                raise
            raise DeadlineExceeded(f"{self._name} did not begin to answer within {self.settings.timeout_s:g} s") from None
        except Exception as error:
            if not is_over:
                raise
            self.telemetry.log.failure(error, exchange.request_id)  # it has answered with its own page for that

    def _headers(self, given: Any, exchange: Exchange) -> list[tuple[bytes, bytes]]:
        headers = [(bytes(name), bytes(value)) for name, value in given]
        if all(name.lower() != b"x-request-id" for name, _ in headers):
            headers.append((b"x-request-id", exchange.request_id.encode()))
        if self.draining:
            headers.append((b"connection", b"close"))
        return headers


class _HostedGuard(Guard):
    """What stands before an application that has pages, and CORS, of its own."""

    def _is_open(self, scope: Scope, headers: Mapping[bytes, bytes]) -> bool:
        return scope["method"] in ("GET", "HEAD") and scope["raw_path"] in _OPEN

    def _preflight(self, exchange: Exchange) -> Answer | None:
        return None
