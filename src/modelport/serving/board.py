"""The memory that a worker shares with the supervisor: what the worker is doing, readable also when it hangs or has died.

    heartbeat_ns     when the worker's loop last turned (CLOCK_MONOTONIC)
    pulse_ns         when its watch thread last ran: older than a moment means that something holds the interpreter's lock
    deadline_ns      when the running call of the model should be over; 0 while none runs
    memory_bytes     resident memory
    flight_bytes     how much of the flight recorder is written; 0 while no call runs
    waiting_cells    how many of the cells were ever used
    owed             two bytes a connection: requests that have begun to arrive and are not answered, and whether an answer may be cut off
    flight recorder  the requests of the running call, so that they can be asked again elsewhere if it kills the worker
    cells            each a request that waits for a call, so that it can be asked elsewhere if that never begins

Only the worker writes, and only the supervisor reads, so nothing is locked. A record is complete before flight_bytes counts it, or before
its cell names a connection.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

SLOTS = 1 << 16
"""Connections that there can be at once. A connection's `slot` is its place among them, in the low bits, and above them how often that
place was taken before: so that what is recorded of a caller who left is not taken for the one who came after."""
_PLACES = SLOTS - 1
_MOST_SLOT = 1 << 31
FLIGHT_BYTES = 4 << 20
MAX_BODY = 64 << 10
"""A larger body is not kept: its request is answered with an error if the worker dies, as is one that cannot be asked again."""
CELLS = 1 << 14
"""Requests that can wait and be kept; of more, only so many are."""
CELL_BYTES = 4 << 10
"""What waits and is longer, with its id and its model's name, is not kept."""
_FIELDS = ("heartbeat_ns", "pulse_ns", "deadline_ns", "memory_bytes", "flight_bytes", "waiting_cells")
_FIELD = struct.Struct("=q")
_OWED_AT = 64
_SENDING = 1 << 15
"""In what a connection is owed: an answer may have left in part."""
_COUNT = _SENDING - 1
_FLIGHT_AT = _OWED_AT + 2 * SLOTS
_RECORD = struct.Struct("=IHHI")
_PLACE = struct.Struct("=I")
"""How a record begins: with the connection's slot and 1 more, or with 0 where there is none."""
_CELLS_AT = -(-(_FLIGHT_AT + FLIGHT_BYTES) // CELL_BYTES) * CELL_BYTES
"""Each cell is a page of its own, so that only those that were used take memory."""
SIZE = _CELLS_AT + CELLS * CELL_BYTES


@dataclass(frozen=True, slots=True)
class Flown:
    """A request that the model was computing, or that waited for it; its body is empty where it was not kept."""

    slot: int
    service: str
    request_id: str
    body: bytes


@dataclass(frozen=True)
class Left:
    """What a worker that is gone has left undone."""

    owed: dict[int, int]
    """How many answers each of its connections is owed, by slot."""
    cut: frozenset[int]
    """Those on which an answer may have left in part, or unnoticed."""
    computing: list[Flown]
    waiting: dict[int, Flown]
    """By slot, what had not begun."""


class InFlight(Protocol):
    """What the recorder keeps of a request; `modelport.serving.batching.Work` has it."""

    slot: int
    service: str
    request_id: str
    body: bytes


def next_slot(slot: int) -> int:
    """The slot of the next connection in the same place."""
    return (slot + SLOTS) % _MOST_SLOT


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
        self._owed = memoryview(self._memory)[_OWED_AT:_FLIGHT_AT].cast("H")
        self._cells: dict[int, int] = {}
        """Where the worker keeps what waits, by slot."""
        self._free: list[int] = []
        self._used = 0

    def close(self) -> None:
        self._owed.release()
        self._memory.close()

    # The worker writes

    def owed(self, slot: int, change: int) -> None:
        """+1: a request has begun to arrive on the connection; -1: it is counted otherwise from now on."""
        at = slot & _PLACES
        self._owed[at] = max(0, self._owed[at] + change)

    def sending(self, slot: int) -> None:
        """From now on an answer may have left, and that in part."""
        self._owed[slot & _PLACES] |= _SENDING

    def sent(self, slot: int, whole: bool) -> None:
        """An answer was written: all of it has left, or, if it is not `whole`, some may be cut off yet."""
        at = slot & _PLACES
        owed = self._owed[at] & _COUNT
        if owed:
            owed -= 1
        self._owed[at] = owed if whole else owed | _SENDING
        if self._cells:
            self._forget(slot)

    def flushed(self, slot: int) -> None:
        """What was not sent yet is."""
        self._owed[slot & _PLACES] &= _COUNT

    def clear(self, slot: int) -> None:
        """The connection is closed, and its slot free."""
        self._owed[slot & _PLACES] = 0
        self._forget(slot)

    def write(self, field: str, value: int) -> None:
        _FIELD.pack_into(self._memory, 8 * _FIELDS.index(field), value)

    def begin(self, works: Sequence[InFlight], deadline_s: float) -> None:
        """The model is about to be called with `works`, to be over by `deadline_s` (CLOCK_MONOTONIC)."""
        at = _FLIGHT_AT
        end = _FLIGHT_AT + FLIGHT_BYTES
        for work in works:
            if work.slot < 0:
                continue
            record = _record(work, work.body if len(work.body) <= MAX_BODY else b"")
            length = len(record)
            if at + length > end:
                break
            self._memory[at : at + length] = record
            at += length
        _FIELD.pack_into(self._memory, 32, at - _FLIGHT_AT)
        _FIELD.pack_into(self._memory, 16, int(deadline_s * 1e9))
        if self._cells:
            for work in works:
                self._forget(work.slot)

    def end(self) -> None:
        """The call is over."""
        _FIELD.pack_into(self._memory, 16, 0)
        _FIELD.pack_into(self._memory, 32, 0)

    def wait(self, work: InFlight) -> None:
        """A request has to wait for a call to begin. Of a connection only one is kept, for only that could be asked elsewhere."""
        if work.slot < 0 or not work.body or work.slot in self._cells:
            return
        record = _record(work, work.body)
        if len(record) > CELL_BYTES or not (self._free or self._used < CELLS):
            return
        if self._free:
            cell = self._free.pop()
        else:
            cell = self._used
            self._used += 1
            self.write("waiting_cells", self._used)
        self._cells[work.slot] = cell
        at = _CELLS_AT + cell * CELL_BYTES
        self._memory[at + _PLACE.size : at + len(record)] = record[_PLACE.size :]
        self._memory[at : at + _PLACE.size] = record[: _PLACE.size]

    def _forget(self, slot: int) -> None:
        """What waited on the connection does not any more. On the loop's thread, or on that of a call that begins."""
        cell = self._cells.pop(slot, None)
        if cell is not None:
            _PLACE.pack_into(self._memory, _CELLS_AT + cell * CELL_BYTES, 0)
            self._free.append(cell)

    # The supervisor reads

    def read(self, field: str) -> int:
        value: int = _FIELD.unpack_from(self._memory, 8 * _FIELDS.index(field))[0]
        return value

    def left(self, slots: Iterable[int]) -> Left:
        """What the worker owes on these connections, and had before it: all of it is true only once the worker is gone."""
        owed = {slot: self._owed[slot & _PLACES] for slot in slots}
        computing = []
        at, end = _FLIGHT_AT, _FLIGHT_AT + max(0, min(self.read("flight_bytes"), FLIGHT_BYTES))
        while (found := self._read_record(at, end)) is not None:
            computing.append(found[0])
            at = found[1]
        waiting = {}
        for cell in range(max(0, min(self.read("waiting_cells"), CELLS))):
            at = _CELLS_AT + cell * CELL_BYTES
            if (found := self._read_record(at, at + CELL_BYTES)) is not None:
                waiting[found[0].slot] = found[0]
        cut = frozenset(slot for slot, value in owed.items() if value & _SENDING)
        return Left({slot: value & _COUNT for slot, value in owed.items()}, cut, computing, waiting)

    def _read_record(self, at: int, end: int) -> tuple[Flown, int] | None:
        """The record there, and where it ends; None where there is none that makes sense."""
        if at + _RECORD.size > end:
            return None
        place, service, request_id, body = _RECORD.unpack_from(self._memory, at)
        text = at + _RECORD.size
        stop = text + service + request_id + body
        if stop > end or not 0 < place <= _MOST_SLOT:
            return None
        name, asked = self._memory[text : text + service], self._memory[text + service : stop - body]
        flown = Flown(place - 1, name.decode(errors="replace"), asked.decode(errors="replace"), self._memory[stop - body : stop])
        return flown, stop


def _record(work: InFlight, body: bytes) -> bytes:
    service, request_id = work.service.encode(), work.request_id.encode()
    return _RECORD.pack(work.slot + 1, len(service), len(request_id), len(body)) + service + request_id + body


def now_ns() -> int:
    """The clock of the board."""
    return time.monotonic_ns()
