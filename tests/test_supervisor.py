"""What the supervisor decides, without processes; tests/e2e/test_faults.py has them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, cast

import pytest

from modelport.errors import DeadlineExceeded, ModelportError, UsageError
from modelport.serving import responder
from modelport.serving.board import Flown, Left
from modelport.serving.connections import Fate, fates
from modelport.serving.control import Begin, Channel, Failed, Model, Take, ToSupervisor, ToWorker, pair
from modelport.serving.settings import Settings
from modelport.serving.workers import Connection, Worker, ending, fewest, fitting, is_hung, is_worn, pause_s, surplus, why_gone

S = 1_000_000_000


def worker(name: str, connections: int, turn: int) -> Worker:
    nothing = cast("Any", None)
    held = {slot: Connection(slot, nothing) for slot in range(connections)}
    return Worker(nothing, nothing, nothing, -1, 0.0, 1, killed_for=name, connections=held, turn=turn)


def test_a_connection_goes_to_the_worker_with_the_fewest_and_then_to_who_waited_longest() -> None:
    workers = [worker("a", 2, 1), worker("b", 1, 9), worker("c", 1, 3)]
    assert [one.killed_for for one in fewest(workers)] == ["c", "b", "a"]


def test_each_early_death_makes_the_next_start_later() -> None:
    assert [pause_s(deaths) for deaths in range(9)] == [0, 0, 1, 2, 4, 8, 16, 30, 30]


def test_a_model_that_always_dies_at_load_is_started_less_than_ten_times_a_minute() -> None:
    starts, at, deaths = 0, 0.0, 0
    while at < 60:
        starts, deaths = starts + 1, deaths + 1
        at += pause_s(deaths)
    assert starts < 10


@pytest.mark.parametrize(
    ("heartbeat_s", "deadline_s", "hung"),
    [
        (100, 0, False),  # idle
        (100, 99.9, False),  # just late: its own 504 comes
        (100, 99, True),  # late, though the loop turns
        (99, 101, False),  # the lock is held, and there is time yet
        (70.5, 0, False),  # silent, but not for longer than an answer may take
        (60, 0, True),  # stopped
    ],
)
def test_a_worker_hangs_when_its_call_is_late_or_its_loop_silent_for_long(heartbeat_s: float, deadline_s: float, hung: bool) -> None:
    assert is_hung(int(heartbeat_s * S), int(deadline_s * S), 100 * S, timeout_s=30) is hung


def flown(slot: int, body: bytes = b"{}") -> Flown:
    return Flown(slot, "iris", "id", body)


def left(owed: dict[int, int], computing: Sequence[Flown] = (), waiting: Sequence[int] = (), cut: Sequence[int] = ()) -> Left:
    return Left(owed, frozenset(cut), list(computing), {slot: flown(slot) for slot in waiting})


def test_connections_that_are_owed_nothing_move_and_the_others_get_an_error() -> None:
    assert fates(left({1: 0, 2: 1, 3: 2}, [flown(3)]), "hang") == {1: Fate.MOVES, 2: Fate.UNAVAILABLE, 3: Fate.LATE}
    assert fates(left({1: 0, 2: 1}, [flown(2)], [3]), "stop") == {1: Fate.MOVES, 2: Fate.UNAVAILABLE}


@pytest.mark.parametrize("reason", ["hang", "crash", "killed", "oom"])
def test_what_waited_is_asked_elsewhere_unless_more_is_owed_on_its_connection(reason: str) -> None:
    decided = fates(left({1: 1, 2: 2, 3: 1, 4: 0, 5: 1}, [flown(5)], [1, 2, 4, 5]), reason)
    assert [decided[slot] for slot in (1, 2, 3, 4)] == [Fate.WAITED, Fate.UNAVAILABLE, Fate.UNAVAILABLE, Fate.MOVES]
    assert decided[5] is not Fate.WAITED, "its call had begun"


def test_whoever_may_have_a_part_of_an_answer_gets_nothing_more() -> None:
    for reason in ("hang", "crash", "killed", "stop"):
        assert fates(left({1: 0, 2: 1, 3: 1}, [flown(2)], [3], cut=[1, 2, 3]), reason) == dict.fromkeys((1, 2, 3), Fate.CUT)


def test_what_was_alone_in_the_call_that_ended_the_process_is_the_culprit() -> None:
    assert fates(left({1: 1, 2: 1}, [flown(1)]), "crash") == {1: Fate.CULPRIT, 2: Fate.UNAVAILABLE}


def test_of_several_each_is_suspected_but_for_what_cannot_be_asked_again() -> None:
    computing = [flown(1), flown(2, b""), flown(3), flown(3), flown(4)]
    wanted = {1: Fate.SUSPECT, 2: Fate.UNAVAILABLE, 3: Fate.UNAVAILABLE, 4: Fate.UNAVAILABLE}
    assert fates(left({1: 1, 2: 1, 3: 2, 4: 2}, computing), "crash") == wanted


def test_what_was_computed_when_memory_ran_out_is_condemned_only_if_it_does_so_alone_again() -> None:
    """Scenario 25: the memory may have been gone before it came."""
    assert fates(left({1: 1}, [flown(1)]), "oom") == {1: Fate.SUSPECT}
    assert fates(left({1: 1}, [flown(1)]), "oom", tested=True) == {1: Fate.CULPRIT}


def test_what_was_computed_by_a_worker_that_somebody_killed_is_asked_again() -> None:
    assert fates(left({1: 1, 2: 1}, [flown(1)]), "killed") == {1: Fate.AGAIN, 2: Fate.UNAVAILABLE}


def test_why_a_process_is_gone_is_told_by_how_it_ended() -> None:
    ends = [("hang", -9), ("", -9), ("", -11), ("", 3)]
    assert [why_gone(killed_for, code, no_memory=False) for killed_for, code in ends] == ["hang", "killed", "crash", "crash"]
    assert [why_gone(killed_for, code, no_memory=True) for killed_for, code in ends] == ["hang", "oom", "crash", "crash"]


def test_no_more_workers_are_started_than_fit_into_the_memory() -> None:
    assert fitting(8, None, 50, 200) == 8
    assert fitting(8, 1000, 50, 200) == 4
    assert fitting(8, 100, 50, 200) == 1
    assert fitting(2, 100_000, 50, 200) == 2


def test_a_worker_is_worn_when_it_has_grown_beyond_its_most() -> None:
    assert is_worn(500, 100, 400)
    assert not is_worn(500, 100, None)
    assert not is_worn(300, 100, 400)
    assert not is_worn(500, 450, 400)


def test_old_workers_go_as_new_ones_come() -> None:
    assert [surplus(new, 3, 3) for new in (0, 1, 2, 3)] == [0, 1, 2, 3]
    assert surplus(1, 1, 2) == 0
    assert surplus(2, 5, 2) == 5


def test_how_a_process_ended_is_said_in_words() -> None:
    assert [ending(3), ending(-9), ending(-300)] == ["it exited with code 3", "it was ended by SIGKILL", "it was ended by signal 300"]
    assert ending(-9, "oom") == "it was ended by SIGKILL, as there was no memory left"
    assert ending(-9, "hang") == "it was stopped because it hung"


def test_what_a_worker_tells_is_the_error_it_had() -> None:
    error = Failed.of(UsageError("two of the models have one name", hint="pack")).error()
    assert (type(error), error.message, error.hint) == (UsageError, "two of the models have one name", "pack")
    assert type(Failed("unheard-of", "", "").error()) is ModelportError


def test_messages_and_descriptors_arrive_as_they_were_sent() -> None:
    ours, theirs = pair()
    supervisor: Channel[ToWorker, ToSupervisor] = Channel(ours, ToSupervisor)
    process: Channel[ToSupervisor, ToWorker] = Channel(theirs, ToWorker)
    begin = Begin([Model("iris", "3", "/bundles/iris", "sha256:0")], Settings(keys=frozenset({"00" * 32}), cors=("*",)), [])
    assert supervisor.send(begin)
    assert supervisor.send(Take(7), [0])
    assert process.receive() == (begin, [])
    received = process.receive()
    assert received is not None
    message, descriptors = received
    assert (message, len(descriptors)) == (Take(7), 1)
    os.close(descriptors[0])
    process.close()
    assert supervisor.receive() is None
    assert not supervisor.send(Take(8))
    supervisor.close()


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n", ("GET", "/livez")),
        (b"POST /predict?x=1 HTTP/1.1\r\n", ("POST", "/predict")),
        (b"GET /li", None),
        (b"nonsense\r\n", ("", "")),
        (b"x" * 40_000, ("", "")),
    ],
)
def test_a_request_line_is_read_when_it_is_there(head: bytes, said: tuple[str, str] | None) -> None:
    assert responder.asked(head) == said


def test_without_workers_only_liveness_is_well() -> None:
    settings = Settings()
    alive = responder.answer("GET", "/livez", "loading", settings)
    assert alive.startswith(b"HTTP/1.1 200 OK\r\n")
    assert alive.endswith(b'\r\n\r\n{"status":"alive"}')
    ready = responder.answer("GET", "/readyz", "loading", settings)
    assert ready.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"retry-after: 1\r\n" in ready
    assert b"connection: close\r\n" in ready
    assert b'"detail":"loading"' in ready
    assert responder.answer("HEAD", "/livez", "", settings).endswith(b"\r\n\r\n")


def test_an_error_has_the_form_that_the_path_s_protocol_has() -> None:
    late = DeadlineExceeded("the model did not answer within 1 s")
    assert b'"type":"urn:modelport:deadline-exceeded"' in responder.refusal(late, Settings(), path="/predict")
    assert b'{"error":"' in responder.refusal(late, Settings(), path="/v2/models/iris/infer")
