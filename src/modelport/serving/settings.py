"""How a service is run: read once from flags and environment, then only passed on."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

from modelport.errors import UsageError

_ORIGIN = re.compile(r"https?://([a-z0-9-]+(\.[a-z0-9-]+)*|\[[0-9a-f:]+\])(:[0-9]{1,5})?")
_HOST_NAME = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)*|\*")
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Settings:
    """The settings of a service. UsageError for a combination that would not be safe, or a value that cannot be meant."""

    host: str = "127.0.0.1"
    port: int = 8000
    """0 takes a free one."""
    keys: frozenset[str] = frozenset()
    """sha256 of each API key, in hexadecimal; none means that no key is asked for."""
    public: bool = False
    """Whether anyone who reaches the address may ask, where there are no keys."""
    host_names: tuple[str, ...] = ()
    """Names that the Host header may have beside this machine's own; "*" is any."""
    cors: tuple[str, ...] = ()
    """Origins whose pages may call the service; "*" is any."""
    max_body_bytes: int = 16 * 2**20
    max_picture_bytes: int = 10 * 2**20
    """Of one picture that comes as it is: as the body, in a form, or from a URL. In JSON it is the body that counts."""
    allow_url: tuple[str, ...] = ()
    """From where pictures are fetched that callers name by their URL: hosts, origins, or "*" for any public host; none fetches none."""
    max_rows: int = 100_000
    max_header_bytes: int = 32 * 2**10
    """The request's line and headers together."""
    timeout_s: float = 30.0
    """How long an answer may take once the request is there."""
    body_timeout_s: float = 30.0
    """How long a request's body may take to arrive."""
    drain_delay_s: float = 0.0
    """How long connections are still taken after the service was told to stop, until whoever sends them has noticed."""
    grace_s: float = 30.0
    """How long requests under way may take after that."""
    workers: int | None = None
    """How many processes answer; one for each core where it is not said, or fewer where a heavy model makes good use of threads."""
    threads: int | None = None
    """How many threads each of them has for its computations; where it is not said as many as a measurement shows to pay, mostly one."""
    engine: str = "auto"
    """What computes the answers: "onnx", "native", or "auto", which is ONNX where a bundle has it."""
    max_memory_bytes: int | None = None
    """A worker that has grown beyond this is replaced, without losing a request; None lets it grow."""
    max_waiting: int = 10_000
    """Requests that may wait for a model at once, however soon they would be answered."""
    metrics_port: int | None = None
    """A port of their own for the metrics, where no key is asked for: on this machine's own address, unless the service is public."""
    log_lines_per_s: int = 100
    """So many answered requests a second have a line each in a worker's log; of more, a fair sample has."""
    app: str = ""
    """The application of somebody else that is served in place of models, as "module:attribute"."""
    title: str = ""
    subtitle: str = ""
    description: str = ""
    predict_route: str = ""
    """One more path for v1 predictions: what Vertex AI names in AIP_PREDICT_ROUTE."""
    health_route: str = ""
    """One more path for readiness: what Vertex AI names in AIP_HEALTH_ROUTE."""

    def __post_init__(self) -> None:
        if not (is_loopback(self.host) or self.keys or self.public):
            raise UsageError(
                f"{self.host} can be reached from other machines, and no API key is set",
                hint="Set MODELPORT_API_KEY (or --keys FILE); or say --public if anyone who reaches it may ask.",
            )
        for origin in self.cors:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise UsageError(f"--cors {origin!r} is no origin", hint="An origin is like https://app.example.com, without a path; or *.")
        for name in self.host_names:
            if not _HOST_NAME.fullmatch(name):
                raise UsageError(f"--host-name {name!r} is no host name", hint="Give the name alone, in lower case: api.example.com.")
        for route in (self.predict_route, self.health_route):
            if route and not re.fullmatch(r"(/[A-Za-z0-9._:-]+)+", route):
                raise UsageError(f"{route!r} is no path to serve", hint="AIP_PREDICT_ROUTE and AIP_HEALTH_ROUTE are like /predict.")
        for port in (self.port, self.metrics_port or 0):
            if not 0 <= port <= 65535:
                raise UsageError(f"{port} is no port", hint="A port is a number from 1 to 65535, or 0 for a free one.")


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def hash_key(key: str) -> str:
    """The form in which a key is kept: its sha256 in hexadecimal. A key is long and random, so a fast hash will do."""
    return hashlib.sha256(key.encode()).hexdigest()


def keys_of(text: str) -> frozenset[str]:
    """The hashes of the keys in MODELPORT_API_KEY: one, or several with commas between them."""
    keys = [key.strip() for key in text.split(",")]
    if not all(keys):
        raise UsageError("MODELPORT_API_KEY is set, and a key in it is empty", hint="Unset it, or give it a long random value.")
    return frozenset(map(hash_key, keys))


def read_keys(path: Path) -> frozenset[str]:
    """The hashes in a file: one sha256 in hexadecimal a line; what follows it is a note, and lines that begin with # are too."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--keys {path} cannot be read: {error}") from error
    keys = set()
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        key = line.split()[0].lower()
        if not _HASH.fullmatch(key):
            raise UsageError(f"--keys {path}, line {number}: not a sha256 in hexadecimal", hint='Make one: printf %s "$KEY" | sha256sum')
        keys.add(key)
    if not keys:
        raise UsageError(f"--keys {path} holds no key", hint='Make one: printf %s "$KEY" | sha256sum')
    return frozenset(keys)
