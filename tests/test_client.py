"""The client and the typed modules: against a real service, and against servers that fail in every way."""

from __future__ import annotations

import ast
import http.server
import importlib.util
import json
import math
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import bundles
from modelport import errors
from modelport.bundle import Bundle
from modelport.cli.main import modelport
from modelport.client import Client
from modelport.client_source import attributes, client_source, literal
from modelport.errors import (
    DeadlineExceeded,
    InvalidInput,
    ModelFailed,
    ModelportError,
    NotFound,
    RequestError,
    Unauthorized,
    Unavailable,
    UnsupportedMediaType,
    UsageError,
)
from modelport.frameworks import Card
from modelport.serving.settings import keys_of
from modelport.signature import Columns, Field, Signature
from modelport.store import Store
from pictures_world import plain
from serving_world import EVERY_KIND, FLOWER, IRIS, Live, by_petal, counted, live, make_service
from test_serving_pictures import ALONE, by_colour

SETOSA = {"prediction": "setosa", "probabilities": {"setosa": 0.9, "versicolor": 0.05, "virginica": 0.05}}


def failing(columns: Columns) -> Columns:
    if (columns["petal_length"] == 13).any():
        raise ValueError("13 is unlucky")
    return by_petal(columns)


@pytest.fixture(scope="module")
def iris() -> Iterator[Live]:
    with live(make_service(failing)) as service:
        yield service


# Against a real service


def test_answers_come_in_the_kind_of_the_question(iris: Live) -> None:
    with Client(iris.url + "/") as client:
        assert client.predict(FLOWER) == SETOSA
        assert client.predict([FLOWER, {**FLOWER, "petal_length": 6}])[1]["prediction"] == "virginica"
        assert client.predict([]) == []
        frame = pd.DataFrame([FLOWER, {**FLOWER, "petal_length": 4}], index=["a", "b"])
        answers = client.predict(frame)
        assert answers.to_dict("index") == {
            "a": {"prediction": "setosa", "probabilities.setosa": 0.9, "probabilities.versicolor": 0.05, "probabilities.virginica": 0.05},
            "b": {
                "prediction": "versicolor",
                "probabilities.setosa": 0.05,
                "probabilities.versicolor": 0.9,
                "probabilities.virginica": 0.05,
            },
        }
        assert client.predict(frame.iloc[:0]).empty
        assert client.info()["name"] == "iris"
        assert client.ready() is True


def test_values_of_numpy_and_pandas_are_sent_as_json(iris: Live) -> None:
    with live(make_service(counted, EVERY_KIND, name="every")) as every, Client(every.url) as client:
        record = {
            "a number": np.float32("nan"),
            "class": np.int8(3),
            "is.it": np.bool_(True),
            "näme": np.str_("x"),
            "color": None,
            "size": pd.Series([2]).iloc[0],
            "notes": pd.NA,
            "vector": np.eye(2, dtype="float32"),
            "any": {
                "times": [
                    pd.Timestamp("2024-01-02T03:04:05Z"),
                    np.datetime64("2024-01-02", "ns"),
                    datetime(2024, 1, 2, tzinfo=UTC),
                    date(2024, 1, 2),
                    pd.NaT,
                ],
                "moments": np.array(["2024-01-02", "NaT"], dtype="datetime64[ns]"),
                "decimal": Decimal("1.5"),
                3: (1, 2),
            },
        }
        assert client.predict(record) == {"rows": 1, "echo": "x", "maybe": None}
    echo = Client("http://x", transport=httpx.MockTransport(lambda request: httpx.Response(200, content=request.content)))
    assert echo.predict(record)["any"] == {
        "times": ["2024-01-02T03:04:05+00:00", "2024-01-02T00:00:00", "2024-01-02T00:00:00+00:00", "2024-01-02", None],
        "moments": ["2024-01-02T00:00:00", None],
        "decimal": 1.5,
        "3": [1, 2],
    }


