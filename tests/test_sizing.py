"""How many workers and threads a service has, by numbers that stand for measurements; tests/e2e/test_workers.py measures."""

from __future__ import annotations

import pytest

from modelport.frameworks import threads_in
from modelport.serving.sizing import HEAVY_S, Size, Stated, arithmetic


@pytest.mark.parametrize(
    ("cores", "workers", "threads", "first"),
    [
        (4, None, None, Size(4, 1)),
        (1, None, None, Size(1, 1)),
        (4, 2, None, Size(2, 1)),
        (4, None, 2, Size(2, 2)),
        (2, None, 8, Size(1, 8)),
        (4, 3, 5, Size(3, 5)),
    ],
)
def test_a_service_begins_with_a_worker_for_each_core_that_the_stated_threads_leave(
    cores: int, workers: int | None, threads: int | None, first: Size
) -> None:
    assert Stated(cores, workers, threads).first == first


@pytest.mark.parametrize(
    ("stated", "row_s", "threads"),
    [
        (Stated(4, None, None), HEAVY_S, 4),
        (Stated(4, 2, None), HEAVY_S, 2),
        (Stated(4, 1, None), HEAVY_S, 4),
        (Stated(4, None, None), HEAVY_S / 2, 0),
        (Stated(4, None, None), 0.0, 0),
        (Stated(1, None, None), 1.0, 0),
        (Stated(4, 4, None), 1.0, 0),
        (Stated(4, None, 1), 1.0, 0),
    ],
)
def test_only_of_a_heavy_model_more_threads_are_tried_and_only_where_nobody_states_them(stated: Stated, row_s: float, threads: int) -> None:
    assert stated.trial(row_s) == threads


@pytest.mark.parametrize(
    ("cores", "speedup", "size"),
    [
        (2, 1.0, Size(2, 1)),
        (2, 0.5, Size(2, 1)),
        (2, 1.5, Size(2, 1)),
        (2, 1.6, Size(1, 2)),
        (2, 2.0, Size(1, 2)),
        (2, 2.3, Size(1, 2)),  # its caches are larger
        (4, 3.3, Size(1, 4)),
        (4, 2.5, Size(2, 2)),  # a fifth is serial: two threads are 1.67 times as fast
        (4, 1.2, Size(4, 1)),
        (6, 4.0, Size(2, 3)),  # a tenth is serial: three threads are 2.5 times as fast, and four would leave two cores over
        (64, 20.0, Size(8, 8)),
    ],
)
def test_threads_are_as_many_as_put_their_cores_to_use(cores: int, speedup: float, size: Size) -> None:
    assert Stated(cores, None, None).sized(0.1, cores, 0.1 / speedup) == size


def test_stated_workers_have_threads_if_those_help_at_all() -> None:
    """Nobody else would use the cores."""
    assert Stated(4, 1, None).sized(0.1, 4, 0.08) == Size(1, 4)
    assert Stated(4, 2, None).sized(0.1, 2, 0.099) == Size(2, 1)


def test_the_arithmetic_is_said_in_a_line() -> None:
    two = Size(2, 1)
    assert arithmetic(two, 0.000081, 0, None, two) == "a row takes 0.081 ms with 1 thread: 2 workers of 1 thread"
    assert arithmetic(two, 0.0, 0, None, two) == "there is no example to measure: 2 workers of 1 thread"
    assert arithmetic(Size(1, 2), 0.1, 0, None, Size(1, 2)) == "a row takes 100 ms with 2 threads: 1 worker of 2 threads"
    faster = "a row takes 84 ms with 1 thread and 44 ms with 2, 1.9 times as fast: 1 worker of 2 threads"
    assert arithmetic(two, 0.084, 2, 0.044, Size(1, 2)) == faster
    failed = "a row takes 84 ms with 1 thread, and a worker with 2 did not get ready: 2 workers of 1 thread"
    assert arithmetic(two, 0.084, 2, None, two) == failed


@pytest.mark.parametrize(
    ("said", "threads"), [({}, None), ({"": ""}, None), ("4", 4), ("4,2", 4), (" 3 ", 3), ("0", None), ("auto", None), ("", None)]
)
def test_the_threads_of_an_environment_are_those_of_its_outermost_level(said: str | dict[str, str], threads: int | None) -> None:
    assert threads_in(said if isinstance(said, dict) else {"OMP_NUM_THREADS": said}) == threads
