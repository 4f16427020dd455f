"""Fetches a picture that a caller names by its URL, and reaches nothing by it that the caller could not reach as well.

A URL is taken apart once, strictly, and the request is built from its parts. Its host is resolved once; if any address behind it is not
public, none is connected to; else the connection goes to an address that was checked, whatever the name means a moment later. The same
again for each redirect. Bytes, headers and time have bounds at the socket itself. What went wrong stands in the log; the caller is always
told the same, for a difference would tell what answers inside.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias
from urllib.parse import quote, urljoin

import httpcore
import idna

from modelport import __version__
from modelport.errors import Unavailable, UsageError
from modelport.pictures import PictureError

TOTAL_S = 5.0
"""From the URL to the picture's last byte, with all redirects."""
CONNECT_S = 2.0
"""For finding the addresses of a host, and for connecting to one."""
MAX_URL = 2048
_MAX_REDIRECTS = 3
_MAX_HEAD_BYTES = 16 * 2**10
_AT_ONCE, _AT_ONCE_OF_HOST, _AT_ONCE_OF_CALLER = 8, 2, 4
_PORTS = {"http": 80, "https": 443}
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[^\[\]:@]{1,253})(?::([0-9]{1,5}))?")
_LABEL = "(?!-)[a-z0-9_-]{1,63}(?<!-)"
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_NUMERIC = re.compile(r"([0-9]+|0x[0-9a-f]*)", re.ASCII)
_PATH_SAFE = "%/:?#[]@!$&'()*+,;=-._~"

Connect: TypeAlias = Callable[[str, int, float], httpcore.NetworkStream]
Resolve: TypeAlias = Callable[[str, int], Sequence[str]]


