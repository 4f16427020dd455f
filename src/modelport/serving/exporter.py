"""The metrics on a port of their own, for a scraper that has no key: GET /metrics, and nothing else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

from modelport.errors import MethodNotAllowed, NotFound, RequestError
from modelport.serving.guard import check_host, host_names, uuid7
from modelport.serving.listener import bind
from modelport.serving.metrics import Snapshot, expose
from modelport.serving.problems import Answer
from modelport.serving.responder import asked, refusal, render
from modelport.serving.settings import Settings, is_loopback

_HEAD_BYTES = 32 * 2**10
_HEAD_SECONDS = 5.0


def bind_metrics(settings: Settings) -> socket.socket | None:
    """The listening socket of --metrics-port, if it is wanted; UsageError when it cannot be had.

    What is told there needs no key, so only this machine can reach it, unless anyone may who reaches the address.
    """
    if settings.metrics_port is None:
        return None
    return bind(settings.host if settings.public or is_loopback(settings.host) else "127.0.0.1", settings.metrics_port)


async def serve(listener: socket.socket, settings: Settings, totals: Callable[[], Awaitable[Snapshot]]) -> asyncio.Server:
    """Answer on `listener`, on the loop that runs, until the server is closed."""
    address = listener.getsockname()[0]
    allowed = host_names(address, settings.host_names if is_loopback(address) else ())  # a scraper asks by the address

    async def reply(head: bytes) -> bytes:
        method, path = asked(head) or ("", "")
        headers = [line.partition(b":")[::2] for line in head.split(b"\r\n")[1:]]
        given = {name.lower(): value.strip() for name, value in headers}
        try:
            check_host([value.strip() for name, value in headers if name.lower() == b"host"], "1.1", allowed)
            if path != "/metrics":
                raise NotFound("there is /metrics on this port, and nothing else")
            if method not in ("GET", "HEAD"):
                raise MethodNotAllowed(f"/metrics takes GET, HEAD, not {method[:40]}")
        except RequestError as error:
            return refusal(error, settings, path=path, head_only=method == "HEAD")
        body, media_type = await asyncio.to_thread(expose, await totals(), given.get(b"accept", b"").decode("latin-1"))
        return render(Answer(body, media_type), settings, uuid7(), head_only=method == "HEAD")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_HEAD_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
            writer.write(await reply(head))
            await writer.drain()
        except (TimeoutError, EOFError, asyncio.LimitOverrunError, ConnectionError):
            pass  # whoever it was asked for nothing, or left
        finally:
            writer.close()

    return await asyncio.start_server(answer, sock=listener, limit=_HEAD_BYTES)
