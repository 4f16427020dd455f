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
    assert (supervisor.read("memory_bytes"), supervisor.read("pulse_ns"), supervisor.read("flight_bytes")) == (7, 0, 0)


def test_answers_owed_are_counted_for_each_connection(sides: tuple[Board, Board]) -> None:
    worker, supervisor = sides
    for change in (1, 1, -1):
        worker.owed(5, change)
    worker.owed(boards.SLOTS - 1, 1)
    assert supervisor.left([4, 5, boards.SLOTS - 1]).owed == {4: 0, 5: 1, boards.SLOTS - 1: 1}
    worker.clear(5)
    assert supervisor.left([5]).owed == {5: 0}
    worker.owed(5, -1)
    assert supervisor.left([5]).owed == {5: 0}


def test_an_answer_may_be_cut_off_from_before_it_is_written_until_all_of_it_has_left(sides: tuple[Board, Board]) -> None:
    worker, supervisor = sides

    def seen() -> tuple[int, bool]:
        left = supervisor.left([5])
        return left.owed[5], 5 in left.cut

    worker.owed(5, 2)
    worker.sending(5)
    assert seen() == (2, True)
    worker.sent(5, whole=True)
    assert seen() == (1, False)
    worker.sending(5)
    worker.sent(5, whole=False)
    assert seen() == (0, True)
    worker.flushed(5)
    assert seen() == (0, False)
    worker.sending(5)
    worker.clear(5)
    assert seen() == (0, False)


def test_what_waits_is_kept_until_its_call_begins_or_it_has_another_answer(sides: tuple[Board, Board]) -> None:
    worker, supervisor = sides
    works = [Request(slot, request_id=f"number {slot}") for slot in range(4)]
    for work in works:
        worker.wait(work)
    assert supervisor.left([]).waiting == {slot: Flown(slot, "iris", f"number {slot}", b"{}") for slot in range(4)}
    worker.begin(works[:1], 1.0)
    worker.sent(1, whole=True)
    worker.clear(2)
    assert set(supervisor.left([]).waiting) == {3}
    worker.end()
    worker.wait(Request(5))
    assert set(supervisor.left([]).waiting) == {3, 5}
    assert supervisor.read("waiting_cells") == 4, "cells are used again"


def test_what_waits_and_cannot_be_asked_elsewhere_is_not_kept(sides: tuple[Board, Board]) -> None:
    """Bodies that are no JSON of Modelport's own or too long, callers without a slot, the second of a connection, and one too many."""
    worker, supervisor = sides
    for work in (Request(1, body=b""), Request(2, body=b"x" * boards.CELL_BYTES), Request(-1), Request(3), Request(3, request_id="two")):
        worker.wait(work)
    assert supervisor.left([]).waiting == {3: Flown(3, "iris", "one", b"{}")}
    for slot in range(4, boards.CELLS + 4):
        worker.wait(Request(slot))
    assert len(supervisor.left([]).waiting) == boards.CELLS


def test_the_next_caller_in_the_same_place_is_another(sides: tuple[Board, Board]) -> None:
    """Who left while it was computed, or waited, is not taken for who came after."""
    worker, supervisor = sides
    worker.begin([Request(3)], 1.0)
    worker.wait(Request(4))
    worker.clear(4)
    after = boards.next_slot(3)
    worker.owed(after, 1)
    left = supervisor.left([after])
    assert (left.owed, [flown.slot for flown in left.computing], left.waiting) == ({after: 1}, [3], {})
    slot = 3
    for _ in range(1 << 15):
        slot = boards.next_slot(slot)
    assert slot == 3


def test_the_requests_of_a_call_are_there_until_it_is_over(sides: tuple[Board, Board]) -> None:
    worker, supervisor = sides
    worker.begin([Request(), Request(4, "näme", "two", b"[1]")], 12.5)
    assert supervisor.left([]).computing == [Flown(3, "iris", "one", b"{}"), Flown(4, "näme", "two", b"[1]")]
    assert supervisor.read("deadline_ns") == 12_500_000_000
    worker.end()
    assert (supervisor.left([]).computing, supervisor.read("deadline_ns")) == ([], 0)


def test_a_body_that_is_too_large_is_not_kept(sides: tuple[Board, Board]) -> None:
    worker, supervisor = sides
    worker.begin([Request(body=b""), Request(body=b"x" * (MAX_BODY + 1)), Request(slot=-1), Request(9)], 1.0)
    assert [(flown.slot, flown.body) for flown in supervisor.left([]).computing] == [(3, b""), (3, b""), (9, b"{}")]


def test_a_full_recorder_keeps_what_fits(sides: tuple[Board, Board]) -> None:
    worker, supervisor = sides
    worker.begin([Request(slot, body=b"x" * MAX_BODY) for slot in range(100)], 1.0)
    assert [flown.slot for flown in supervisor.left([]).computing] == list(range(boards.FLIGHT_BYTES // (MAX_BODY + 64)))


def test_a_record_that_makes_no_sense_ends_the_reading(sides: tuple[Board, Board]) -> None:
    worker, supervisor = sides
    worker.begin([Request()], 1.0)
    worker.write("flight_bytes", 15)
    assert supervisor.left([]).computing == []
    worker.write("flight_bytes", -5)
    assert supervisor.left([]).computing == []
