"""The paths of a service and what each answers.

The page and its files are read into memory once: no path that a caller names reaches the file system.
"""

from __future__ import annotations

import asyncio
import hashlib
import mimetypes
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from urllib.parse import parse_qs

from starlette.routing import Route, Router

from modelport import __version__
from modelport.errors import MalformedBody, MethodNotAllowed, NotFound, Unavailable, UsageError
from modelport.serving import dialects, openapi, resources, uploads
from modelport.serving.batching import Work
from modelport.serving.guard import Disconnected, Exchange, Guard, Receive, Scope, Send
from modelport.serving.inputs import Rows, parse_json
from modelport.serving.logs import Log
from modelport.serving.metrics import Snapshot, expose, merge, of_processes
from modelport.serving.negotiation import HTML, JSON, choose, prefers_page
from modelport.serving.outputs import Answers, to_json
from modelport.serving.problems import Answer
from modelport.serving.service import Call, Service
from modelport.serving.settings import Settings
from modelport.serving.telemetry import Telemetry
from modelport.serving.tracing import Tracer, from_environment
from modelport.signature import Columns, did_you_mean

if TYPE_CHECKING:
    from modelport.serving.fetch import Fetcher

_SOON_BYTES = 64 * 2**10
"""So much is read or written in less than a few milliseconds."""
_BYTES_PER_ROW = 64
_MOST_HELPED_BYTES = 2**28
"""What may wait for a thread at once, or be read on one."""
_Made = TypeVar("_Made")
Decode: TypeAlias = Callable[[Service, dialects.Request], Call]
Handler: TypeAlias = Callable[[Exchange, Mapping[str, str]], Awaitable[Answer]]


def create_app(services: Sequence[Service], settings: Settings, log: Log | None = None, tracer: Tracer | None = None) -> Application:
    """The ASGI application that serves `services`, with spans if the environment asks for them. UsageError when two have one name."""
    log = log or Log()
    return Application(services, settings, log, tracer or from_environment(os.environ, lambda why: log.event("tracing", detail=why)))


def respond(decode: Decode, service: Service, request: dialects.Request) -> tuple[Answer, int]:
    """A request's bytes answered with bytes, and how many rows that were: the whole contract, without a server around it."""
    call = decode(service, request)
    columns = service.engine.predict(call.rows.columns) if call.rows.count else None
    made = call.encode(columns)
    return made if isinstance(made, Answer) else Answer(made, call.content_type), call.rows.count


