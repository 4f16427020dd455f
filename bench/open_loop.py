"""Sends requests at a steady rate whether or not answers come: an open loop over raw connections.

Each request has its moment by the clock; latency counts from that moment, so that a slow service cannot slow the questions and hide it.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Tally:
    """What became of the requests of one second: latencies in milliseconds."""

    sent: int = 0
    good_ms: list[float] = field(default_factory=list)
    shed_ms: list[float] = field(default_factory=list)
    """Of the answers 503 and 429."""
    other: int = 0
    """Answers with another status than 200, 503, 429."""
    broken: int = 0
    """Connections refused, reset or closed without an answer."""
    late: int = 0
    """No answer within the deadline: the caller has left."""
    unsent: int = 0
    """Not sent, because every connection was waiting for an answer."""

    def add(self, more: Tally) -> None:
        """Everything of another tally."""
        self.sent += more.sent
        self.good_ms += more.good_ms
        self.shed_ms += more.shed_ms
        self.other += more.other
        self.broken += more.broken
        self.late += more.late
        self.unsent += more.unsent


class _Caller(asyncio.Protocol):
    """One connection with at most one request on its way."""

    def __init__(self, loop: _Loop) -> None:
        self.loop = loop
        self.transport: asyncio.Transport | None = None
        self.due: float | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def ask(self, request: bytes, due: float, deadline_s: float) -> None:
        assert self.transport is not None
        self.due, self.received = due, b""
        self.timer = asyncio.get_running_loop().call_later(deadline_s, self._gave_up)
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self.due is None:
            return
        self.received += data
        head, end, body = self.received.partition(b"\r\n\r\n")
        if not end:
            return
        lower = head.lower()
        _, stated, length = lower.partition(b"content-length:")
        if stated and len(body) < int(length.split(b"\r\n", 1)[0]):
            return
        if not stated and not body.endswith(b"0\r\n\r\n"):
            return
        status, waited_ms = int(head[9:12]), (time.perf_counter() - self.due) * 1000
        tally = self.loop.tally
        if status == 200:
            tally.good_ms.append(waited_ms)
        elif status in (429, 503):
            tally.shed_ms.append(waited_ms)
        else:
            tally.other += 1
        self._done()
        if b"connection: close" in lower:
            assert self.transport is not None
            self.transport.close()
        else:
            self.loop.idle.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.due is not None:
            self.loop.tally.broken += 1
            self._done()
        elif self in self.loop.idle:
            self.loop.idle.remove(self)
        self.loop.open -= 1

    def _gave_up(self) -> None:
        self.loop.tally.late += 1
        self.due = None
        assert self.transport is not None
        self.transport.abort()

    def _done(self) -> None:
        self.due = None
        if self.timer is not None:
            self.timer.cancel()


class _Loop:
    def __init__(self, port: int, connections: int, deadline_s: float, source: str) -> None:
        self.port = port
        self.source = source
        self.connections = connections
        self.deadline_s = deadline_s
        self.idle: list[_Caller] = []
        self.open = 0
        self.tally = Tally()
        self.tasks: set[asyncio.Task[None]] = set()

    def send(self, request: bytes, due: float) -> None:
        if self.idle:
            self.tally.sent += 1
            self.idle.pop().ask(request, due, self.deadline_s)
        elif self.open < self.connections:
            self.open += 1
            self.tally.sent += 1
            task = asyncio.ensure_future(self._connect(request, due))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        else:
            self.tally.unsent += 1

    async def _connect(self, request: bytes, due: float) -> None:
        try:
            async with asyncio.timeout(self.deadline_s):
                _, caller = await asyncio.get_running_loop().create_connection(
                    lambda: _Caller(self), "127.0.0.1", self.port, local_addr=(self.source, 0)
                )
        except TimeoutError:
            self.open -= 1
            self.tally.late += 1
            return
        except OSError:
            self.open -= 1
            self.tally.broken += 1
            return
        caller.ask(request, due, max(0.0, due + self.deadline_s - time.perf_counter()))


async def steady(
    port: int,
    requests: Sequence[bytes],
    rate_per_s: float,
    seconds: float,
    deadline_s: float,
    connections: int,
    tallies: list[Tally],
    source: str = "127.0.0.1",
) -> None:
    """Sends `rate_per_s` for so many seconds and appends one tally to `tallies` at the end of each, as a second passes.

    `source` is the address it sends from: a service that lets callers take turns tells them apart by it.
    """
    loop = _Loop(port, connections, deadline_s, source)
    turn = itertools.cycle(requests)
    begun = time.perf_counter()
    sent, second = 0, 1
    while (now := time.perf_counter() - begun) < seconds:
        for _ in range(int(now * rate_per_s) + 1 - sent):  # the first is due at once
            loop.send(next(turn), begun + sent / rate_per_s)
            sent += 1
        if now >= second:
            tallies.append(loop.tally)
            loop.tally = Tally()
            second += 1
        await asyncio.sleep(max(0.0005, begun + sent / rate_per_s - time.perf_counter()))
    await asyncio.sleep(min(deadline_s, 2.0))  # the last answers
    tallies.append(loop.tally)
    for caller in list(loop.idle):
        if caller.transport is not None:
            caller.transport.close()
    await asyncio.gather(*loop.tasks)


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of them lie; 0 where there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