def test_values_that_json_cannot_hold_are_named_before_anything_is_sent(iris: Live) -> None:
    with Client(iris.url) as client:
        for value, detail in (
            (math.inf, "is inf, which JSON cannot hold"),
            (object(), "is a builtins.object"),
            (bytearray(b"x"), "is a builtins.bytearray"),
        ):
            with pytest.raises(InvalidInput, match=detail) as raised:
                client.predict([FLOWER, {**FLOWER, "petal_width": value}])
            assert raised.value.errors[0].pointer == "/1/petal_width"
        for inputs in ("text", 3, None, {1, 2}):
            with pytest.raises(UsageError, match="takes a record, a list of records, a DataFrame or a picture"):
                client.predict(inputs)  # type: ignore[call-overload]


def test_errors_are_those_of_the_service(iris: Live) -> None:
    with Client(iris.url) as client:
        with pytest.raises(InvalidInput) as raised:
            client.predict([FLOWER, {**FLOWER, "petal_width": "wide"}, {**FLOWER, "petal_widht": 1}])
        assert [(wrong.pointer, wrong.got) for wrong in raised.value.errors] == [("/1/petal_width", "wide"), ("/2/petal_widht", 1)]
        assert 'did you mean "petal_width"?' in raised.value.errors[1].detail
        assert raised.value.request_id in {entry["request_id"] for entry in iris.log.entries()}
        with pytest.raises(ModelFailed, match="the model raised an error"):
            client.predict({**FLOWER, "petal_length": 13})
    with Client(iris.url, model="irsi") as client, pytest.raises(NotFound, match="there is no model 'irsi'") as missing:
        client.predict(FLOWER)
    assert missing.value.hint == "Served here: iris."
    with Client(iris.url + "/nowhere") as client, pytest.raises(NotFound):
        client.info()


def test_a_key_is_sent_and_asked_for() -> None:
    key = "k" * 32
    with live(make_service(), keys=keys_of(key)) as service:
        with Client(service.url, key) as client:
            assert client.predict(FLOWER) == SETOSA
        for wrong in (None, "another"):
            client = Client(service.url, wrong)
            with pytest.raises(Unauthorized) as raised:
                client.predict(FLOWER)
            assert raised.value.request_id
            assert client.ready() is True
            client.close()


def test_one_of_several_models_is_asked_by_name() -> None:
    with live([make_service(), make_service(counted, EVERY_KIND, name="every")]) as service:
        with Client(service.url, model="every") as client:
            assert client.info()["name"] == "every"
            assert client.predict(EVERY_KIND.example())["rows"] == 1
        with Client(service.url) as client:
            assert [model["name"] for model in client.info()["models"]] == ["iris", "every"]
            with pytest.raises(NotFound):
                client.predict(FLOWER)


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ftp://x", "http://", "http://[", "http://x?y", "http://x/#y", "http://x:port"])
def test_what_is_no_address_of_a_service_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="is no URL") as raised:
        Client(url)
    assert raised.value.hint == "For example http://127.0.0.1:8000"


# Against servers that fail


class Scripted(http.server.BaseHTTPRequestHandler):
    """Answers each request as the next line of the script says."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        self.server.seen.append({"path": self.path, "body": body, **{name.lower(): value for name, value in self.headers.items()}})
        self.server.script.pop(0)(self)

    do_GET = do_POST

    def answer(self, status: int, content: bytes = b"{}", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    script: list[Callable[[Scripted], None]]
    seen: list[dict[str, Any]]
    done: threading.Event

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


@contextmanager
def scripted(*script: Callable[[Scripted], None]) -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), Scripted)
    server.script, server.seen, server.done = list(script), [], threading.Event()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.done.set()
        server.shutdown()
        thread.join()
        server.server_close()


def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


def answers(status: int, content: bytes = b"{}", **headers: str) -> Callable[[Scripted], None]:
    return lambda handler: handler.answer(status, content, **headers)


def reset(handler: Scripted) -> None:
    """The connection is cut before an answer."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def half(handler: Scripted) -> None:
    """The connection is cut in the middle of an answer."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100")
    handler.end_headers()
    handler.wfile.write(b'{"predict')
    handler.close_connection = True


def never(handler: Scripted) -> None:
    """Nothing comes until the test is over."""
    handler.server.done.wait()
    handler.close_connection = True


def trickle(handler: Scripted) -> None:
    """A byte now and then, each within any time-out for one read, until the test is over."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    while not handler.server.done.wait(0.02):
        handler.wfile.write(b" ")
    handler.close_connection = True


