"""The memory that a worker shares with the supervisor: what the worker is doing, readable also when it hangs or has died.

    heartbeat_ns     when the worker's loop last turned (CLOCK_MONOTONIC)
    pulse_ns         when its watch thread last ran: older than a moment means that something holds the interpreter's lock
    deadline_ns      when the running call of the model should be over; 0 while none runs
    memory_bytes     resident memory
    flight_bytes     how much of the flight recorder is written; 0 while no call runs
    owed             one byte a connection: requests that have begun to arrive and are not answered
    flight recorder  the requests of the running call, so that they can be asked again elsewhere if it kills the worker

Only the worker writes, and only the supervisor reads, so nothing is locked. A record is complete before flight_bytes counts it.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

SLOTS = 1 << 16
"""Connections that a worker can have at once."""
FLIGHT_BYTES = 4 << 20
MAX_BODY = 64 << 10
"""A larger body is not kept: its request is answered with an error if the worker dies, as is one that cannot be asked again."""
_HEAD = struct.Struct("=5q")
_FIELDS = ("heartbeat_ns", "pulse_ns", "deadline_ns", "memory_bytes", "flight_bytes")
_FIELD = struct.Struct("=q")
_OWED_AT = 64
_FLIGHT_AT = _OWED_AT + SLOTS
_RECORD = struct.Struct("=iHHI")
SIZE = _FLIGHT_AT + FLIGHT_BYTES


@dataclass(frozen=True, slots=True)
class Flown:
    """A request that the model was computing; its body is empty where it was not kept."""

    slot: int
    service: str
    request_id: str
    body: bytes


class InFlight(Protocol):
    """What the recorder keeps of a request; `modelport.serving.batching.Work` has it."""

    slot: int
    service: str
    request_id: str
    body: bytes


def create() -> int:
    """A descriptor of new shared memory of the board's size. It has no name, and only what is written takes memory."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("modelport-board")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, SIZE)
    return descriptor


class Board:
    """One side's view of the shared memory behind `descriptor`."""

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, SIZE)

    def close(self) -> None:
        self._memory.close()

    # The worker writes

    def owed(self, slot: int, change: int) -> None:
        """+1: a request has begun to arrive on the connection; -1: its answer was handed to the socket."""
        if slot >= 0:
            self._memory[_OWED_AT + slot] = max(0, min(255, self._memory[_OWED_AT + slot] + change))

    def clear(self, slot: int) -> None:
        """The connection is closed, and its slot free."""
        if slot >= 0:
            self._memory[_OWED_AT + slot] = 0

    def write(self, field: str, value: int) -> None:
        _FIELD.pack_into(self._memory, 8 * _FIELDS.index(field), value)

    def begin(self, works: Sequence[InFlight], deadline_s: float) -> None:
        """The model is about to be called with `works`, to be over by `deadline_s` (CLOCK_MONOTONIC)."""
        at = _FLIGHT_AT
        end = SIZE
        for work in works:
            body = work.body
            if work.slot < 0:
                continue
            if len(body) > MAX_BODY:
                body = b""
            names = work.service.encode(), work.request_id.encode()
            length = _RECORD.size + len(names[0]) + len(names[1]) + len(body)
            if at + length > end:
                break
            _RECORD.pack_into(self._memory, at, work.slot, len(names[0]), len(names[1]), len(body))
            self._memory[at + _RECORD.size : at + length] = names[0] + names[1] + body
            at += length
        _FIELD.pack_into(self._memory, 32, at - _FLIGHT_AT)
        _FIELD.pack_into(self._memory, 16, int(deadline_s * 1e9))

    def end(self) -> None:
        """The call is over."""
        _FIELD.pack_into(self._memory, 16, 0)
        _FIELD.pack_into(self._memory, 32, 0)

    # The supervisor reads

    def read(self, field: str) -> int:
        value: int = _FIELD.unpack_from(self._memory, 8 * _FIELDS.index(field))[0]
        return value

    def owes(self, slot: int) -> int:
        """How many answers the connection is owed."""
        return self._memory[_OWED_AT + slot]

    def in_flight(self) -> list[Flown]:
        """The requests of the running call that were kept; of a worker that has died, those it died with."""
        flown = []
        at, end = _FLIGHT_AT, _FLIGHT_AT + max(0, min(self.read("flight_bytes"), FLIGHT_BYTES))
        while at + _RECORD.size <= end:
            slot, service, request_id, body = _RECORD.unpack_from(self._memory, at)
            text = at + _RECORD.size
            stop = text + service + request_id + body
            if stop > end or not 0 <= slot < SLOTS:
                break
            name, asked = self._memory[text : text + service], self._memory[text + service : stop - body]
            flown.append(Flown(slot, name.decode(errors="replace"), asked.decode(errors="replace"), self._memory[stop - body : stop]))
            at = stop
        return flown

    def view(self) -> dict[str, Any]:
        """All fields, by name."""
        return dict(zip(_FIELDS, _HEAD.unpack_from(self._memory, 0), strict=True))


def now_ns() -> int:
    """The clock of the board."""
    return time.monotonic_ns()
