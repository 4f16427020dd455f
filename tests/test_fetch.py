"""A URL that a caller names leads to public addresses alone, in bounded time and bytes, whatever answers there."""

from __future__ import annotations

import asyncio
import datetime as dt
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpcore
import pytest

from modelport.errors import Unavailable, UsageError
from modelport.serving import fetch
from modelport.serving.fetch import Address, Allowed, Fetcher, FetchError, is_metadata, is_public, parse
from pictures_world import plain
from serving_world import live, make_service
from test_serving_pictures import ALONE, by_colour

PICTURE = plain("red")
PUBLIC = "93.184.216.34"
FAILED = (
    "could not be fetched: behind the URL there is no public address that answers with a JPEG, PNG or WEBP picture "
    "of at most 100,000 bytes within 5 s"
)


# URLs


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://example.com", Address("https", "example.com", 443, "/")),
        ("HTTPS://Example.COM./a/b.jpg?x=1&y=%20#part", Address("https", "example.com", 443, "/a/b.jpg?x=1&y=%20")),
        ("https://example.com:8443?q", Address("https", "example.com", 8443, "/?q")),
        ("http://example.com:80/", Address("http", "example.com", 80, "/")),
        ("https://bücher.example/ä", Address("https", "xn--bcher-kva.example", 443, "/%C3%A4")),
        ("https://93.184.216.34/x", Address("https", "93.184.216.34", 443, "/x")),
        ("https://[2606:2800:220:1::1]:443/x", Address("https", "2606:2800:220:1::1", 443, "/x")),
        ("https://a_b.example.com/", Address("https", "a_b.example.com", 443, "/")),
        ("https://example.com/a@b:c", Address("https", "example.com", 443, "/a@b:c")),
    ],
)
def test_a_url_is_taken_apart_once(url: str, address: Address) -> None:
    assert parse(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "", "example.com/cat.jpg", "//example.com/", "ftp://example.com/", "file:///etc/passwd", "gopher://127.0.0.1/_x", "data:image/p,x",
        "https://", "https:///path", "https://user@example.com/", "https://user:pw@example.com/", "https://example.com@127.0.0.1/",
        "https://example.com\\@127.0.0.1/", "https://127.0.0.1\\.example.com/", "https://exa mple.com/", "https://example.com/a b",
        "https://example.com/\n", "https://example.com/\r\nHost: x", "https://example.com/\0", "https://example.com/\x7f", "https://example.com/\u202e",
        "https://example.com:0/", "https://example.com:65536/", "https://example.com:port/", "https://example.com:-1/", "https://a:b:c/",
        "https://2130706433/", "https://0x7f000001/", "https://0x7f.0.0.1/", "https://0177.0.0.1/", "https://127.1/", "https://127.0.1/",
        "https://127.0.0.1.2/", "https://1.2.3.999/", "https://127.0.0.01/", "https://a.0x7f/", "https://[::1/", "https://[::1]x/", "https://[fe80::1%25eth0]/",
        "https://[not]/", "https://::1/", "https://-a.example/", "https://a-.example/", "https://a..example/", "https://.example/", "https://ex*mple.com/",
        "https://①②⑦.⓪.⓪.①/x", "https://" + "a" * 64 + ".example/", "https://example.com/" + "a" * 2048, "https://example。com\\x/",
    ],
)  # fmt: skip
def test_what_two_parsers_might_read_differently_is_refused(url: str) -> None:
    if url.startswith("https://①"):  # IDNA makes digits of these: they are the address that they look like, and it is not public
        assert not is_public(parse(url).host)
        return
    with pytest.raises(FetchError) as caught:
        parse(url)
    assert caught.value.result == "refused"


# Addresses: the table of the recipe

