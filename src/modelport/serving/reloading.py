"""How `modelport reload` asks a running service to look again what to serve, and hears what came of it.

The service listens on an abstract socket (unix(7)) that is named by its address: no file is left behind and nothing needs to be writable,
and it is found only from the network namespace that the service's port is in. Its own user and root may ask: the kernel says who does.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TypeAlias

import msgspec

from modelport.errors import ModelportError, Refused, UsageError
from modelport.serving.control import Channel, Failed, Model

_HERE = sys.platform == "linux"
_MOST_ASKERS = 64
_CREDENTIALS = struct.Struct("3i")
"""struct ucred: process, user, group."""


class Reload(msgspec.Struct, tag=True):
    """Look again what to serve."""


class Served(msgspec.Struct, tag=True):
    """These models are served, and no others any more."""

    models: list[Model]
    changed: bool
    """Whether they were others before."""


Outcome: TypeAlias = Served | Failed
Asker: TypeAlias = Channel[Outcome, Reload]


def ask(host: str, port: int) -> Served:
    """Ask the service at this address to reload, and wait until every answer is the new models', or it is known that none will be.

    Refused where a gate of the service refuses the new bundle, or the caller. ModelportError where there is no such service, it cannot
    reload for another reason, or ends meanwhile. UsageError on a system that has no abstract sockets.
    """
    if not _HERE:
        raise UsageError("`modelport reload` needs Linux's abstract sockets", hint="Send the service SIGHUP; its log says what came of it.")
    channel: Channel[Reload, Outcome] = Channel(_connect(host, port), Outcome)
    try:
        channel.send(Reload())
        received = channel.receive()
    finally:
        channel.close()
    if received is None:
        raise ModelportError(f"the service on {host} port {port} ended before it said what came of it", hint="Its log says why.")
    outcome = received[0]
    if isinstance(outcome, Failed):
        error = outcome.error()
        raise error if isinstance(error, Refused) else ModelportError(error.message, hint=error.hint)
    return outcome


class Reception:
    """Where a service is asked to reload. Made and used on its loop."""

    def __init__(self, host: str, port: int, asked: Callable[[Asker], None]) -> None:
        """`asked` is given each who may ask and does, to be told once. OSError where somebody else has taken the name, or there is none."""
        if not _HERE:
            raise OSError("this system has no abstract sockets")
        self._asked = asked
        self._loop = asyncio.get_running_loop()
        self._waiting: set[Asker] = set()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.setblocking(False)
        try:
            self._listener.bind(_name(host, port))
            self._listener.listen(_MOST_ASKERS)
        except OSError:
            self._listener.close()
            raise
        self._loop.add_reader(self._listener.fileno(), self._on_connection)

    def _on_connection(self) -> None:
        try:
            accepted, _ = self._listener.accept()
        except OSError:  # whoever it was is gone, or there are no descriptors left
            return
        asker: Asker = Channel(accepted, Reload)
        accepted.setblocking(False)
        self._waiting.add(asker)
        self._loop.add_reader(accepted.fileno(), self._on_message, asker)

    def _on_message(self, asker: Asker) -> None:
        try:
            received = asker.receive()
        except BlockingIOError:
            return
        except msgspec.MsgspecError:  # another version of Modelport
            received = None
        self._loop.remove_reader(asker.socket.fileno())
        self._waiting.remove(asker)
        if received is None:
            asker.close()
        elif _user(asker.socket) not in (0, os.geteuid()):
            tell(asker, Failed.of(Refused("only the service's own user and root may tell it to reload")))
        else:
            self._asked(asker)

    def close(self) -> None:
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()
        for asker in self._waiting:
            self._loop.remove_reader(asker.socket.fileno())
            asker.close()


def tell(asker: Asker, outcome: Outcome) -> None:
    """Say what came of it, and nothing more."""
    asker.send(outcome)  # who has gone meanwhile is not told
    asker.close()


def _name(host: str, port: int) -> str:
    return f"\0modelport/{host}/{port}"


def _names(host: str, port: int) -> Iterator[str]:
    """How a service that answers at this address may have named its socket: by the address itself, or by all addresses."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise UsageError(f"{host!r} is no address: {error.strerror or error}") from error
    addresses = [str(address[0]) for *_, address in found]
    for address in dict.fromkeys((*addresses, "0.0.0.0", "::")):  # noqa: S104  only part of a name
        yield _name(address, port)


def _connect(host: str, port: int) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for name in _names(host, port):
        with suppress(ConnectionRefusedError):
            connection.connect(name)
            if _user(connection) in (0, os.geteuid()) or os.geteuid() == 0:
                return connection
            connection.close()
            raise Refused(f"what answers for {host} port {port} is another user's", hint="Ask as the user that the service runs as.")
    connection.close()
    raise ModelportError(
        f"there is no service on {host} port {port} that can be asked to reload",
        hint="`modelport serve` starts one; --host and --port name another. It is asked from within its own container.",
    )


def _user(connection: socket.socket) -> int:
    """The user of the process at the other end."""
    return int(_CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))[1])
