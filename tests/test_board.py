"""The memory that a worker shares with the supervisor."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from modelport.serving import board as boards
from modelport.serving.board import MAX_BODY, Board, Flown


@dataclass
class Request:
    slot: int = 3
    service: str = "iris"
    request_id: str = "one"
    body: bytes = b"{}"


@pytest.fixture
def sides() -> Iterator[tuple[Board, Board]]:
    """The worker's view and the supervisor's."""
    descriptor = boards.create()
    worker, supervisor = Board(descriptor), Board(descriptor)
    os.close(descriptor)
    yield worker, supervisor
    worker.close()
    supervisor.close()


def test_what_one_side_writes_the_other_reads(sides: tuple[Board, Board]) -> None:
    worker, supervisor = sides
    worker.write("heartbeat_ns", 1 << 60)
    worker.write("memory_bytes", 7)
    assert supervisor.read("heartbeat_ns") == 1 << 60
    assert supervisor.view() == {"heartbeat_ns": 1 << 60, "pulse_ns": 0, "deadline_ns": 0, "memory_bytes": 7, "flight_bytes": 0}


def test_answers_owed_are_counted_for_each_connection(sides: tuple[Board, Board]) -> None:
    worker, supervisor = sides
    for change in (1, 1, -1):
        worker.owed(5, change)
    worker.owed(boards.SLOTS - 1, 1)
    assert [supervisor.owes(slot) for slot in (4, 5, boards.SLOTS - 1)] == [0, 1, 1]
    worker.clear(5)
    assert supervisor.owes(5) == 0


def test_a_count_stays_within_its_byte(sides: tuple[Board, Board]) -> None:
    worker, supervisor = sides
    worker.owed(1, -1)
    assert supervisor.owes(1) == 0
    for _ in range(300):
        worker.owed(1, 1)
    assert supervisor.owes(1) == 255


def test_a_connection_without_a_slot_is_not_counted(sides: tuple[Board, Board]) -> None:
    worker, supervisor = sides
    worker.owed(-1, 1)
    worker.clear(-1)
    assert supervisor.owes(boards.SLOTS - 1) == 0


def test_the_requests_of_a_call_are_there_until_it_is_over(sides: tuple[Board, Board]) -> None:
    worker, supervisor = sides
    worker.begin([Request(), Request(4, "näme", "two", b"[1]")], 12.5)
    assert supervisor.in_flight() == [Flown(3, "iris", "one", b"{}"), Flown(4, "näme", "two", b"[1]")]
    assert supervisor.read("deadline_ns") == 12_500_000_000
    worker.end()
    assert (supervisor.in_flight(), supervisor.read("deadline_ns")) == ([], 0)


def test_a_body_that_is_too_large_is_not_kept(sides: tuple[Board, Board]) -> None:
    worker, supervisor = sides
    worker.begin([Request(body=b""), Request(body=b"x" * (MAX_BODY + 1)), Request(slot=-1), Request(9)], 1.0)
    assert [(flown.slot, flown.body) for flown in supervisor.in_flight()] == [(3, b""), (3, b""), (9, b"{}")]


def test_a_full_recorder_keeps_what_fits(sides: tuple[Board, Board]) -> None:
    worker, supervisor = sides
    worker.begin([Request(slot, body=b"x" * MAX_BODY) for slot in range(100)], 1.0)
    assert [flown.slot for flown in supervisor.in_flight()] == list(range(boards.FLIGHT_BYTES // (MAX_BODY + 64)))


def test_a_record_that_makes_no_sense_ends_the_reading(sides: tuple[Board, Board]) -> None:
    worker, supervisor = sides
    worker.begin([Request()], 1.0)
    worker.write("flight_bytes", 15)
    assert supervisor.in_flight() == []
    worker.write("flight_bytes", -5)
    assert supervisor.in_flight() == []
