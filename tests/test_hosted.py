"""`modelport run`: an application of somebody else is served as models are, by real processes."""

from __future__ import annotations

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from test_cli_serve import run, started

ASGI = """
import asyncio
import os
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

GREETING = "hello"


@asynccontextmanager
async def lifespan(app):
    open("started", "w").close()
    yield {"answer": 42}
    open("stopped", "w").close()


async def hello(request):
    return JSONResponse({"said": GREETING, "answer": request.state.answer, "path": request.url.path, "process": os.getpid()})


async def echo(request):
    return PlainTextResponse(await request.body(), headers={"X-Own": "yes"})


async def boom(request):
    raise RuntimeError("a mistake of its own")


async def never(request):
    await asyncio.Event().wait()


async def gate(request):
    opened = await asyncio.to_thread(open, "gate")
    return PlainTextResponse(opened.read())


async def stream(request):
    async def parts():
        yield "first "
        opened = await asyncio.to_thread(open, "gate")
        yield opened.read()

    return StreamingResponse(parts())


routes = [Route(f"/{one.__name__}", one, methods=["GET", "POST"]) for one in (hello, echo, boom, never, gate, stream)]
cors = Middleware(CORSMiddleware, allow_origins=["https://shop.example.com"], allow_methods=["PUT"])
app = Starlette(routes=routes, lifespan=lifespan, middleware=[cors])


def make():
    return app
"""

WSGI = """
from flask import Flask, request

app = Flask(__name__)


@app.post("/double")
def double():
    return {"double": 2 * request.get_json()["number"]}
"""