class Application:
    """Routes requests to models; the guard stands before it."""

    def __init__(self, services: Sequence[Service], settings: Settings, log: Log, tracer: Tracer | None) -> None:
        self.services = {service.name: service for service in services}
        if len(self.services) < len(services):
            raise UsageError("two of the models have one name", hint="Serve each under a name of its own: pack it with --name.")
        self.settings = settings
        self.draining = False
        self._models: dict[str, list[Service]] = {}
        """The services of each model: itself, or its functions, the first first."""
        for service in services:
            self._models.setdefault(service.model, []).append(service)
        self._only = services[0] if len(self._models) == 1 else None
        self.log = log
        routes = {settings.predict_route: "v1", settings.health_route: "health", **dict.fromkeys(self._functions(), "predict")}
        self.telemetry = Telemetry(services, log, tracer, routes={path: route for path, route in routes.items() if path})
        for service in services:
            service.observer = self.telemetry.metrics.models[service.name]
        self.totals: Callable[[], Awaitable[Snapshot]] = self._totals
        """What all workers counted; where there is but this process, what it did."""
        self.fetcher = _fetcher(settings)
        """What fetches pictures that callers name by their URL; None where that is not allowed."""
        self._helper = ThreadPoolExecutor(max(2, resources.cores()), "helper")
        self._helped_bytes = 0
        self._documents: dict[str, bytes] = {}
        endpoints = self._endpoints()
        self.methods = {path: tuple(handlers) for path, handlers in endpoints.items()}
        """The methods of every path."""
        self._paths = [path for path in endpoints if "{" not in path]
        self._router = Router(
            [Route(path, Endpoint(methods)) for path, methods in endpoints.items()], redirect_slashes=False, default=self._not_found
        )
        self.guard = Guard(self._router, settings, self.telemetry)
        self.telemetry.metrics.in_flight.append(lambda: self.guard.open_requests)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.guard(scope, receive, send)

    async def start(self) -> None:
        """Called on the loop before the first request."""

    async def stop(self) -> None:
        """Called on it after the last."""

    def plain_paths(self) -> dict[str, Service]:
        """The paths at which a JSON body in Modelport's own form is answered, and by which model."""
        paths = {f"/models/{name}/predict": service for name, service in self.services.items()} | self._functions()
        return paths | {"/predict": self._only, "/invocations": self._only} if self._only else paths

    def _functions(self) -> dict[str, Service]:
        """The paths at which the functions of a model are asked by their own names."""
        named = [service for service in self.services.values() if service.bundle.function or service.takes_query]
        paths = {f"/models/{service.model}/{service.path}": service for service in named}
        return paths | ({f"/{service.path}": service for service in named} if self._only else {})

    def _endpoints(self) -> dict[str, dict[str, Handler]]:
        """Every path, with what answers each of its methods; first those that are asked most, for they are looked up in this order."""
        page, docs = partial(self._page, "index.html"), partial(self._page, "docs.html")
        paths: dict[str, dict[str, Handler]] = {}
        if self._only:
            paths["/predict"] = {"POST": partial(self._ask, dialects.native)}
            if self.fetcher is not None and self._only.inputs.picture is not None:
                paths["/predict"]["GET"] = self._ask_by_url
            paths["/invocations"] = {"POST": partial(self._ask, dialects.invocations)}
        paths |= {
            "/models/{name}/predict": {"POST": partial(self._ask, dialects.native)},
            "/": {"GET": page},
            "/docs": {"GET": docs},
            "/openapi.json": {"GET": self._openapi},
            "/static/{file}": {"GET": self._static},
            "/livez": {"GET": self._livez},
            "/readyz": {"GET": self._readyz},
            "/metrics": {"GET": self._metrics},
            "/models/{name}": {"GET": self._about},
            "/models/{name}/": {"GET": page},
            "/models/{name}/docs": {"GET": docs},
            "/models/{name}/openapi.json": {"GET": self._openapi},
            "/models/{name}/static/{file}": {"GET": self._static},
            "/v2": {"GET": self._v2_server},
            "/v2/": {"GET": self._v2_server},
            "/v2/health/live": {"GET": self._v2_live},
            "/v2/health/ready": {"GET": self._v2_ready},
            "/v1/models/{name}:predict": {"POST": partial(self._ask, dialects.v1)},
            "/v1/models/{name}/versions/{version}:predict": {"POST": partial(self._ask, dialects.v1)},
            "/v1/models/{name}": {"GET": self._v1_status},
            "/v1/models/{name}/versions/{version}": {"GET": self._v1_status},
            "/ping": {"GET": self._readyz},
        }
        for model in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
            paths[model] = {"GET": self._v2_model}
            paths[f"{model}/ready"] = {"GET": self._v2_model_ready}
            paths[f"{model}/infer"] = {"POST": partial(self._ask, dialects.v2_infer)}
        if self._only and self.settings.predict_route:
            paths[self.settings.predict_route] = {"POST": partial(self._ask, dialects.v1)}
        if self.settings.health_route:
            paths[self.settings.health_route] = {"GET": self._readyz}
        named = {path: self._asks(service) for path, service in self._functions().items()}
        return {**named, **paths, **{path: paths.get(path, {}) | asked for path, asked in named.items()}}

    def _asks(self, service: Service) -> dict[str, Handler]:
        """How a service is asked, at a path that does not name its model."""

        async def ask(decode: Decode, exchange: Exchange, path: Mapping[str, str]) -> Answer:
            return await self._ask(decode, exchange, {"name": service.name})

        handlers: dict[str, Handler] = {"POST": partial(ask, dialects.native)}
        return handlers | ({"GET": partial(ask, dialects.query)} if service.takes_query else {})

    # Answers that ask a model

    async def _ask(self, decode: Decode, exchange: Exchange, path: Mapping[str, str]) -> Answer:
        service = self._service(exchange, path)
        content_type, accept = exchange.header("content-type"), exchange.header("accept") or ""
        request = dialects.Request(
            await exchange.body(),
            content_type,
            accept,
            self.settings.max_rows,
            self.settings.max_picture_bytes,
            exchange.header("inference-header-content-length"),
            query=exchange.query,
        )
        if self.fetcher is not None and service.inputs.has_pictures:
            request = await self._with_pictures(self.fetcher, exchange, request)
        return await self._answer(decode, service, exchange, request)

    async def _ask_by_url(self, exchange: Exchange, path: Mapping[str, str]) -> Answer:
        """The answer to the picture that the query names."""
        assert self.fetcher is not None
        asked = parse_qs(exchange.query.decode("latin-1"), keep_blank_values=True)
        if asked.keys() != {"url"} or len(asked["url"]) != 1:
            raise MalformedBody("the query is not ?url=...", hint="GET /predict?url=https%3A%2F%2Fexample.com%2Fcat.jpg")
        request = dialects.Request(to_json({"url": asked["url"][0]}), JSON, exchange.header("accept") or "", 1)
        request = await self._with_pictures(self.fetcher, exchange, request)
        return await self._answer(dialects.native, self._service(exchange, path), exchange, request)

    async def _with_pictures(self, fetcher: Fetcher, exchange: Exchange, request: dialects.Request) -> dialects.Request:
        """The request with the pictures that its JSON names by their URLs. A body that is no JSON is left to who reads it next."""
        if b'"url"' not in request.body or not (request.content_type or "").lower().startswith(JSON):
            return request
        try:
            urls = await self._where_it_fits(len(request.body), lambda: uploads.urls_in(parse_json(request.body)))
        except MalformedBody:
            return request
        found = await fetcher.fetch_all(urls, exchange.caller)
        for one in found.values():
            if isinstance(one, bytes):
                self.telemetry.metrics.fetched("ok")
            else:
                self.telemetry.metrics.fetched(one.result)
                self.log.event("fetch", result=one.result, detail=one.reason, request_id=exchange.request_id)
        return replace(request, fetched=found)

    async def _answer(self, decode: Decode, service: Service, exchange: Exchange, request: dialects.Request) -> Answer:
        begun = perf_counter()
        size = len(request.body) + (_SOON_BYTES if service.inputs.has_pictures else 0)  # decoding a picture takes its time
        call = await self._where_it_fits(size, partial(decode, service, request))
        exchange.rows, exchange.validate_s = call.rows.count, perf_counter() - begun
        columns = await self._predict(service, exchange, call, request) if call.rows.count else None
        begun = perf_counter()
        made = await self._where_it_fits(call.rows.count * _BYTES_PER_ROW, partial(call.encode, columns))
        exchange.encode_s = perf_counter() - begun
        return made if isinstance(made, Answer) else Answer(made, call.content_type)

    async def _predict(self, service: Service, exchange: Exchange, call: Call, request: dialects.Request) -> Columns:
        """The model's answers to the rows of `call`, which share calls of the model with whatever else waits for it."""
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Columns] = loop.create_future()

        def done(work: Work[Rows, Answers], answers: Answers | None, start: int, error: Exception | None) -> None:
            if answered.done():
                return
            if answers is None:
                answered.set_exception(error or AssertionError("neither answers nor an error"))
            else:
                answered.set_result(answers.part(start, start + work.rows.count))

        batcher = service.batcher(self.settings)
        work = Work(
            call.rows,
            loop.time() + batcher.timeout_s,
            exchange.caller,
            done,
            exchange.slot,
            request.body if call.plain else b"",
            exchange.request_id,
            service.name,
            perf_counter(),
        )
        if work.body:
            service.check(work.body)
        batcher.submit(work)

        def left() -> None:
            if not answered.done():
                answered.set_exception(Disconnected())

        exchange.when_left.add(left)
        try:
            return await answered
        finally:
            exchange.when_left.discard(left)
            work.cancel()

    async def _where_it_fits(self, size: int, work: Callable[[], _Made]) -> _Made:
        """Do at once what is soon done; on a thread what would keep health checks waiting."""
        if size <= _SOON_BYTES:
            return work()
        if self._helped_bytes and self._helped_bytes + size > _MOST_HELPED_BYTES:
            raise Unavailable(f"{self._helped_bytes:,} bytes of other requests are being read already")
        self._helped_bytes += size
        try:
            return await asyncio.get_running_loop().run_in_executor(self._helper, work)
        finally:
            self._helped_bytes -= size

    def _service(self, exchange: Exchange, path: Mapping[str, str]) -> Service:
        """The model that a path names, or the only one."""
        name, version = path.get("name"), path.get("version")
        service = self._only if name is None else self.services.get(name)
        if service is None:
            known = ", ".join(self.services)
            raise NotFound(f"there is no model {str(name)[:128]!r}{did_you_mean(name, list(self.services))}", hint=f"Served here: {known}.")
        if version is not None and version != (service.version or "1"):
            raise NotFound(f"{service.name} is served in version {service.version or '1'}, not {version[:40]!r}")
        exchange.model = service.label
        return service

    # Answers that tell of the models

    async def _page(self, file: str, exchange: Exchange, path: Mapping[str, str]) -> Answer:
        if file == "docs.html" or prefers_page(exchange.header("accept") or ""):
            # With keys, whether there is such a model is not for everyone: the page is the same for all, and what it fetches needs the key.
            if "name" in path and not self.settings.keys:
                self._service(exchange, path)
            return _file(file, exchange)
        return await self._about(exchange, path)

    async def _about(self, exchange: Exchange, path: Mapping[str, str]) -> Answer:
        choose(exchange.header("accept") or "", (JSON, HTML))
        if "name" in path or self._only:
            service = self._service(exchange, path)
            functions = self._models.get(service.name, ()) if not service.function else ()
            return Answer(to_json(describe(service, self.settings, functions, alone="name" not in path)))
        models = [describe(services[0], self.settings, services, alone=False) for services in self._models.values()]
        return Answer(to_json({"models": models, "title": self.settings.title, "subtitle": self.settings.subtitle}))

    async def _openapi(self, exchange: Exchange, path: Mapping[str, str]) -> Answer:
        name = path.get("name", "")
        one = self._service(exchange, path) if name else None
        services = self._models.get(name, [one]) if one else list(self.services.values())
        if name not in self._documents:
            document = openapi.document(services, self.settings, __version__, nested=bool(name))
            self._documents[name] = to_json(document)
        return Answer(self._documents[name])

    async def _static(self, exchange: Exchange, path: Mapping[str, str]) -> Answer:
        return _file(path["file"], exchange)

    # Health

    def _check_ready(self) -> None:
        if self.draining:
            raise Unavailable("the service is stopping")
        for service in self.services.values():
            if service.golden_rows is None:
                raise Unavailable(f"{service.name} has not reproduced its recorded answers")

    async def _livez(self, exchange: Exchange, path: Mapping[str, str]) -> Answer:
        return Answer(b'{"status":"alive"}')

    async def _readyz(self, exchange: Exchange, path: Mapping[str, str]) -> Answer:
        self._check_ready()
        return Answer(b'{"status":"ready"}')

    async def _v2_live(self, exchange: Exchange, path: Mapping[str, str]) -> Answer:
        return Answer(b'{"live":true}')

    async def _v2_ready(self, exchange: Exchange, path: Mapping[str, str]) -> Answer:
        self._check_ready()
        return Answer(b'{"ready":true}')

    async def _v2_model_ready(self, exchange: Exchange, path: Mapping[str, str]) -> Answer:
        service = self._service(exchange, path)
        self._check_ready()
        return Answer(to_json({"name": service.name, "ready": True}))

    # What was counted

    async def _metrics(self, exchange: Exchange, path: Mapping[str, str]) -> Answer:
        # On a thread: what writes it down is imported when it is first asked for, which takes 50 ms.
        return Answer(*await asyncio.to_thread(expose, await self.totals(), exchange.header("accept") or ""))

    async def _totals(self) -> Snapshot:
        here = of_processes(workers={"ready": 1}, memory={"worker": resources.memory_of()})
        return merge([self.telemetry.metrics.snapshot(), here], {})

    # What the dialects tell

    async def _v2_server(self, exchange: Exchange, path: Mapping[str, str]) -> Answer:
        return Answer(dialects.v2_server(__version__))

    async def _v2_model(self, exchange: Exchange, path: Mapping[str, str]) -> Answer:
        return Answer(dialects.v2_model(self._service(exchange, path)))

    async def _v1_status(self, exchange: Exchange, path: Mapping[str, str]) -> Answer:
        return Answer(dialects.v1_status(self._service(exchange, path)))

    async def _not_found(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"][:200]
        base = "" if self._only else "/models/{}"
        questions = [f"{base.format(service.model)}/{service.path}" for service in self.services.values()]
        hint = f"Models are asked at {', '.join(questions)}."
        raise NotFound(f"there is no path {path!r}{did_you_mean(path, self._paths)}", hint=hint)


def _fetcher(settings: Settings) -> Fetcher | None:
    if not settings.allow_url:
        return None
    from modelport.serving.fetch import Allowed, Fetcher

    return Fetcher(Allowed(settings.allow_url), settings.max_picture_bytes)


class Endpoint:
    """One path as an ASGI application: its methods, HEAD with GET, OPTIONS, and 405 for the others."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = handlers
        self._allow = ", ".join([*handlers, *(["HEAD"] if "GET" in handlers else []), "OPTIONS"])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: Exchange = scope["modelport"]
        method = scope["method"]
        handler = self._handlers.get("GET" if method == "HEAD" else method)
        if handler is not None:
            await exchange.answer(await handler(exchange, scope["path_params"]))
        elif method == "OPTIONS":
            await exchange.answer(Answer(b"", "", 204, {"Allow": self._allow}))
        else:
            error = MethodNotAllowed(f"{scope['path'][:200]} takes {self._allow}, not {method}")
            await exchange.fail(error, {"Allow": self._allow})


def describe(service: Service, settings: Settings, functions: Sequence[Service] = (), *, alone: bool) -> dict[str, Any]:
    """What GET / says of a model; with `alone`, its endpoints are those at the root. `functions` are all of them, where it has several."""
    base = "" if alone else f"/models/{service.name}"
    bundle = service.bundle
    about = [
        {"name": one.path, "description": one.description, "signature": one.signature.to_dict(), "endpoint": f"{base}/{one.path}"}
        for one in functions
    ]
    return {
        "name": service.name,
        "version": service.version,
        "digest": bundle.digest,
        "title": settings.title or bundle.title or service.name,
        "subtitle": settings.subtitle or bundle.subtitle,
        "description": settings.description or bundle.description,
        "framework": bundle.card.framework,
        "engine": service.engine_name,
        "fetches_urls": bool(settings.allow_url) and service.inputs.has_pictures,
        "signature": service.signature.to_dict(),
        "endpoints": {
            "page": f"{base}/",
            "predict": f"{base}/predict",
            "docs": f"{base}/docs",
            "openapi": f"{base}/openapi.json",
            "v2": f"/v2/models/{service.name}",
            "v1": f"/v1/models/{service.name}",
        },
        **({"functions": about} if len(about) > 1 else {}),
    }


@cache
def _files() -> dict[str, tuple[bytes, str, str]]:
    """The page's files: name -> bytes, type, ETag."""
    types = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}
    files = {}
    for path in sorted((Path(__file__).parent / "page").iterdir()):
        if path.is_file():
            body = path.read_bytes()
            kind = types.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
            charset = "; charset=utf-8" if kind.startswith("text/") else ""
            files[path.name] = (body, kind + charset, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
    return files


def _file(name: str, exchange: Exchange) -> Answer:
    if name not in _files():
        raise NotFound(f"there is no file {name[:100]!r}")
    body, kind, etag = _files()[name]
    headers = {"ETag": etag, "Cache-Control": "no-cache"}
    if etag in (exchange.header("if-none-match") or ""):
        return Answer(b"", "", 304, headers)
    return Answer(body, kind, 200, headers)