INSIDE = [
    "0.0.0.0", "0.1.2.3", "127.0.0.1", "127.255.255.254", "10.0.0.1", "172.16.0.1", "172.31.9.9", "192.168.1.1", "169.254.169.254",
    "169.254.170.2", "100.64.0.1", "100.100.100.200", "100.127.255.255", "168.63.129.16", "192.0.0.192", "192.0.0.9", "192.0.2.1",
    "192.88.99.1", "198.18.0.1", "198.51.100.7", "203.0.113.7", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::127.0.0.1", "::7f00:1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::10.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::8.8.8.8", "2002:7f00:1::",
    "2002:a9fe:a9fe::1", "2002:808:808::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1", "2001:10::1", "2001:20::1",
    "3fff::1", "fc00::1", "fd00:ec2::254", "fd20:ce::254", "fe80::1", "fe80::a9fe:a9fe", "fec0::1", "ff02::1", "5f00::1", "100::1",
    "fe80::1%eth0", "2606:2800:220:1::1%eth0", "localhost", "1.2.3",
]  # fmt: skip
OUTSIDE = [
    "8.8.8.8", "93.184.216.34", "1.1.1.1", "172.15.255.255", "172.32.0.1", "100.63.255.255", "100.128.0.1", "2606:2800:220:1::1",
    "2001:4860:4860::8888", "64:ff9b::8.8.8.8", "::ffff:8.8.8.8",
]  # fmt: skip


@pytest.mark.parametrize("address", [*INSIDE, *OUTSIDE, ""])
def test_only_public_addresses_are_public(address: str) -> None:
    assert is_public(address) is (address in OUTSIDE)