NO_START = """
async def app(scope, receive, send):
    assert scope["type"] == "lifespan"
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(ASGI)
    os.mkfifo(tmp_path / "gate")
    return tmp_path


def open_gate(folder: Path, text: str) -> None:
    (folder / "gate").write_text(text)


def client(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, timeout=60, trust_env=False)


def answers(url: str) -> bool:
    """Whether a new connection is taken: none is once it ends."""
    try:
        return httpx.get(f"{url}/livez", timeout=60, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def test_an_asgi_application_answers_with_its_state_and_is_counted_and_logged(shop: Path) -> None:
    with started(shop, "run", "shop:app", "--port", "0", "--workers", "1") as (process, _, url), client(url) as caller:
        answer = caller.get("/hello", headers={"X-Request-Id": "order-7"})
        assert answer.json() | {"process": 0} == {"said": "hello", "answer": 42, "path": "/hello", "process": 0}
        assert answer.headers["x-request-id"] == "order-7"
        own = caller.post("/echo", content=b"body")
        assert (own.text, own.headers["x-own"]) == ("body", "yes")
        assert caller.get("/nowhere").status_code == 404
        assert caller.get("/nowhere").text == "Not Found"
        assert (caller.get("/livez").json(), caller.get("/readyz").json()) == ({"status": "alive"}, {"status": "ready"})
        counted = caller.get("/metrics").text
        assert 'modelport_requests_total{model="shop",route="other",status="200"} 2.0' in counted
        assert 'modelport_requests_total{model="shop",route="other",status="404"} 2.0' in counted
        process.send_signal(signal.SIGTERM)
        logged, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    lines = [json.loads(line) for line in logged.splitlines()]
    assert [line["path"] for line in lines if line.get("request_id") == "order-7"] == ["/hello"]
    assert (shop / "started").exists()
    assert (shop / "stopped").exists()


def test_a_wsgi_application_is_served_by_threads(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(WSGI)
    with started(tmp_path, "run", "shop:app", "--port", "0", "--workers", "1") as (_, _, url), client(url) as caller:
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda number: caller.post("/double", json={"number": number}), range(40)))
        assert [answer.json() for answer in answers] == [{"double": 2 * number} for number in range(40)]
        assert caller.get("/readyz").status_code == 200


def test_what_makes_the_application_is_called(shop: Path) -> None:
    with started(shop, "run", "shop:make()", "--port", "0", "--workers", "1") as (_, _, url), client(url) as caller:
        assert caller.get("/hello").status_code == 200


def test_a_mistake_is_a_problem_and_the_log_has_the_story(shop: Path) -> None:
    with started(shop, "run", "shop:app", "--port", "0", "--workers", "1") as (process, _, url), client(url) as caller:
        answer = caller.get("/boom")
        assert answer.status_code == 500
        assert caller.get("/hello").status_code == 200
        process.send_signal(signal.SIGTERM)
        logged, complained = process.communicate(timeout=60)
    assert logged.count('"event": "failure"') == 1
    assert "a mistake of its own" in logged
    assert "a mistake of its own" not in answer.text
    assert "Traceback" not in complained


def test_limits_hold_for_it(shop: Path) -> None:
    words = ("--port", "0", "--workers", "1", "--timeout", "0.3", "--max-body", "1k")
    with started(shop, "run", "shop:app", *words) as (_, _, url), client(url) as caller:
        late = caller.get("/never")
        assert (late.status_code, late.json()["type"]) == (504, "urn:modelport:deadline-exceeded")
        large = caller.post("/echo", content=b"x" * 1025)
        assert (large.status_code, large.json()["type"]) == (413, "urn:modelport:too-large")
        assert caller.post("/echo", content=b"x" * 1024).status_code == 200


def test_keys_are_asked_for_and_the_applications_own_cors_answers_preflights(shop: Path) -> None:
    words = ("run", "shop:app", "--port", "0", "--workers", "1")
    with started(shop, *words, MODELPORT_API_KEY="secret") as (_, _, url), client(url) as caller:
        assert caller.get("/hello", headers={"Accept": "text/html"}).status_code == 401
        assert caller.get("/metrics").status_code == 401
        assert caller.get("/readyz").status_code == 200
        assert caller.get("/hello", headers={"Authorization": "Bearer secret"}).status_code == 200
        asked = {"Origin": "https://shop.example.com", "Access-Control-Request-Method": "PUT"}
        assert caller.options("/hello", headers=asked).headers["access-control-allow-methods"] == "PUT"


def test_what_is_under_way_is_finished_when_it_is_told_to_stop(shop: Path) -> None:
    with started(shop, "run", "shop:app", "--port", "0", "--workers", "1") as (process, _, url), client(url) as caller:
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(caller.get, "/gate")
            gate = (shop / "gate").open("w")  # opens when the application has opened its end: the request has come
            process.send_signal(signal.SIGTERM)
            while answers(url):
                pass
            gate.write("open")
            gate.close()
            assert waiting.result().text == "open"
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert (shop / "stopped").exists()


def test_an_answer_in_parts_is_passed_on_as_it_comes(shop: Path) -> None:
    with started(shop, "run", "shop:app", "--port", "0", "--workers", "1") as (_, _, url), client(url) as caller:
        with caller.stream("GET", "/stream") as answer:
            parts = answer.iter_text()
            assert next(parts) == "first "
            open_gate(shop, "second")
            assert "".join(parts) == "second"


def test_a_worker_that_is_killed_is_replaced(shop: Path) -> None:
    with started(shop, "run", "shop:app", "--port", "0", "--workers", "1") as (process, _, url), client(url) as caller:
        first = caller.get("/hello").json()["process"]
        os.kill(first, signal.SIGKILL)
        assert process.stdout is not None
        ready = (json.loads(line) for line in process.stdout if '"event": "worker-ready"' in line)
        second = next(line["process"] for line in ready if line["process"] != first)
        with client(url) as another:
            assert another.get("/hello").json()["process"] == second


def test_reload_takes_what_has_been_edited(shop: Path) -> None:
    with started(shop, "run", "shop:app", "--port", "0", "--workers", "2") as (_, serving, url), client(url) as caller:
        assert caller.get("/hello").json()["said"] == "hello"
        (shop / "shop.py").write_text(ASGI.replace('GREETING = "hello"', 'GREETING = "good day"'))
        done = run(shop, "reload", "--port", str(serving["port"]))
        assert done.returncode == 0, done.stderr
        assert {caller.get("/hello").json()["said"] for _ in range(10)} == {"good day"}
        (shop / "shop.py").write_text("raise ValueError('not yet')")
        refused = run(shop, "reload", "--port", str(serving["port"]))
        assert refused.returncode != 0
        assert "importing shop raised ValueError: not yet" in refused.stderr
        assert caller.get("/hello").json()["said"] == "good day"


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("shop", "", "'shop' names no application"),
        ("shop:app; rm", "", "'shop:app; rm' names no application"),
        ("missing:app", "", "there is no module 'missing' in"),
        ("shop:ap", "app = 1", "shop has no 'ap'; did you mean \"app\"?"),
        ("shop:app", "app = 1", "shop:app is '1', and no application"),
        ("shop:App", "class App: pass", "shop:App is a class"),
        ("shop:app", "import no_such_library", "shop imports no_such_library, which is not installed"),
        ("shop:app", "1 / 0", "importing shop raised ZeroDivisionError"),
        ("shop:make()", "def make(): 1 / 0", "make() of shop raised ZeroDivisionError"),
        ("shop:app", NO_START, "shop:app did not start"),
        ("shop:wrapped", f"{NO_START}\nfrom functools import partial\nwrapped = partial(app)", "shop:wrapped did not start"),
    ],
)
def test_what_cannot_be_served_is_one_clear_line(name: str, source: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(source)
    done = run(tmp_path, "run", name, "--port", "0")
    assert done.returncode in (1, 2)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
