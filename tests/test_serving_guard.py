"""What stands before every path: keys, hosts, limits, CORS and the headers of each answer."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterator

import httpx
import pytest

from modelport.errors import UsageError
from modelport.serving.guard import uuid7
from modelport.serving.settings import Settings, hash_key, keys_of, read_keys
from serving_world import FLOWER, Live, live, make_service

KEY, OTHER = "mp_key_one_0123456789", "mp_key_two_0123456789"
BODY = json.dumps(FLOWER).encode()
POST = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"


@pytest.fixture(scope="module")
def locked() -> Iterator[Live]:
    with live(make_service(), keys=keys_of(f"{KEY}, {OTHER}")) as running:
        yield running


@pytest.fixture(scope="module")
def open_() -> Iterator[Live]:
    with live(make_service()) as running:
        yield running


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def raw_get(path: str, *headers: str, host: str = "localhost") -> bytes:
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode()


# Keys


@pytest.mark.parametrize("key", [KEY, OTHER])
@pytest.mark.parametrize("form", ["Authorization", "X-API-Key", "bearer in small letters"])
def test_a_key_opens_in_either_header(locked: Live, key: str, form: str) -> None:
    headers = {"Authorization": {"Authorization": f"Bearer {key}"}, "X-API-Key": {"X-API-Key": key}}.get(
        form, {"authorization": f"bearer {key}"}
    )
    with locked.client() as client:
        assert client.post("/predict", json=FLOWER, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {KEY}"}, {"X-API-Key": ""},
     {"X-API-Key": KEY[:-1]}, {"Cookie": f"key={KEY}"},
     {"X-API-Key": hash_key(KEY)}],
)  # fmt: skip
def test_without_a_right_key_the_answer_is_always_the_same_401(locked: Live, headers: dict[str, str]) -> None:
    with locked.client() as client:
        answers = [client.post("/predict", content=BODY, headers=headers), client.get(f"/openapi.json?key={KEY}", headers=headers)]
        bodies = {answer.content for answer in answers} | {client.get("/none").content}
    assert {answer.status_code for answer in answers} == {401}
    assert len(bodies) == 1
    assert json.loads(bodies.pop())["type"] == "urn:modelport:unauthorized"
    assert answers[0].headers["www-authenticate"] == 'Bearer realm="modelport"'


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/ping", "/v2/health/live", "/v2/health/ready", "/docs", "/static/page.css"])
def test_health_and_the_page_s_files_need_no_key(locked: Live, path: str) -> None:
    with locked.client() as client:
        assert client.get(path).status_code == 200


def test_the_page_is_open_and_what_it_shows_is_not(locked: Live) -> None:
    with locked.client() as client:
        browser = {"Accept": "text/html"}
        page = client.get("/", headers=browser)
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert client.get("/models/iris/", headers=browser).content == client.get("/models/none/", headers=browser).content
        for path in (
            "/",
            "/openapi.json",
            "/models/iris",
            "/models/iris/",
            "/v2",
            "/v2/models/iris",
            "/v2/models/iris/ready",
            "/v1/models/iris",
        ):
            assert client.get(path).status_code == 401, path
        for path in ("/", "/livez", "/docs"):
            assert client.post(path, headers=browser).status_code == 401, path


@pytest.mark.parametrize(
    "request_line",
    [
        "GET /livez/../openapi.json", "GET /livez/%2e%2e/openapi.json", "GET //livez", "GET /livez/", "GET /livez;/openapi.json",
        "GET /openapi.json?/livez", "GET /%6civez", "GET /livez%2f..%2fopenapi.json", "GET /docs/../openapi.json", "GET /LIVEZ",
        "GET /static/../openapi.json", "GET /static/..%2fopenapi.json", "GET /openapi.json#/livez", "GET http://localhost/openapi.json",
        "GET http://localhost/livez/../openapi.json", "GET /models/iris/openapi.json", "GET /openapi%2ejson", "POST /livez",
        "DELETE /readyz",
        "OPTIONS /predict",
    ],
)  # fmt: skip
def test_no_spelling_of_a_path_gets_round_the_key(locked: Live, request_line: str) -> None:
    answer = locked.raw(f"{request_line} HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\nConnection: close\r\n\r\n".encode())
    assert status(answer) in (400, 401)


@pytest.mark.parametrize(
    "host", ["localhost/livez?", "localhost/livez#", "x/docs?", "localhost@evil", "localhost:80:80", "local host", "", "[::1", "..\\"]
)
def test_a_malformed_host_neither_opens_nor_breaks_anything(locked: Live, host: str) -> None:
    assert status(locked.raw(raw_get("/openapi.json", host=host))) in (400, 421)
    assert status(locked.raw(raw_get("/livez", host=host))) in (400, 421)


def test_an_absolute_form_is_taken_by_its_path(locked: Live) -> None:
    assert status(locked.raw(raw_get("http://localhost/livez"))) == 200


# Host


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1", "127.0.0.1:1", "[::1]:8000", "localhost."])
def test_this_machine_s_names_are_taken(open_: Live, host: str) -> None:
    assert status(open_.raw(raw_get("/livez", host=host))) == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "192.168.0.1", "0.0.0.0", "iris"])
def test_a_strange_host_is_refused_with_421(open_: Live, host: str) -> None:
    answer = open_.raw(raw_get("/livez", host=host))
    assert status(answer) == 421
    assert b"urn:modelport:wrong-host" in answer


def test_two_hosts_or_none_are_refused(open_: Live) -> None:
    assert status(open_.raw(raw_get("/livez", "Host: localhost"))) in (400, 421)
    assert status(open_.raw(b"GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n")) in (400, 421)


def test_names_of_its_own_are_taken_beside_this_machine_s() -> None:
    with live(make_service(), host_names=("api.example.com",)) as running:
        assert [status(running.raw(raw_get("/livez", host=host))) for host in ("api.example.com", "localhost", "evil.example")] == [
            200,
            200,
            421,
        ]
    with live(make_service(), host_names=("*",)) as running:
        assert status(running.raw(raw_get("/livez", host="anything.example"))) == 200


# Limits


def test_headers_over_the_limit_are_431(open_: Live) -> None:
    with open_.client() as client:
        answer = client.get("/livez", headers={"X-Much": "x" * 40_000})
        assert (answer.status_code, answer.json()["type"]) == (431, "urn:modelport:headers-too-large")
        assert client.get("/livez?" + "q" * 40_000).status_code == 431
        assert client.get("/livez", headers={"X-Some": "x" * 20_000}).status_code == 200


def test_a_body_that_does_not_come_is_408() -> None:
    with live(make_service(), body_timeout_s=0.05) as running, socket.create_connection(("127.0.0.1", running.port), timeout=30) as slow:
        slow.sendall(POST + b"Content-Length: 1000\r\n\r\n{")
        answer = b"".join(iter(lambda: slow.recv(65536), b""))
    assert status(answer) == 408
    assert b"urn:modelport:request-timeout" in answer


def test_an_announced_body_over_the_limit_is_refused_before_it_comes(open_: Live) -> None:
    with socket.create_connection(("127.0.0.1", open_.port), timeout=30) as eager:
        eager.sendall(POST + b"Content-Length: 99999999999999\r\nExpect: 100-continue\r\n\r\n")
        first = eager.recv(65536)
    assert status(first) == 413


def test_a_chunked_body_without_end_is_cut_off(open_: Live) -> None:
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    with socket.create_connection(("127.0.0.1", open_.port), timeout=30) as endless:
        endless.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        sent = 0
        answer = b""
        while sent < 2**30 and not answer:
            try:
                endless.sendall(chunk)
                sent += len(chunk)
                endless.setblocking(False)
                answer = endless.recv(65536)
            except BlockingIOError:
                pass
            endless.settimeout(30)
    assert status(answer) == 413


def test_a_gzip_body_is_refused_unread(open_: Live) -> None:
    with open_.client() as client:
        bomb = gzip.compress(b" " * 20_000_000)
        answer = client.post("/predict", content=bomb, headers={"Content-Type": "application/json", "Content-Encoding": "gzip"})
        assert answer.status_code == 415
        assert client.post("/predict", json=FLOWER).status_code == 200


def test_a_connection_lives_on_after_a_refusal(open_: Live) -> None:
    refused = (
        POST.replace(b"application/json", b"text/plain").replace(b"Connection: close\r\n", b"")
        + b"Content-Length: %d\r\n\r\n" % len(BODY)
        + BODY
    )
    good = POST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
    answer = open_.raw(refused + good)
    assert answer.count(b"HTTP/1.1 ") == 2
    assert answer.startswith(b"HTTP/1.1 415")
    assert b"HTTP/1.1 200" in answer


def test_a_caller_who_leaves_is_logged_as_499_and_nothing_else_happens() -> None:
    with live(make_service()) as running:
        with socket.create_connection(("127.0.0.1", running.port), timeout=30) as gone:
            gone.sendall(POST + b"Content-Length: 1000\r\n\r\n{")
        with running.client() as client:
            assert client.post("/predict", json=FLOWER).status_code == 200
    assert sorted(entry["status"] for entry in running.log.entries()) == [200, 499]


@pytest.mark.parametrize(
    "nonsense",
    [b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
     b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
     b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
     b"G\x00T / HTTP/1.1\r\n\r\n",
     b"GET /\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n"],
)  # fmt: skip
def test_what_is_no_http_is_400(open_: Live, nonsense: bytes) -> None:
    assert status(open_.raw(nonsense)) == 400


# CORS


@pytest.fixture(scope="module")
def shared() -> Iterator[httpx.Client]:
    with (
        live(make_service(), cors=("https://app.example.com", "http://localhost:3000"), keys=keys_of(KEY)) as running,
        running.client() as client,
    ):
        yield client


PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type,authorization"}


def test_a_listed_origin_may_call_and_read_errors(shared: httpx.Client) -> None:
    origin = {"Origin": "https://app.example.com"}
    asked = shared.options("/predict", headers=origin | PREFLIGHT)
    assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (204, "https://app.example.com")
    assert "POST" in asked.headers["access-control-allow-methods"]
    assert {"content-type", "authorization", "x-api-key"} <= set(asked.headers["access-control-allow-headers"].lower().split(", "))
    for key, expected in ((KEY, 200), ("wrong", 401)):
        answer = shared.post("/predict", json=FLOWER, headers=origin | {"X-API-Key": key})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (expected, "https://app.example.com")
        assert "X-Request-Id" in answer.headers["access-control-expose-headers"]
        assert "Origin" in answer.headers["vary"]
        assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("origin", ["null", "https://evil.example", "https://app.example.com.evil.example", "http://app.example.com", ""])
def test_no_other_origin_may(shared: httpx.Client, origin: str) -> None:
    asked = shared.options("/predict", headers={"Origin": origin} | PREFLIGHT)
    answer = shared.post("/predict", json=FLOWER, headers={"Origin": origin, "X-API-Key": KEY})
    for one in (asked, answer):
        assert not [name for name in one.headers if name.startswith("access-control-allow")]


def test_any_origin_may_when_all_are_allowed_but_never_null() -> None:
    with live(make_service(), cors=("*",)) as running, running.client() as client:
        assert client.get("/", headers={"Origin": "https://a.example"}).headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-origin" not in client.get("/", headers={"Origin": "null"}).headers


def test_without_the_setting_no_origin_may(open_: Live) -> None:
    with open_.client() as client:
        assert "access-control-allow-origin" not in client.get("/", headers={"Origin": "https://app.example.com"}).headers


# Headers of each answer


@pytest.mark.parametrize("path", ["/", "/docs", "/static/page.js", "/livez", "/none"])
def test_every_answer_has_the_security_headers(open_: Live, path: str) -> None:
    with open_.client() as client:
        headers = client.get(path, headers={"Accept": "text/html"}).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"
    assert "server" not in headers


def test_uuid7_is_one_and_grows_with_time() -> None:
    import uuid

    made = [uuid.UUID(uuid7()) for _ in range(100)]
    assert {(one.version, one.variant) for one in made} == {(7, uuid.RFC_4122)}
    assert len(set(made)) == 100
    stamps = [one.int >> 80 for one in made]
    assert stamps == sorted(stamps)


# Settings


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.com"])
def test_an_address_that_others_reach_needs_a_key_or_the_word_public(host: str) -> None:
    with pytest.raises(UsageError, match="no API key is set"):
        Settings(host=host)
    Settings(host=host, public=True)
    Settings(host=host, keys=keys_of(KEY))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_this_machine_s_addresses_need_none(host: str) -> None:
    Settings(host=host)


@pytest.mark.parametrize(
    "wrong",
    [{"cors": ("null",)}, {"cors": ("https://a.example/path",)}, {"cors": ("a.example",)}, {"host_names": ("http://a",)}, {"port": 70000},
     {"predict_route": "predict"}, {"health_route": "/{name}"}],
)  # fmt: skip
def test_settings_that_cannot_be_meant_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Settings(**wrong)  # type: ignore[arg-type]


def test_keys_are_read_from_a_file_of_hashes(tmp_path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "keys"
    file.write_text(f"# who may\n{hash_key(KEY)}  laptop\n\n{hash_key(OTHER).upper()}\n")
    assert read_keys(file) == keys_of(f"{KEY},{OTHER}")
    file.write_text(f"{KEY}\n")
    with pytest.raises(UsageError, match="line 1: not a sha256"):
        read_keys(file)
    file.write_text("# none\n")
    with pytest.raises(UsageError, match="holds no key"):
        read_keys(file)
    with pytest.raises(UsageError, match="cannot be read"):
        read_keys(tmp_path / "none")


@pytest.mark.parametrize("text", ["", " ", "one,,two", "one,"])
def test_an_empty_key_is_no_key(text: str) -> None:
    with pytest.raises(UsageError, match="empty"):
        keys_of(text)
