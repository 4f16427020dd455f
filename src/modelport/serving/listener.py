"""The socket that a service listens on."""

from __future__ import annotations

import errno
import socket

from modelport.errors import UsageError

BACKLOG = 2048


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. UsageError when the port is taken, or the address is not one of this machine."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UsageError(f"cannot listen on {host!r}: {error.strerror or error}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise UsageError(f"port {port} of {host} is taken by another program", hint="--port 0 takes a free one.") from error
        raise UsageError(f"cannot listen on {host} port {port}: {error.strerror}") from error
    return listener
