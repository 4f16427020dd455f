"""What the supervisor and its workers say to each other, over a socket that only the two of them have.

Messages are msgpack of the structs below: nothing that could run code on the other side. A message is one packet; some bring a descriptor.
"""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Sequence
from typing import Generic, TypeAlias, TypeVar

import msgspec

from modelport.errors import ModelportError, by_code
from modelport.serving.metrics import Snapshot
from modelport.serving.settings import Settings

_PACKET = 2**17
"""Bytes of the largest message: a request that is asked again, with its body."""
_QUEUED_BYTES = 2**20


class Model(msgspec.Struct, frozen=True):
    """A bundle to serve: the folder it is in, and the digest it must have."""

    name: str
    version: str
    folder: str
    digest: str

    @property
    def label(self) -> str:
        """As a person would name it: "iris:3"."""
        return f"{self.name}:{self.version}" if self.version else self.name

    def answers(self, service: str) -> bool:
        """Whether it is the bundle that answers what is asked of `service`: its own name, or that with a function's behind a dot."""
        return service == self.name or service.startswith(self.name + ".")


# From the supervisor


class Begin(msgspec.Struct, tag=True):
    """Load the models and be ready to serve them. Brings the board's descriptor."""

    models: list[Model]
    settings: Settings
    denied: list[bytes]


class Take(msgspec.Struct, tag=True):
    """A connection is yours, in this slot of the board. Brings its descriptor."""

    slot: int


class Replay(msgspec.Struct, tag=True):
    """A connection is yours, and this JSON was asked on it of a worker that is gone: answer it. Brings its descriptor."""

    slot: int
    service: str
    request_id: str
    body: bytes


class Deny(msgspec.Struct, tag=True):
    """Requests with these fingerprints end processes: do not ask the model."""

    fingerprints: list[bytes]


class Drain(msgspec.Struct, tag=True):
    """The service is going to stop: say so in /readyz, and close each connection behind its next answer."""


class Release(msgspec.Struct, tag=True):
    """Give every connection back when it stands between two requests, then end."""


class Finish(msgspec.Struct, tag=True):
    """Answer what has begun to arrive, close every connection, then end."""


class Count(msgspec.Struct, tag=True):
    """Say what you have counted."""


class TellTotals(msgspec.Struct, tag=True):
    """What all workers have counted, as you have asked."""

    number: int
    snapshot: Snapshot


ToWorker: TypeAlias = Begin | Take | Replay | Deny | Drain | Release | Finish | Count | TellTotals


# From a worker


class Ready(msgspec.Struct, tag=True):
    """The models have reproduced their recorded answers."""

    models: list[str]
    """As the X-Model header gives them."""
    engines: list[str]
    """What answers for each of them: "onnx", "native" or "onnx+native"."""
    memory_bytes: int
    row_s: float
    """How long they took for one row of their examples, all together; 0 where there are no examples."""


class Failed(msgspec.Struct, tag=True):
    """The models cannot be served: the ModelportError that says why."""

    code: str
    message: str
    hint: str

    @classmethod
    def of(cls, error: Exception) -> Failed:
        """What is told of an error; of one that nobody foresaw, its name."""
        if isinstance(error, ModelportError):
            return cls(error.code, error.message[:20_000], error.hint[:2000])
        return cls(ModelportError.code, f"the model cannot be loaded: {type(error).__name__}: {error}"[:20_000], "")

    def error(self) -> ModelportError:
        """The error that was told."""
        return by_code().get(self.code, ModelportError)(self.message, hint=self.hint)


class Closed(msgspec.Struct, tag=True):
    """The connection is closed, and its slot free."""

    slot: int


class Replayed(msgspec.Struct, tag=True):
    """What was to be replayed on the connection has its answer."""

    slot: int


class Released(msgspec.Struct, tag=True):
    """The connection is the supervisor's again: nothing of its next request has been read."""

    slot: int


class Counted(msgspec.Struct, tag=True):
    """What this process has counted since it started."""

    snapshot: Snapshot


class AskTotals(msgspec.Struct, tag=True):
    """What have all workers counted? The answer has the same number."""

    number: int


ToSupervisor: TypeAlias = Ready | Failed | Closed | Replayed | Released | Counted | AskTotals

Said = TypeVar("Said")
Heard = TypeVar("Heard")


class Channel(Generic[Said, Heard]):
    """One end of the socket: says what it is typed for, and hears `heard`."""

    def __init__(self, end: socket.socket, heard: object) -> None:
        self.socket = end
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _QUEUED_BYTES)
        self._decode = msgspec.msgpack.Decoder(heard).decode

    def send(self, message: Said, descriptors: Sequence[int] = ()) -> bool:
        """Say it; False when the other end does not listen, or is gone."""
        try:
            socket.send_fds(self.socket, [msgspec.msgpack.encode(message)], list(descriptors))
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            return False
        return True

    def receive(self) -> tuple[Heard, list[int]] | None:
        """The next message and the descriptors it brought; None when the other end is gone. BlockingIOError when there is none now."""
        try:
            packet, descriptors, _, _ = socket.recv_fds(self.socket, _PACKET, 1)
        except ConnectionResetError:
            return None
        return (self._decode(packet), descriptors) if packet else None

    def close(self) -> None:
        self.socket.close()


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets that keep messages apart."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def fingerprint(digest: str, service: str, body: bytes) -> bytes:
    """What tells a request to a service of a bundle from all others."""
    return hashlib.sha256(digest.encode() + b"\0" + service.encode() + b"\0" + body).digest()