def test_no_trust_leads_to_the_metadata_of_a_cloud() -> None:
    for address in ("169.254.169.254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "fd00:ec2::254", "fe80::1", "168.63.129.16", "x"):
        assert is_metadata(address)
    for address in ("127.0.0.1", "10.0.0.1", "8.8.8.8", "fd12::1"):
        assert not is_metadata(address)


# Who is allowed


@pytest.mark.parametrize(
    ("words", "url", "outcome"),
    [
        (("*",), "https://example.com/", False),
        (("*",), "http://example.com/", None),
        (("*",), "https://example.com:8443/", None),
        (("example.com",), "https://example.com/", False),
        (("example.com",), "https://www.example.com/", None),
        (("*.example.com",), "https://www.example.com/", False),
        (("*.example.com",), "https://a.b.example.com/", False),
        (("*.example.com",), "https://example.com/", None),
        (("*.example.com",), "https://wwwexample.com/", None),
        (("*.example.com",), "https://example.com.evil.org/", None),
        (("http://images.internal:8080",), "http://images.internal:8080/x", True),
        (("http://images.internal:8080",), "http://images.internal:8081/x", None),
        (("http://images.internal:8080",), "https://images.internal/x", None),
        (("https://example.com",), "https://example.com/x", True),
        (("http://127.0.0.1:9000", "*"), "http://127.0.0.1:9000/x", True),
    ],
)
def test_hosts_suffixes_and_origins_are_allowed(words: tuple[str, ...], url: str, outcome: bool | None) -> None:
    if outcome is None:
        with pytest.raises(FetchError):
            Allowed(words).check(parse(url))
    else:
        assert Allowed(words).check(parse(url)) is outcome


@pytest.mark.parametrize(
    "word", ["https://example.com/path", "example.com:8080", "*.", "*.*", "http://user@x", "exa mple", "ftp://x", "127.1"]
)
def test_a_word_that_allows_nothing_is_refused_at_the_start(word: str) -> None:
    with pytest.raises(UsageError, match="is no host and no origin"):
        Allowed((word,))


# Fetching: from a server on this machine that stands for a public one


def respond(*pieces: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: [connection.sendall(piece) for piece in pieces] and None


def picture(head: bytes = b"", body: bytes = PICTURE, kind: bytes = b"image/png", status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Type: %b\r\n%bContent-Length: %d\r\n\r\n%b" % (status, kind, head, len(body), body)


class Server:
    """Answers each connection as the next of `answers` does, the last of them for ever; keeps what it was asked."""

    def __init__(self, *answers: bytes | Callable[[socket.socket], None], tls: ssl.SSLContext | None = None) -> None:
        self.answers = [respond(answer) if isinstance(answer, bytes) else answer for answer in answers]
        self.asked: list[str] = []
        self.tls = tls
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection, len(self.asked)), daemon=True).start()

    def serve(self, connection: socket.socket, count: int) -> None:
        try:
            with self.tls.wrap_socket(connection, server_side=True) if self.tls else connection as stream:
                head = b""
                while b"\r\n\r\n" not in head:
                    piece = stream.recv(4096)
                    if not piece:
                        return
                    head += piece
                self.asked.append(head.decode())
                self.answers[min(count, len(self.answers) - 1)](stream)
        except OSError:  # the other side has had enough
            return

    def __enter__(self) -> Server:
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join()


class World:
    """What a fetcher sees instead of the internet: names and where connections go. `asked` and `connected` are what it wanted."""

    def __init__(self, names: dict[str, Any], port: int) -> None:
        self.names, self.port = names, port
        self.asked: list[str] = []
        self.connected: list[tuple[str, int]] = []

    def resolve(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        answer = self.names[host]
        return answer.pop(0) if isinstance(answer[0], list) else answer

    def connect(self, address: str, port: int, timeout_s: float) -> httpcore.NetworkStream:
        self.connected.append((address, port))
        return httpcore.SyncBackend().connect_tcp("127.0.0.1", self.port, timeout_s)


ORIGIN = "http://pictures.example"


def got(server: Server, url: str = ORIGIN + "/cat.png", names: dict[str, Any] | None = None, **options: Any) -> tuple[Any, World]:
    """What came of fetching a URL from `server`: the bytes, or the error."""
    world = World(names or {"pictures.example": [PUBLIC]}, server.port)
    fetcher = fetcher_of(world, **options)
    try:
        return asyncio.run(fetcher.fetch(url, "me")), world
    except FetchError as error:
        return error, world


def fetcher_of(world: World, *, words: tuple[str, ...] = ("*", ORIGIN), max_bytes: int = 100_000, **options: Any) -> Fetcher:
    return Fetcher(Allowed(words), max_bytes, resolve=world.resolve, connect=world.connect, **options)


def reason(outcome: tuple[Any, World]) -> str:
    """Why a fetch failed, as the log has it; the caller is always told the same."""
    assert isinstance(outcome[0], FetchError), outcome[0]
    assert str(outcome[0]) == FAILED
    assert outcome[0].result == "failed"
    return outcome[0].reason


def test_a_picture_is_fetched_with_nothing_of_ours_but_the_request() -> None:
    with Server(picture()) as server:
        found, world = got(server, ORIGIN + "/a/cat.png?size=%20large#part")
        assert found == PICTURE
    (asked,) = server.asked
    line, *headers = asked.strip().split("\r\n")
    assert line == "GET /a/cat.png?size=%20large HTTP/1.1"
    names = sorted(header.split(":")[0].lower() for header in headers)
    assert names == ["accept", "accept-encoding", "connection", "host", "user-agent"]
    assert "Host: pictures.example" in headers
    assert "Accept-Encoding: identity" in headers
    assert (world.asked, world.connected) == (["pictures.example"], [(PUBLIC, 80)])


def test_bodies_in_chunks_and_without_a_length_are_read() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (
        len(PICTURE),
        PICTURE,
    )
    until_closed = b"HTTP/1.0 200 OK\r\nContent-Type: IMAGE/PNG\r\n\r\n" + PICTURE
    for answer in (chunked, until_closed):
        with Server(answer) as server:
            assert got(server)[0] == PICTURE


@pytest.mark.parametrize("bad", INSIDE)
def test_no_address_that_is_not_public_is_connected_to(bad: str) -> None:
    with Server(picture()) as server:
        for addresses in ([bad], [PUBLIC, bad], [bad, PUBLIC]):  # mixed answers are those of who rebinds
            outcome = got(server, "https://evil.example/", {"evil.example": addresses})
            assert f"{bad} is not public" in reason(outcome)
            assert outcome[1].connected == []
    assert server.asked == []


@pytest.mark.parametrize("url", ["https://127.0.0.1/", "https://169.254.169.254/latest/meta-data/", "https://[::1]/", "https://10.0.0.1/"])
def test_an_address_in_the_url_is_looked_at_as_well(url: str) -> None:
    world = World({}, 1)
    fetcher = Fetcher(Allowed(("*",)), 100_000, connect=world.connect)
    with pytest.raises(FetchError, match="could not be fetched"):
        asyncio.run(fetcher.fetch(url, "me"))
    assert world.connected == []


def test_a_name_that_means_another_address_a_moment_later_changes_nothing() -> None:
    """The name is looked up once, and the connection goes to what was found."""
    with Server(picture()) as server:
        outcome = got(server, names={"pictures.example": [[PUBLIC], ["127.0.0.1"]]})
        assert outcome[0] == PICTURE
        assert outcome[1].asked == ["pictures.example"]
        assert outcome[1].connected == [(PUBLIC, 80)]


def test_a_redirect_is_followed_and_checked_like_the_url_itself() -> None:
    names = {"pictures.example": [PUBLIC], "other.example": ["1.1.1.1"], "inside.example": ["10.0.0.7"]}
    words = ("*", ORIGIN, "http://other.example", "http://inside.example")

    def to(where: bytes) -> bytes:
        return b"HTTP/1.1 302 Found\r\nLocation: " + where + b"\r\nContent-Length: 0\r\n\r\n"

    with Server(to(b"/b"), to(b"http://other.example/c?d"), picture()) as server:
        found, world = got(server, names=names, words=words)
        assert found == PICTURE
        assert world.connected == [(PUBLIC, 80), (PUBLIC, 80), ("1.1.1.1", 80)]
        assert [head.split(" ")[1] for head in server.asked] == ["/cat.png", "/b", "/c?d"]
    for where, why in (
        (b"http://127.0.0.1/", "redirect: is a URL of plain http"),
        (b"https://127.0.0.1/", "127.0.0.1 is not public"),
        (b"https://inside.example/", "10.0.0.7 is not public"),
        (b"https://[::ffff:10.0.0.1]/", "is not public"),
        (b"file:///etc/passwd", "redirect: is no URL that begins with"),
        (b"http://pictures.example:22/", "redirect: is a URL of plain http"),
        (b"https://user@other.example/", "redirect: is no URL of a host alone"),
        (b"//169.254.169.254/latest", "redirect: is a URL of plain http"),
        (b"\xff", "ascii"),
    ):
        with Server(to(where)) as server:
            outcome = got(server, names={**names, "127.0.0.1": ["127.0.0.1"], "::ffff:a00:1": ["::ffff:a00:1"]}, words=words)
            assert why in reason(outcome), where
            assert len(server.asked) == 1
    with Server(to(b"/again")) as server:
        assert "more than 3 redirects" in reason(got(server))
        assert len(server.asked) == 4


def test_a_trusted_origin_may_be_inside_but_is_never_the_metadata() -> None:
    words = ("http://images.internal:8080",)
    with Server(picture()) as server:
        url = "http://images.internal:8080/x"
        assert got(server, url, {"images.internal": ["10.0.0.9"]}, words=words)[0] == PICTURE
        assert "169.254.169.254 is not public" in reason(got(server, url, {"images.internal": ["169.254.169.254"]}, words=words))


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (picture(status=b"404 Not Found"), "it answers 404"),
        (picture(status=b"204 No Content", body=b""), "it answers 204"),
        (picture(status=b"304 Not Modified", body=b""), "it answers 304"),
        (picture(kind=b"text/html"), "it sends b'text/html'"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", "it sends b''"),
        (picture(b"Content-Encoding: gzip\r\n"), "content encoding b'gzip'"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 100001\r\n\r\n", "it announces 100001 bytes"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n" + bytes(100_001), "more than 100,000 bytes"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 9\r\n\r\nx", "closed"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000, "its headers are too long"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 2_000, "its headers are too long"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "illegal"),
        (b"", "disconnected"),
        (b"+PONG\r\n", "disconnected"),
    ],
)  # fmt: skip
def test_whatever_else_answers_tells_the_caller_nothing(answer: bytes, why: str) -> None:
    with Server(answer) as server:
        assert why.lower() in reason(got(server)).lower()


def test_a_body_may_not_be_all_chunks_and_no_bytes() -> None:
    def dribble(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            connection.sendall(b"1;" + b"x" * 4000 + b"\r\nx\r\n")

    with Server(dribble) as server:
        assert "it sends too much around its body" in reason(got(server))


class Clock:
    """Time that passes only when it is looked at."""

    def __init__(self, step_s: float) -> None:
        self.now, self.step_s = 0.0, step_s

    def __call__(self) -> float:
        self.now += self.step_s
        return self.now


@pytest.mark.parametrize(
    "head",
    [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n"],
    ids=["silent", "in the head", "in the body"],
)
def test_who_answers_a_byte_now_and_then_is_left(head: bytes) -> None:
    """Each byte comes in time; all of them do not."""
    left = threading.Event()

    def drip(connection: socket.socket) -> None:
        connection.sendall(head)
        try:
            while not left.wait(0.01):
                connection.sendall(b"x" if b"image" in head else b"X: y\r\n" if head else b"")
        except OSError:
            return

    with Server(drip) as server:
        options = {"clock": Clock(0.2)} if head else {"clock": Clock(1.2)}
        outcome = got(server, **options)
        assert "it took over 5 s" in reason(outcome) or "timed out" in reason(outcome)
        left.set()


def test_addresses_that_are_not_found_in_time_are_not_waited_for() -> None:
    found = threading.Event()

    def stuck(host: str, port: int) -> Sequence[str]:
        found.wait(30)
        return [PUBLIC]

    fetcher = Fetcher(Allowed(("*",)), 100_000, resolve=stuck, clock=Clock(2.49))
    with pytest.raises(FetchError) as caught:
        asyncio.run(fetcher.fetch("https://slow.example/", "me"))
    assert "not found in time" in caught.value.reason
    found.set()


def test_the_next_address_is_tried_where_one_does_not_connect() -> None:
    with Server(picture()) as server:
        world = World({"pictures.example": ["1.1.1.1", PUBLIC]}, server.port)

        def connect(address: str, port: int, timeout_s: float) -> httpcore.NetworkStream:
            if address == "1.1.1.1":
                raise httpcore.ConnectError("refused")
            return world.connect(address, port, timeout_s)

        fetcher = Fetcher(Allowed((ORIGIN,)), 100_000, resolve=world.resolve, connect=connect)
        assert asyncio.run(fetcher.fetch(ORIGIN + "/", "me")) == PICTURE


def test_this_machine_is_not_public_by_whatever_address() -> None:
    with Server(picture()) as server, pytest.raises(Exception, match="is this machine"):
        fetch.connect("127.0.0.1", server.port, 5)


def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/")
    with Server(picture()) as server:
        assert got(server)[0] == PICTURE


# TLS


@contextmanager
def authority(tmp_path: Path, name: str) -> Iterator[tuple[ssl.SSLContext, ssl.SSLContext]]:
    """A server's context with a certificate for `name`, and a client's that trusts it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    made = x509.CertificateBuilder(subject, subject, key.public_key(), 1, now - dt.timedelta(days=1), now + dt.timedelta(days=1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    certificate = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(key, hashes.SHA256())
    pem = tmp_path / "server.pem"
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    pem.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cafile=str(pem))
    server.load_cert_chain(pem)
    yield server, client


def test_tls_is_verified_for_the_host_that_was_asked_for(tmp_path: Path) -> None:
    with authority(tmp_path, "pictures.example") as (tls, trusted):
        with Server(picture(), tls=tls) as server:
            names = {"pictures.example": [PUBLIC], "other.example": [PUBLIC]}
            assert got(server, "https://pictures.example/", names, tls=trusted)[0] == PICTURE
            assert "certificate" in reason(got(server, "https://other.example/", names, tls=trusted)).lower()
            assert "certificate" in reason(got(server, "https://pictures.example/", names)).lower()
            assert "Host: pictures.example" in server.asked[0]


# Turns


def test_few_are_fetched_at_once_and_fewer_from_one_host_and_for_one_caller() -> None:
    go = threading.Event()
    running: list[str] = []
    most: dict[str, int] = {"all": 0, "a.example": 0}
    lock = threading.Lock()

    def resolve(host: str, port: int) -> Sequence[str]:
        with lock:
            running.append(host)
            most["all"] = max(most["all"], len(running))
            most["a.example"] = max(most["a.example"], running.count("a.example"))
            if len(running) >= 8:
                go.set()
        assert go.wait(30)
        with lock:
            running.remove(host)
        return []

    async def main() -> None:
        fetcher = Fetcher(Allowed(("*",)), 100, resolve=resolve)
        hosts = ["a.example"] * 4 + [f"h{number}.example" for number in range(12)]
        urls = [(f"https://{host}/{index}", f"caller {index % 4}") for index, host in enumerate(hosts)]
        outcomes = await asyncio.gather(*(fetcher.fetch(url, caller) for url, caller in urls), return_exceptions=True)
        assert all(isinstance(outcome, FetchError) for outcome in outcomes)
        assert not fetcher._busy

    asyncio.run(main())
    assert most == {"all": 8, "a.example": 2}


def test_who_waits_too_long_for_a_turn_is_told_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()

    def stuck(host: str, port: int) -> Sequence[str]:
        go.wait(30)
        return []

    async def main() -> None:
        fetcher = Fetcher(Allowed(("*",)), 100, resolve=stuck, wait_s=0.05)
        waiting = [asyncio.ensure_future(fetcher.fetch("https://a.example/", "me")) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="too many pictures"):
            await fetcher.fetch("https://a.example/", "me")
        go.set()
        await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(main())


# Through the service


def test_a_service_fetches_what_it_may_and_says_nothing_of_the_rest() -> None:
    with Server(picture()) as pictures, Server(picture(kind=b"text/html")) as other, Server(picture(body=b"GIF89a")) as gif:
        origins = [f"http://127.0.0.1:{server.port}" for server in (pictures, other, gif)]
        good, bad, odd = (f"{origin}/cat.png" for origin in origins)
        with live(make_service(by_colour, ALONE, name="colours"), allow_url=tuple(origins)) as running, running.client() as client:
            trusting = running.app.fetcher
            assert trusting is not None
            trusting._connect = lambda address, port, timeout_s: httpcore.SyncBackend().connect_tcp(address, port, timeout_s)
            assert client.get("/", headers={"Accept": "application/json"}).json()["fetches_urls"] is True
            asked = client.get("/predict", params={"url": good})
            assert (asked.status_code, asked.json()["prediction"]) == (200, "red")
            assert asked.headers["cache-control"] == "no-store"
            for body in ({"url": good}, {"photo": {"url": good}}):
                assert client.post("/predict", json=body).json()["prediction"] == "red"
            many = client.post(
                "/predict", json=[{"url": good}, {"url": bad}, {"photo": {"url": odd}}, {"url": "https://elsewhere.example/"}]
            )
            errors = {error["pointer"]: error["detail"] for error in many.json()["errors"]}
            assert errors == {
                "/1/photo": FAILED.replace("100,000", "10,485,760"),
                "/2/photo": "is a GIF, and no JPEG, PNG or WEBP picture",
                "/3/photo": "is a URL of a host that is not fetched from here",
            }
            assert (
                client.post("/v1/models/colours:predict", json={"instances": [{"url": good}]}).json()["predictions"][0]["prediction"]
                == "red"
            )
            for query, status in (("", 400), ("?url=", 422), ("?uri=x", 400), (f"?url={good}&url={good}", 400), (f"?url={good}&x=1", 400)):
                assert client.get(f"/predict{query}").status_code == status, query
            assert client.post("/predict", json=[{"url": f"{good}?{number}"} for number in range(17)]).status_code == 413
            counted = client.get("/metrics").text
            assert 'modelport_fetches_total{result="ok"} 6.0' in counted
            assert 'modelport_fetches_total{result="failed"} 1.0' in counted
            assert 'modelport_fetches_total{result="refused"} 2.0' in counted
            (logged,) = [entry for entry in running.log.entries() if entry.get("event") == "fetch" and entry["result"] == "failed"]
            assert "it sends b'text/html'" in logged["detail"]


def test_a_url_needs_the_key_like_everything_else() -> None:
    from modelport.serving.settings import hash_key

    with live(make_service(by_colour, ALONE), allow_url=("*",), keys=frozenset({hash_key("k")})) as running, running.client() as client:
        assert client.get("/predict", params={"url": "https://example.com/"}).status_code == 401