def test_what_was_not_taken_up_is_sent_again_with_growing_delays() -> None:
    waited: list[float] = []
    with scripted(answers(503), reset, answers(502), half, answers(429), answers(200, b'{"prediction": 1}')) as server:
        with Client(url(server), retries=5, wait=waited.append) as client:
            assert client.predict({"a": 1}) == {"prediction": 1}
        assert [request["body"] for request in server.seen] == [b'{"a": 1}'] * 6
    assert len(waited) == 5
    for attempt, delay_s in enumerate(waited):
        assert 0.05 * 2**attempt <= delay_s <= 0.1 * 2**attempt


def test_retry_after_is_honoured_in_seconds_and_as_a_date() -> None:
    waited: list[float] = []
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    script = (answers(503, Retry_After="7"), answers(503, Retry_After=soon), answers(503, Retry_After="?"), answers(200))
    with scripted(*script) as server, Client(url(server), wait=waited.append) as client:
        client.predict({})
    assert waited[0] == 7
    assert 10 < waited[1] <= 20
    assert waited[2] <= 0.4


def test_waiting_longer_than_the_time_out_is_not_begun() -> None:
    draining = answers(503, b'{"detail": "draining", "type": "urn:modelport:unavailable"}', Retry_After="60")
    with (
        scripted(draining) as server,
        Client(url(server), timeout_s=30, wait=pytest.fail) as client,
        pytest.raises(Unavailable, match="draining"),
    ):
        client.predict({})


def test_after_the_last_retry_the_services_own_error_is_raised() -> None:
    problem = {"type": "urn:modelport:golden-mismatch", "detail": "golden row 0 answers differently now", "hint": "Look."}
    with (
        scripted(*[answers(503, json.dumps(problem).encode(), X_Request_Id="r-1")] * 2) as server,
        Client(url(server), retries=1, wait=lambda delay_s: None) as client,
        pytest.raises(errors.GoldenMismatch) as raised,
    ):
        client.predict({})
    assert (raised.value.message, raised.value.hint, raised.value.request_id) == (problem["detail"], "Look.", "r-1")


def test_no_server_is_unavailable_and_not_ready() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        client = Client(f"http://127.0.0.1:{closed.getsockname()[1]}", retries=2, wait=lambda delay_s: None)
        with pytest.raises(Unavailable, match="was not reached"):
            client.predict({})
        assert client.ready() is False
        client.close()


@pytest.mark.parametrize("behaviour", [never, trickle])
def test_a_service_that_is_too_slow_is_given_up_on_time(behaviour: Callable[[Scripted], None]) -> None:
    with scripted(behaviour, behaviour) as server, Client(url(server), timeout_s=0.3, wait=pytest.fail) as client:
        with pytest.raises(DeadlineExceeded, match=r"did not answer within 0\.3 s"):
            client.predict({})
        assert client.ready() is False


def test_a_service_that_is_not_ready_is_asked_once() -> None:
    with scripted(answers(503), answers(200), answers(401)) as server, Client(url(server), wait=pytest.fail) as client:
        assert [client.ready(), client.ready()] == [False, True]
        with pytest.raises(Unauthorized):
            client.ready()
        assert {request["path"] for request in server.seen} == {"/readyz"}


def test_a_redirect_is_not_followed_so_that_the_key_goes_nowhere_else() -> None:
    with scripted() as other, scripted(answers(307, Location=url(other) + "/predict")) as server, Client(url(server), "secret") as client:
        with pytest.raises(UsageError, match=f"redirects to {url(other)}"):
            client.predict({})
        assert server.seen[0]["authorization"] == "Bearer secret"
        assert other.seen == []


@pytest.mark.parametrize(
    ("status", "content", "kind"),
    [
        (400, b"", RequestError),
        (401, b"<html>", Unauthorized),
        (404, b"[]", NotFound),
        (415, b'{"type": 3}', UnsupportedMediaType),
        (418, b"null", RequestError),
        (422, b'{"detail": "no"}', InvalidInput),
        (422, b'{"type": "urn:modelport:invalid-input", "errors": [3, {}]}', InvalidInput),
        (500, b"\xff", ModelportError),
        (504, b"<html>", DeadlineExceeded),
    ],
)
def test_an_error_of_something_else_than_the_service_goes_by_its_status(status: int, content: bytes, kind: type[ModelportError]) -> None:
    with scripted(answers(status, content)) as server, Client(url(server)) as client, pytest.raises(ModelportError) as raised:
        client.predict({})
    assert type(raised.value) is kind
    assert raised.value.message