class FetchError(PictureError):
    """A picture that was not fetched. The message is for the caller; `reason` is for the log.

    `result` is "refused" where the URL itself is not taken, else "failed".
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message
        self.result = "failed" if reason else "refused"


# URLs


@dataclass(frozen=True, slots=True)
class Address:
    """A URL taken apart."""

    scheme: str
    host: str
    """In ASCII and lower case; that of IPv6 without its brackets."""
    port: int
    path: str
    """With the query."""

    @property
    def origin(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port == _PORTS[self.scheme] else f":{self.port}")

    @property
    def url(self) -> str:
        return self.origin + self.path


def parse(url: str) -> Address:
    """The URL's parts. FetchError for whatever two parsers might read differently, or that no picture's URL needs."""
    if len(url) > MAX_URL:
        raise FetchError(f"is a URL of {len(url):,} characters; at most {MAX_URL:,} are taken")
    if any(letter <= " " or letter in "\\\x7f" or not letter.isprintable() for letter in url):
        raise FetchError("is no URL: it holds a space, a backslash or a control character")
    scheme, colon, rest = url.partition("://")
    if scheme.lower() not in _PORTS or not colon:
        raise FetchError("is no URL that begins with https:// or http://")
    end = min((at for at in map(rest.find, "/?#") if at >= 0), default=len(rest))
    match = _AUTHORITY.fullmatch(rest[:end])
    if match is None:
        raise FetchError("is no URL of a host alone: it names a user, or no host")
    port = int(match[2]) if match[2] else _PORTS[scheme.lower()]
    if not 0 < port < 65536:
        raise FetchError(f"is a URL with the port {port}, which there is not")
    path = quote(rest[end:].partition("#")[0], safe=_PATH_SAFE)
    return Address(scheme.lower(), _host(match[1]), port, path if path.startswith("/") else f"/{path}")


def _host(text: str) -> str:
    """A host as it is asked for. Numbers only as they are usually written: to a resolver 127.1, 0x7f000001 and 2130706433 are 127.0.0.1."""
    if text.startswith("["):
        try:
            return str(ipaddress.IPv6Address(text[1:-1]))
        except ValueError:
            raise FetchError("is a URL whose address in brackets is none") from None
    try:
        host = (text if text.isascii() else idna.encode(text, uts46=True).decode()).lower().removesuffix(".")
    except idna.IDNAError:
        host = ""
    if not _HOST.fullmatch(host):
        raise FetchError("is a URL whose host is no name")
    if _NUMERIC.fullmatch(host.rpartition(".")[2]):
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise FetchError("is a URL whose host is a number that is no address as 93.184.216.34 is") from None
    return host


@dataclass(frozen=True)
class Allowed:
    """From where pictures are fetched: any public host ("*"), hosts by name or "*.suffix", and origins (http://images.internal:8080).

    An origin is trusted as it stands: also plain HTTP, its port, and addresses that are not public, but for those of a cloud's metadata.
    """

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        for word in self.words:
            name = word.removeprefix("*.")
            try:
                good = word == "*" or (parse(word).origin if "://" in word else _host(name)) == name
            except FetchError:
                good = False
            if not good:
                hint = "A host, example.com or *.example.com; an origin, http://images.internal:8080; or * for any public host."
                raise UsageError(f"--allow-url {word!r} is no host and no origin", hint=hint)

    def check(self, address: Address) -> bool:
        """Whether the address is trusted as it stands. FetchError when nothing is fetched from there."""
        if address.origin in self.words:
            return True
        if address.scheme != "https":
            raise FetchError("is a URL of plain http, which is not fetched here; https is")
        if address.port != _PORTS["https"]:
            raise FetchError(f"is a URL with the port {address.port}, which is not fetched from here")
        suffixes = (f"*.{address.host.split('.', count)[-1]}" for count in range(1, address.host.count(".") + 1))
        if not {"*", address.host, *suffixes} & set(self.words):
            raise FetchError("is a URL of a host that is not fetched from here")
        return False


# Addresses

_NEVER = tuple(
    map(
        ipaddress.ip_network,
        (
            "169.254.0.0/16",
            "168.63.129.16/32",
            "100.100.100.200/32",
            "192.0.0.192/32",
            "fe80::/10",
            "fd00:ec2::254/128",
            "fd20:ce::254/128",
        ),
    )
)
"""Where clouds answer their machines with credentials: not even an origin that is trusted leads there."""
_NOT_PUBLIC = tuple(
    map(
        ipaddress.ip_network,
        (
            # https://www.iana.org/assignments/iana-ipv4-special-registry
            "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
            "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15",
            "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32",
            # https://www.iana.org/assignments/iana-ipv6-special-registry: what is not 2000::/3 is no global unicast
            "::/3", "2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20", "4000::/2", "8000::/1",
        ),
    )
)  # fmt: skip
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def is_public(text: str) -> bool:
    """Whether an address is one of the public internet; those that wrap another are as public as that, where that is usual."""
    address = _unwrapped(text)
    return address is not None and address.is_global and not address.is_multicast and not _in(address, _NOT_PUBLIC)


def is_metadata(text: str) -> bool:
    """Whether an address is where a cloud answers its machines, or the link's own."""
    address = _unwrapped(text)
    return address is None or _in(address, _NEVER)


def _unwrapped(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address, or that of IPv4 which it stands for (mapped, or by NAT64 of RFC 6052); None for no address, and for one with a scope."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.scope_id is not None:
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(address.packed[12:])
    return address.ipv4_mapped or address


def _in(address: ipaddress.IPv4Address | ipaddress.IPv6Address, networks: Sequence[Any]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a host, in the order in which they should be tried."""
    return list(dict.fromkeys(str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))


def connect(address: str, port: int, timeout_s: float) -> httpcore.NetworkStream:
    """A connection to an address; FetchError when it is this machine's own, by whatever address."""
    stream = httpcore.SyncBackend().connect_tcp(address, port, timeout_s)
    if stream.get_extra_info("client_addr")[0] == stream.get_extra_info("server_addr")[0]:
        stream.close()
        raise _Failed(f"{address} is this machine")
    return stream


# Fetching


class _Failed(Exception):
    """Why a picture could not be fetched, for the log."""


class Fetcher:
    """Fetches pictures: a few at once, fewer from one host and for one caller.

    `resolve`, `connect`, `tls`, `clock` and `wait_s` are there for tests.
    """

    def __init__(
        self,
        allowed: Allowed,
        max_bytes: int,
        *,
        resolve: Resolve = resolve,
        connect: Connect = connect,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.monotonic,
        wait_s: float = TOTAL_S,
    ) -> None:
        self._allowed, self._max_bytes = allowed, max_bytes
        self._resolve, self._connect, self._tls, self._clock = resolve, connect, tls or _tls(), clock
        self._wait_s = wait_s
        self._threads = ThreadPoolExecutor(_AT_ONCE, "fetch")
        self._resolvers = ThreadPoolExecutor(_AT_ONCE, "resolve")
        self._busy: Counter[str] = Counter()
        self._freed = asyncio.Condition()
        self._failed = (
            f"could not be fetched: behind the URL there is no public address that answers with a JPEG, PNG or WEBP picture "
            f"of at most {max_bytes:,} bytes within {TOTAL_S:g} s"
        )

    async def fetch_all(self, urls: Sequence[str], caller: str) -> dict[str, bytes | FetchError]:
        """What is behind each URL, or why it was not fetched. Unavailable as `fetch`."""

        async def one(url: str) -> bytes | FetchError:
            try:
                return await self.fetch(url, caller)
            except FetchError as error:
                return error

        return dict(zip(urls, await asyncio.gather(*map(one, urls)), strict=True))

    async def fetch(self, url: str, caller: str) -> bytes:
        """The bytes of what says it is a picture. FetchError; Unavailable when too many are fetched already."""
        address = parse(url)
        self._allowed.check(address)
        async with self._turn(f"host {address.host}", f"caller {caller}"):
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._follow, address)

    @asynccontextmanager
    async def _turn(self, host: str, caller: str) -> AsyncIterator[None]:
        most = {"all": _AT_ONCE, host: _AT_ONCE_OF_HOST, caller: _AT_ONCE_OF_CALLER}
        async with self._freed:
            try:
                async with asyncio.timeout(self._wait_s):
                    await self._freed.wait_for(lambda: all(self._busy[name] < count for name, count in most.items()))
            except TimeoutError:
                raise Unavailable("too many pictures are being fetched already", retry_after_s=int(TOTAL_S)) from None
            self._busy.update(most.keys())
        try:
            yield
        finally:
            async with self._freed:
                self._busy.subtract(most.keys())
                self._busy = +self._busy
                self._freed.notify_all()

    def _follow(self, address: Address) -> bytes:
        """On a thread: the picture, behind at most a few redirects."""
        until = self._clock() + TOTAL_S
        try:
            for _ in range(_MAX_REDIRECTS + 1):
                trusted = self._allowed.check(address)
                found = self._get(address, self._addresses(address, until, trusted=trusted), until)
                if isinstance(found, bytes):
                    return found
                following = parse(urljoin(address.url, found))
                if following.scheme != address.scheme and following.scheme != "https":
                    raise _Failed("a redirect leads from https to http")
                address = following
            raise _Failed(f"more than {_MAX_REDIRECTS} redirects")
        except FetchError as error:  # of a redirect: the caller hears no more of it than of anything else that is not found
            raise FetchError(self._failed, f"redirect: {error.reason}") from error
        except (_Failed, httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, OSError, UnicodeError) as error:
            raise FetchError(self._failed, f"{address.origin}: {error or type(error).__name__}") from error

    def _addresses(self, address: Address, until: float, *, trusted: bool) -> Sequence[str]:
        """The host's addresses, all of which may be connected to."""
        waiting = self._resolvers.submit(self._resolve, address.host, address.port)
        try:
            found = waiting.result(min(CONNECT_S, self._left(until)))
        except TimeoutError:
            waiting.cancel()
            raise _Failed("its addresses were not found in time") from None
        bad = [each for each in found if is_metadata(each) or not (trusted or is_public(each))]
        if bad or not found:
            raise _Failed(f"{bad[0]} is not public" if bad else "it has no address")
        return found

    def _left(self, until: float) -> float:
        left_s = until - self._clock()
        if left_s <= 0:
            raise _Failed(f"it took over {TOTAL_S:g} s")
        return left_s

    def _get(self, address: Address, addresses: Sequence[str], until: float) -> bytes | str:
        """The picture, or where a redirect leads."""
        backend = _Pinned(addresses, self._connect, lambda: self._left(until), 2 * self._max_bytes)
        url = httpcore.URL(scheme=address.scheme, host=address.host, port=address.port, target=address.path)
        headers = [
            ("User-Agent", f"modelport/{__version__}"),
            ("Accept", "image/jpeg, image/png, image/webp"),
            ("Accept-Encoding", "identity"),
            ("Connection", "close"),
        ]
        with httpcore.ConnectionPool(ssl_context=self._tls, network_backend=backend, max_connections=1) as pool:
            with pool.stream("GET", url, headers=headers) as response:
                assert backend.stream is not None
                backend.stream.in_head = False
                given = {name.lower(): value for name, value in response.headers}
                if response.status in (301, 302, 303, 307, 308) and b"location" in given:
                    return given[b"location"].decode("ascii")
                self._check_head(response.status, given)
                body = bytearray()
                for piece in response.iter_stream():
                    body += piece
                    if len(body) > self._max_bytes:
                        raise _Failed(f"it sends more than {self._max_bytes:,} bytes")
                return bytes(body)

    def _check_head(self, status: int, headers: dict[bytes, bytes]) -> None:
        kind, encoding = headers.get(b"content-type", b""), headers.get(b"content-encoding", b"identity")
        if status != 200:
            raise _Failed(f"it answers {status}")
        if not kind.lower().startswith(b"image/"):
            raise _Failed(f"it sends {kind[:60]!r}")
        if encoding.lower() != b"identity":
            raise _Failed(f"it sends the content encoding {encoding[:60]!r}")
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length[:18]) > self._max_bytes:
            raise _Failed(f"it announces {length[:18].decode('latin-1')} bytes")


@cache
def _tls() -> ssl.SSLContext:
    import certifi

    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


class _Pinned(httpcore.NetworkBackend):
    """Connects to addresses that were checked, whatever host it is asked for."""

    def __init__(self, addresses: Sequence[str], connect: Connect, left: Callable[[], float], max_bytes: int) -> None:
        self._addresses, self._connect, self._left, self._max_bytes = addresses, connect, left, max_bytes
        self.stream: _Bounded | None = None

    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, local_address: str | None = None, socket_options: Any = None
    ) -> httpcore.NetworkStream:
        for index, address in enumerate(self._addresses, 1):
            try:
                stream = self._connect(address, port, min(CONNECT_S, self._left()))
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if index == len(self._addresses):
                    raise
            else:
                self.stream = _Bounded(stream, self._left, self._max_bytes)
                return self.stream
        raise AssertionError("there is an address, and the last one connects or raises")


class _Bounded(httpcore.NetworkStream):
    """A connection that gives so many bytes and no more, the head of the answer in few of them, and all in time."""

    def __init__(self, stream: httpcore.NetworkStream, left: Callable[[], float], max_bytes: int) -> None:
        self._stream, self._left, self._bytes_left = stream, left, max_bytes + _MAX_HEAD_BYTES
        self._head_left = _MAX_HEAD_BYTES
        self.in_head = True

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        most = min(max_bytes, self._bytes_left, self._head_left if self.in_head else max_bytes)
        if most <= 0:
            raise _Failed("its headers are too long" if self.in_head else "it sends too much around its body")
        data = self._stream.read(most, self._left())
        self._bytes_left -= len(data)
        self._head_left -= len(data)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._left())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        self._stream = self._stream.start_tls(ssl_context, server_hostname, min(CONNECT_S, self._left()))
        return self

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