def test_an_answer_that_is_no_json_is_told() -> None:
    with (
        scripted(answers(200, b"<html>", Content_Type="text/html")) as server,
        Client(url(server)) as client,
        pytest.raises(ModelportError, match="answered 200 with text/html, which is no JSON"),
    ):
        client.info()


def test_every_class_of_errors_comes_back_as_itself() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ModelportError)]
    for kind in kinds:
        problem = {"type": f"urn:modelport:{kind.code}", "detail": "d", "errors": [{"pointer": "/a", "detail": "d"}]}
        response = httpx.Response(500, json=problem)
        client = Client("http://x", transport=httpx.MockTransport(lambda request, response=response: response))
        with pytest.raises(ModelportError) as raised:
            client.predict({})
        assert type(raised.value) is kind


# The typed module


def load(text: str, folder: Path, name: str = "typed") -> ModuleType:
    path = folder / f"{name}.py"
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(f"{name}_{folder.name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    return module


def test_a_typed_module_asks_a_real_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = make_service(failing)
    text = client_source(service.bundle, "3")
    assert text == client_source(service.bundle, "3")
    module = load(text, tmp_path)
    flower = module.Input(**FLOWER)
    with live(service, keys=keys_of("k" * 32)) as server:
        monkeypatch.setenv("MODELPORT_URL", server.url)
        monkeypatch.setenv("MODELPORT_API_KEY", "k" * 32)
        answer = module.predict(flower)
        assert (answer.prediction, answer.probabilities) == ("setosa", SETOSA["probabilities"])
        with httpx.Client() as http_client:
            several = module.predict([flower, flower], url=f"{server.url}/models/iris", client=http_client)
        assert several == [answer, answer]
        with pytest.raises(module.PredictionError, match="expected a number") as raised:
            module.predict(module.Input(**{**FLOWER, "petal_width": "wide"}))
        assert (raised.value.status, raised.value.code) == (422, "invalid-input")
        assert raised.value.errors[0]["pointer"] == "/petal_width"
        assert raised.value.request_id
        with pytest.raises(module.PredictionError, match="needs an API key") as raised:
            module.predict(flower, key="wrong")
        assert raised.value.status == 401
    with pytest.raises(module.PredictionError, match="was not reached") as raised:
        module.predict(flower, retries=0)
    assert raised.value.status == 0


def test_a_typed_module_takes_every_kind_of_field(tmp_path: Path) -> None:
    service = make_service(counted, EVERY_KIND, name="every")
    module = load(client_source(service.bundle), tmp_path)
    example = EVERY_KIND.example()
    names = attributes(EVERY_KIND.inputs)
    record = module.Input(**{names[name]: value for name, value in example.items()})
    assert record.to_json() == example
    with live(service) as server:
        answer = module.predict(record, url=server.url)
    assert (answer.rows, answer.echo, answer.maybe) == (1, "Łódź", 1.5)
    assert module.Input(class_=1, is_it=True, näme="x", size=1, vector=[[1.0]], any_=None).to_json()["a number"] is None


def test_a_typed_module_sends_again_what_was_not_taken_up(tmp_path: Path) -> None:
    module = load(client_source(make_service().bundle), tmp_path)
    body = json.dumps(SETOSA).encode()
    with scripted(
        answers(503, Retry_After="0"), answers(200, body), answers(503, Retry_After="9999"), answers(307, Location="/")
    ) as server:
        assert module.predict(module.Input(**FLOWER), url=url(server)).prediction == "setosa"
        for status in (503, 307):
            with pytest.raises(module.PredictionError) as raised:
                module.predict(module.Input(**FLOWER), url=url(server))
            assert raised.value.status == status
        assert len(server.seen) == 4


MOMENTS = Signature(
    inputs=(Field("at", "datetime"), Field("until", "datetime", nullable=True)),
    outputs=(Field("next", "datetime"), Field("last", "datetime", nullable=True), Field("grid", "number", shape=(2, -1))),
)


def test_times_are_times_in_a_typed_module(tmp_path: Path) -> None:
    module = load(client_source(bundles.write(tmp_path / "bundle", signature=MOMENTS)), tmp_path)
    record = module.Input(at=datetime(2024, 1, 2, 3, tzinfo=UTC))
    assert record.to_json() == {"at": "2024-01-02T03:00:00+00:00", "until": None}
    answer = module.Output.from_json({"next": "2024-01-02T03:00:00", "last": None, "grid": [[1.0], [2.0]]})
    assert (answer.next_, answer.last, answer.grid) == (datetime.fromisoformat("2024-01-02T03:00:00"), None, [[1.0], [2.0]])


def test_a_typed_module_passes_strict_type_checks_and_formatting(tmp_path: Path) -> None:
    hard = Signature(
        inputs=(
            *(
                Field(name, "number")
                for name in ("float", "str", "class", "match", "self", "Literal", "to_json", "Any", "dataclass", "datetime")
            ),
            *(
                Field(name, "integer", nullable=True)
                for name in ("1st", "a b", "a-b", "__init__", "größe", "名前", "", "ﬁ", "Input", "int")[:6]
            ),
            Field("many", "category", choices=tuple(f"choice {number}" for number in range(60))),
            Field("few", "category", choices=("a", 'b"', 1, True), nullable=True),
            Field("rates", "category", choices=(0.5, 1.0)),
            Field("when", "datetime"),
        ),
        outputs=(
            Field("Probabilities", "number", shape=(2,), choices=("a b", "class")),
            Field("probabilities", "number", shape=(2,), choices=(0, 1), nullable=True),
            Field("wide", "number", shape=(99,), choices=tuple(range(99))),
            Field("predict", "json"),
            Field("Output", "datetime", nullable=True),
        ),
    )
    for name, bundle in (
        ("iris", make_service(by_petal, IRIS).bundle),
        ("every", make_service(counted, EVERY_KIND).bundle),
        ("hard", bundles.write(tmp_path / "hard", signature=hard)),
        ("moments", bundles.write(tmp_path / "moments", signature=MOMENTS)),
        ("empty", bundles.write(tmp_path / "empty", signature=Signature((), ()))),
    ):
        text = client_source(bundle)
        (tmp_path / f"{name}_client.py").write_text(text)
        load(text, tmp_path, name)
    files = sorted(str(path) for path in tmp_path.glob("*_client.py"))
    usage = tmp_path / "usage.py"
    usage.write_text(
        "from iris_client import Input, Output, predict\n"
        "one: Output = predict(Input(sepal_length=1, sepal_width=1, petal_length=1, petal_width=1))\n"
        "many: list[Output] = predict([])\n"
        "species: str = one.prediction\n"
        'share: float = one.probabilities["setosa"]\n'
    )
    python = [sys.executable, "-m"]
    checked = [*python, "mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path}/.mypy", *files, str(usage)]
    done = subprocess.run(checked, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for words in (["format", "--isolated", "--check"], ["check", "--isolated", "--no-cache"]):
        done = subprocess.run([*python, "ruff", *words, *files], capture_output=True, text=True, cwd=tmp_path, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


HOSTILE = st.one_of(
    st.text(min_size=1, max_size=30),
    st.sampled_from(
        [
            *(
                '"""',
                '"; import os #',
                "'''",
                "\\",
                '\\"""',
                "\n",
                "\r\nimport os\r\n",
                "{0}",
                "{name}",
                "%s",
                "\u2028",
                "\u202e",
                "\x00",
            ),
            *("class", "None", "__class__", "_", "1", "a\n\nimport os", "f''", "}", "# type: ignore", "ª", "ﬁ", "\u0387", "·a", "x" * 500),
        ]
    ),
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(HOSTILE, min_size=1, max_size=5, unique=True), HOSTILE, HOSTILE, st.sampled_from(["number", "category", "datetime", "vector"])
)
def test_no_name_choice_or_description_becomes_code(names: list[str], choice: str, text: str, kind: str) -> None:
    """The module has the same statements whatever a bundle says; only attribute names, literals and docstrings differ."""

    def make(names: list[str], choice: str, text: str) -> str:
        fields = tuple(
            Field(name, "number", shape=(1,), choices=(choice,), description=text)
            if kind == "vector"
            else Field(name, kind, choices=(choice,) if kind == "category" else (), description=text)  # type: ignore[arg-type]
            for name in names
        )
        card = Card("sklearn", "c", "l")
        return client_source(Bundle(Path(), "sha256:0", "iris", card, Signature(fields, fields), "model/m", "3.11", title=text))

    def shape(source: str) -> list[str]:
        return [
            type(node).__name__ for node in ast.walk(ast.parse(source)) if not isinstance(node, ast.Constant | ast.JoinedStr | ast.Expr)
        ]

    source = make(names, choice, text)
    assert compile(source, "client.py", "exec", dont_inherit=True)
    assert shape(source) == shape(make([f"field{index}" for index in range(len(names))], "a", "b"))
    tree = ast.parse(source)
    to_json = next(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "to_json")
    keys = next(node for node in ast.walk(to_json) if isinstance(node, ast.Dict))
    assert [key.value for key in keys.keys if isinstance(key, ast.Constant)] == names
    assert not any(letter in source for letter in "\u202e\u2028\x00\r")


@given(st.text())
def test_a_literal_is_the_text_it_stands_for(text: str) -> None:
    assert ast.literal_eval(literal(text)) == text


def test_attributes_are_identifiers_and_all_different() -> None:
    names = ["petal length (cm)", "petal_length_cm", "class", "1st", "", "()", "self", "float", "__init__", "größe", "ﬁ", "fi"]
    given_names = attributes([Field(name, "number") for name in names])
    assert given_names == {
        "petal length (cm)": "petal_length_cm",
        "petal_length_cm": "petal_length_cm_2",
        "class": "class_",
        "1st": "field_1st",
        "": "field_",
        "()": "field__2",
        "self": "self_",
        "float": "float_",
        "__init__": "init",
        "größe": "größe",
        "ﬁ": "fi",
        "fi": "fi_2",
    }


def test_the_verb_writes_the_module_of_a_store_name_or_a_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELPORT_STORE", str(tmp_path / "store"))
    bundle = bundles.write(tmp_path / "bundle")
    Store().add(bundle)
    run = CliRunner().invoke
    assert run(modelport, ["client", "iris"], standalone_mode=False).stdout == client_source(bundle, "1")
    assert run(modelport, ["client", str(bundle.folder)], standalone_mode=False).stdout == client_source(bundle)


# Pictures


def test_pictures_are_sent_as_files_or_bytes(tmp_path: Path) -> None:
    path = tmp_path / "wall.png"
    path.write_bytes(plain("blue"))
    with live(make_service(by_colour, ALONE, name="colours")) as server, Client(server.url) as client:
        assert client.predict(path)["prediction"] == "blue"
        assert client.predict(plain("red"))["prediction"] == "red"
        many = client.predict([path, {"photo": plain("green")}, {"photo": path}, plain("red")])
        assert [answer["prediction"] for answer in many] == ["blue", "green", "blue", "red"]
        with pytest.raises(UsageError, match="cannot be read: No such file"):
            client.predict({"photo": tmp_path / "none.png"})
        with pytest.raises(InvalidInput, match="is something else, and no JPEG"):
            client.predict({"photo": b"hello"})
    with live(make_service()) as server, Client(server.url) as client, pytest.raises(UsageError, match="takes no picture alone"):
        client.predict(path)


def test_a_typed_module_sends_pictures_as_bytes(tmp_path: Path) -> None:
    service = make_service(by_colour, ALONE, name="colours")
    module = load(client_source(service.bundle), tmp_path)
    with live(service) as server:
        assert module.predict(module.Input(photo=plain("green")), url=server.url).prediction == "green"
    nullable = Signature((Field("photo", "image", nullable=True),), (Field("x", "number"),))
    module = load(client_source(bundles.write(tmp_path / "nullable", signature=nullable)), tmp_path, "nullable")
    assert module.Input().to_json() == {"photo": None}
    assert module.Input(photo=b"abc").to_json() == {"photo": "YWJj"}
