"""Requests that wait for one model: what shares a call, who waits for whom, and what happens to those that fail, leave or come too late.

The loop, the clock and the model's thread are made here: time passes only when a test or the model says so.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelport.errors import DeadlineExceeded, FieldError, InvalidInput, ModelContract, ModelFailed, Unavailable
from modelport.serving.batching import INLINE_SECONDS, Batcher, Pace, Work

SLOW = (0.001, 0.001)
"""Seconds of a call, and of a row in it: too long for the loop."""
FAST = (0.00001, 0.000001)


class Numbers(tuple[int, ...]):
    """The rows of a request: numbers, whose answers are themselves times ten."""

    @property
    def count(self) -> int:
        return len(self)

    def part(self, start: int, stop: int) -> Numbers:
        return Numbers(self[start:stop])


class Timer:
    def __init__(self, when: float, callback: Callable[..., object]) -> None:
        self.when, self.callback, self.cancelled = when, callback, False

    def cancel(self) -> None:
        self.cancelled = True


class World:
    """A loop, a clock, a thread and a model in one, which keeps the calls that were made."""

    def __init__(self, cost: tuple[float, float] = SLOW, *, raises: Callable[[int], Exception | None] = lambda value: None) -> None:
        self.now = 100.0
        self.cost, self.raises = cost, raises
        self.calls: list[list[Numbers]] = []
        self.places: list[str] = []
        self.unforeseen: list[dict[str, Any]] = []
        self.rests: list[tuple[threading.Event, bool]] = []
        """What the loop has waited for, and whether that had been then already."""
        self._soon: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._on_thread: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._timers: list[Timer] = []
        self._place = "loop"

    # The model

    def predict(self, parts: Sequence[Numbers]) -> list[int]:
        self.calls.append(list(parts))
        self.places.append(self._place)
        values = [value for part in parts for value in part]
        self.now += self.cost[0] + self.cost[1] * len(values)
        for value in values:
            error = self.raises(value)
            if error is not None:
                raise error
        return [value * 10 for value in values]

    @property
    def computed(self) -> list[int]:
        """Every value that reached the model, in order."""
        return [value for call in self.calls for part in call for value in part]

    # The loop

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[..., object], *args: Any) -> None:
        self._soon.append((callback, args))

    call_soon_threadsafe = call_soon

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> Timer:
        timer = Timer(when, lambda: callback(*args))
        self._timers.append(timer)
        return timer

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.unforeseen.append(context)

    def wait(self, over: threading.Event, most_s: float) -> None:
        self.rests.append((over, over.is_set()))

    # The thread

    def submit(self, work: Callable[..., object], *args: Any) -> None:
        self._on_thread.append((work, args))

    # What a test does

    def turn(self) -> None:
        """One turn of the loop: what is ready now, not what becomes ready by it."""
        for timer in [timer for timer in self._timers if timer.when <= self.now]:
            self._timers.remove(timer)
            if not timer.cancelled:
                timer.callback()
        for _ in range(len(self._soon)):
            callback, args = self._soon.popleft()
            callback(*args)

    def call(self) -> None:
        """The thread does one thing."""
        work, args = self._on_thread.popleft()
        self._place = "thread"
        work(*args)
        self._place = "loop"

    def settle(self) -> None:
        """Turn until nothing is left to do."""
        while self._soon or self._on_thread:
            self.turn()
            if self._on_thread:
                self.call()

    def batcher(self, *, pace: Pace | None = None, **about: Any) -> Batcher[Numbers, list[int]]:
        measured = Pace([(rows, self.cost[0] + self.cost[1] * rows) for rows in (1, 8, 64)])
        about = {"loop": self, "thread": self, "clock": lambda: self.now, "wait": self.wait} | about
        return Batcher(self.predict, pace=pace or measured, **about)


class Asked(Work[Numbers, list[int]]):
    """A request that keeps what it got."""

    __slots__ = ("answered", "answers", "error", "times", "world")

    def __init__(self, world: World, *values: int, caller: str = "one", within: float = 30.0) -> None:
        super().__init__(Numbers(values), world.time() + within, caller, Asked.take, arrived=world.time())
        self.world, self.answered = world, 0.0
        self.answers: list[int] | None = None
        self.error: Exception | None = None
        self.times = 0

    @staticmethod
    def take(work: Any, answers: list[int] | None, start: int, error: Exception | None) -> None:
        work.times += 1
        work.answered = work.world.time()
        work.error = error
        work.answers = None if answers is None else answers[start : start + work.rows.count]


class Seen:
    """An observer and a flight that keep what they are told."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, int]] = []
        self.sheds: list[str] = []
        self.flights: list[list[Numbers]] = []
        self.waits: list[Numbers] = []
        self.open = 0

    def batch(self, rows: int, requests: int, queue_s: float, predict_s: float) -> None:
        self.batches.append((rows, requests))

    def shed(self, reason: str) -> None:
        self.sheds.append(reason)

    def wait(self, work: Work[Any, Any]) -> None:
        assert work.is_waiting
        self.waits.append(work.rows)

    def begin(self, works: Sequence[Work[Any, Any]], deadline_s: float) -> None:
        assert deadline_s == min(work.deadline for work in works)
        self.flights.append([work.rows for work in works])
        self.open += 1

    def end(self) -> None:
        self.open -= 1


def ask(batcher: Batcher[Numbers, list[int]], *asked: Asked) -> None:
    for one in asked:
        batcher.submit(one)


# What shares a call


def test_what_arrives_in_one_turn_of_the_loop_makes_one_call() -> None:
    world = World()
    asked = [Asked(world, 1), Asked(world, 2, 3), Asked(world, 4)]
    ask(world.batcher(), *asked)
    assert world.calls == []
    world.settle()
    assert world.calls == [[(1,), (2, 3), (4,)]]
    assert [one.answers for one in asked] == [[10], [20, 30], [40]]


def test_an_idle_model_is_called_without_any_timer() -> None:
    world = World(FAST)
    one = Asked(world, 7)
    ask(world.batcher(), one)
    world.turn()
    assert one.answers == [70]
    assert world._timers == []


def test_what_arrives_while_the_model_is_busy_makes_the_next_call() -> None:
    world = World()
    batcher = world.batcher()
    ask(batcher, Asked(world, 1))
    world.turn()
    for value in (2, 3, 4):
        ask(batcher, Asked(world, value))
        world.turn()
    assert world.calls == []
    world.settle()
    assert world.calls == [[(1,)], [(2,), (3,), (4,)]]


def test_who_asks_again_as_soon_as_it_has_its_answer_is_in_the_next_call() -> None:
    """Callers that wait for their answers fall into step, and do not take turns in two halves."""
    world = World()
    batcher = world.batcher()
    ask(batcher, Asked(world, 1))
    world.turn()
    ask(batcher, Asked(world, 2))
    world.call()
    world.turn()
    assert batcher.busy
    ask(batcher, Asked(world, 3))
    world.settle()
    assert world.calls == [[(1,)], [(2,), (3,)]]
    assert not batcher.busy


@given(
    st.lists(st.tuples(st.integers(0, 3), st.lists(st.integers(), min_size=1, max_size=5), st.integers(0, 2)), max_size=30),
    st.sampled_from([SLOW, FAST, (0.0005, 0.01)]),
    st.sets(st.integers(), max_size=3),
)
def test_each_caller_gets_its_own_rows_in_order_and_once(
    requests: list[tuple[int, list[int], int]], cost: tuple[float, float], bad: set[int]
) -> None:
    world = World(cost, raises=lambda value: ValueError(value) if value in bad else None)
    batcher = world.batcher()
    asked = []
    for caller, values, turns in requests:
        asked.append(Asked(world, *values, caller=str(caller)))
        batcher.submit(asked[-1])
        for _ in range(turns):
            world.turn()
    world.settle()
    for one in asked:
        assert one.times == 1
        wrong = [index for index, value in enumerate(one.rows) if value in bad]
        if wrong:
            assert isinstance(one.error, ModelFailed)
            assert one.error.row == (wrong[0] if len(one.rows) > 1 else None)
        else:
            assert one.error is None
            assert one.answers == [value * 10 for value in one.rows]
    assert batcher.waiting == 0


# Where a call is made


def test_a_short_call_is_made_on_the_loop_and_a_long_one_on_the_models_thread() -> None:
    for cost, place in ((FAST, "loop"), (SLOW, "thread")):
        world = World(cost)
        ask(world.batcher(), Asked(world, 1))
        world.settle()
        assert world.places == [place]


def test_a_model_of_which_nothing_is_known_is_called_on_the_thread() -> None:
    world = World(FAST)
    ask(world.batcher(pace=Pace()), Asked(world, 1))
    world.settle()
    assert world.places == ["thread"]


def test_a_model_that_has_become_fast_again_comes_back_to_the_loop() -> None:
    world = World(FAST)
    batcher = world.batcher(pace=Pace([(1, 2 * INLINE_SECONDS)]))
    for _ in range(60):
        ask(batcher, Asked(world, 1))
        world.settle()
    assert world.places[0] == "thread"
    assert world.places[-1] == "loop"


def test_the_loop_turns_while_a_long_call_is_made() -> None:
    """With a real loop and a real thread: the model waits for something that only the loop does."""
    turned = threading.Event()

    def predict(parts: Sequence[Numbers]) -> list[int]:
        assert turned.wait(30)
        return [value for part in parts for value in part]

    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        batcher: Batcher[Numbers, list[int]] = Batcher(predict, loop=loop, pace=Pace([(1, 1.0)]))
        answered: asyncio.Future[list[int]] = loop.create_future()
        batcher.submit(Work(Numbers((5,)), loop.time() + 30, "one", lambda work, answers, start, error: answered.set_result(answers or [])))
        loop.call_soon(lambda: loop.call_soon(turned.set))
        return await answered

    assert asyncio.run(main()) == [5]


# How large a call is


def test_a_call_grows_only_as_long_as_that_pays() -> None:
    """Rows that cost ten times a call are not worth gathering: the others would wait for nothing."""
    world = World((0.001, 0.01))
    ask(world.batcher(), *(Asked(world, value) for value in range(3)))
    world.settle()
    assert world.calls == [[(0,)], [(1,)], [(2,)]]


def test_a_call_takes_at_most_half_of_what_is_left_to_the_most_urgent() -> None:
    world = World((0.01, 0.001))
    batcher = world.batcher()
    ask(batcher, *(Asked(world, value, within=0.06) for value in range(40)))
    world.settle()
    assert len(world.calls[0]) == 20


def test_a_request_larger_than_any_call_should_be_is_made_alone() -> None:
    world = World((0.001, 0.001))
    large = Asked(world, *range(1000))
    ask(world.batcher(), Asked(world, -1), large, Asked(world, -2))
    world.settle()
    assert [[len(part) for part in call] for call in world.calls] == [[1], [1000], [1]]
    assert large.answers == [value * 10 for value in range(1000)]


# Taking turns


def test_callers_take_turns_when_more_waits_than_fits() -> None:
    world = World((0.001, 0.004))
    batcher = world.batcher()
    flood = [Asked(world, value, caller="flood") for value in range(50)]
    ask(batcher, *flood)
    quiet = Asked(world, 1000, caller="quiet")
    ask(batcher, quiet)
    world.settle()
    assert any((1000,) in call for call in world.calls[:2])
    assert all(one.answers is not None for one in flood)


def test_a_flood_does_not_keep_others_from_being_taken() -> None:
    """The flooding caller is refused when its own line is too long for the deadline; another's line is short."""
    world = World((0.0, 0.1))
    batcher = world.batcher()
    ask(batcher, Asked(world, 0, caller="flood", within=2))
    world.turn()
    refused = 0
    for value in range(1, 100):
        try:
            batcher.submit(Asked(world, value, caller="flood", within=2))
        except Unavailable:
            refused += 1
    assert refused > 70
    quiet = Asked(world, 1000, caller="quiet", within=2)
    batcher.submit(quiet)
    world.settle()
    assert quiet.answers == [10000]


# Refusing


def test_what_cannot_be_answered_in_time_is_refused_at_once_with_the_seconds_to_wait() -> None:
    world = World((0.0, 1.0))
    seen = Seen()
    batcher = world.batcher(observer=seen)
    ask(batcher, Asked(world, 1))
    world.turn()
    ask(batcher, *(Asked(world, value) for value in range(5)))
    with pytest.raises(Unavailable) as refused:
        batcher.submit(Asked(world, 6, within=3.0))
    assert refused.value.retry_after_s == 6  # one second of the running call, six of rows, and 2.4 would have been surely in time
    assert seen.sheds == ["wait"]
    world.settle()
    assert 6 not in world.computed


def test_callers_with_less_patience_than_the_service_allows_are_known_by_their_leaving() -> None:
    """They wait a second where 30 are allowed: in a line as long as that, whoever has its turn is about to leave."""
    flood = Flood(0.0005, lambda value: 0.005, expected_s=0.005, within=30.0, patience_s=1.0)
    flood.last(20.0)
    answered = [one.answered for one in flood.taken if one.answers is not None and one.answered < one.arrived + 1.0]
    assert len(answered) > 0.9 * 20.0 / 0.005
    assert len([at for at in answered if at > flood.now - 15.0]) > 0.99 * 15.0 / 0.005


def test_one_caller_who_leaves_says_nothing_of_the_others() -> None:
    world, seen = World((0.0, 0.1)), Seen()
    batcher = world.batcher(observer=seen)
    ask(batcher, Asked(world, 0))
    world.turn()
    waiting = [Asked(world, value) for value in range(1, 10)]
    ask(batcher, *waiting)
    waiting[0].cancel()
    world.call()
    world.turn()
    world.turn()
    assert seen.sheds == ["left"]
    waiting.append(Asked(world, 10))
    ask(batcher, waiting[-1])
    world.settle()
    assert [one.answers is not None for one in waiting] == [False] + 9 * [True]


def test_a_connection_that_ends_with_many_requests_is_one_that_left() -> None:
    """Whoever sends one behind the other and goes says no more of the others than who had sent one."""
    world, seen = World((0.0, 0.1)), Seen()
    batcher = world.batcher(observer=seen)
    ask(batcher, Asked(world, 0))
    world.turn()
    left, stayed = [Asked(world, value) for value in range(1, 6)], [Asked(world, value) for value in range(6, 9)]
    for one in left:
        one.slot = 7
    ask(batcher, *left, *stayed)
    for one in left:
        one.cancel()
    world.call()
    world.turn()
    world.turn()
    assert seen.sheds == 5 * ["left"]
    stayed.append(Asked(world, 9))
    ask(batcher, stayed[-1])
    world.settle()
    assert [one.answers for one in stayed] == [[60], [70], [80], [90]]


def test_the_patience_of_callers_is_how_long_the_first_of_those_that_stayed_has_waited() -> None:
    """Also where its connection has sent more since."""
    world = World(SLOW)
    batcher = world.batcher()
    ask(batcher, Asked(world, 0))
    world.turn()
    left, first = [Asked(world, 1), Asked(world, 2)], Asked(world, 3)
    ask(batcher, *left, first)
    world.now += 1.0
    later, large = Asked(world, 4), Asked(world, *range(50))
    first.slot = later.slot = 7
    ask(batcher, later, large)
    for one in left:
        one.cancel()
    world.call()
    world.turn()
    world.turn()
    with pytest.raises(Unavailable, match=r"most of your requests are given up after 1 s"):
        batcher.submit(Asked(world, *range(1000)))


def test_once_it_has_refused_the_loop_rests_until_the_call_ends() -> None:
    """Once for all that it refused in one turn."""
    world = World((0.0, 1.0))
    batcher = world.batcher()
    for number in (1, 2):
        ask(batcher, Asked(world, number))
        world.turn()
        for _ in range(3):
            with pytest.raises(Unavailable):
                batcher.submit(Asked(world, 9, within=0.5))
        assert len(world.rests) == number - 1
        world.turn()
        over, was_over = world.rests[-1]
        assert len(world.rests) == number
        assert not was_over
        assert not over.is_set()
        world.call()
        assert over.is_set()
        world.settle()
    assert len(world.rests) == 2


def test_the_loop_does_not_rest_for_a_call_that_has_ended() -> None:
    world = World((0.0, 1.0))
    batcher = world.batcher()
    ask(batcher, Asked(world, 1), Asked(world, 2))
    world.turn()
    with pytest.raises(Unavailable):
        batcher.submit(Asked(world, 9, within=0.5))
    world.call()
    world.turn()  # the rest comes before the end of the call, of which the thread has told
    assert [was_over for _, was_over in world.rests] == [True]
    assert batcher.busy
    with pytest.raises(Unavailable):  # while the next call has not begun
        batcher.submit(Asked(world, 9, within=0.5))
    world.settle()
    assert len(world.rests) == 1
    assert world.computed == [1, 2]


def test_a_line_that_does_not_empty_gets_shorter() -> None:
    """A burst may fill it; but what comes all the time gains nothing by waiting long."""
    flood = Flood(0.0005, lambda value: 0.005, expected_s=0.005)
    flood.last(5.0)
    waits = [one.answered - (one.deadline - 0.9) for one in flood.taken]
    assert max(waits[:200]) > 0.7
    assert max(waits[-200:]) < 0.4


def test_an_idle_model_is_tried_however_slow_it_is_said_to_be() -> None:
    """A pace that is wrong must not shut the service for ever."""
    world = World(FAST)
    batcher = world.batcher(pace=Pace([(1, 1000.0)]))
    one = Asked(world, 1)
    batcher.submit(one)
    world.settle()
    assert one.answers == [10]


def test_no_more_wait_than_the_limit() -> None:
    world = World()
    batcher = world.batcher(max_waiting=3)
    ask(batcher, Asked(world, 0))
    world.turn()
    ask(batcher, *(Asked(world, value) for value in range(3)))
    with pytest.raises(Unavailable, match="3 requests wait"):
        batcher.submit(Asked(world, 9))
    world.settle()
    ask(batcher, Asked(world, 9))


class Flood(World):
    """A world in which a request comes every so often, also while the model computes, and each row costs what it says."""

    def __init__(
        self, every_s: float, cost_s: Callable[[int], float], *, expected_s: float, within: float = 0.9, patience_s: float = 99.0
    ) -> None:
        super().__init__()
        self.every_s, self.cost_s, self.within, self.patience_s = every_s, cost_s, within, patience_s
        self.staying: deque[Asked] = deque()
        self.coming_s, self.number = self.now, 0
        self.taken: list[Asked] = []
        self.refused = 0
        self.busy_s = 0.0
        self.flooded = self.batcher(timeout_s=within, pace=Pace([(rows, expected_s * rows) for rows in (1, 8, 64)]))

    def predict(self, parts: Sequence[Numbers]) -> list[int]:
        self.calls.append(list(parts))
        values = [value for part in parts for value in part]
        seconds = sum(map(self.cost_s, values))
        self.busy_s += seconds
        self.come(self.now + seconds)
        return values

    def come(self, until: float) -> None:
        """Time passes, and requests come."""
        while self.coming_s <= until:
            self.now = max(self.now, self.coming_s)
            self.coming_s += self.every_s
            while self.staying and self.now > self.staying[0].arrived + self.patience_s:
                self.staying.popleft().cancel()
            self.number += 1
            one = Asked(self, self.number, within=self.within)
            try:
                self.flooded.submit(one)
            except Unavailable:
                self.refused += 1
            else:
                self.taken.append(one)
                self.staying.append(one)
        self.now = until

    def last(self, seconds: float) -> float:
        """Let it go on for so long; the part of that in which the model computed what was answered in time."""
        end = self.now + seconds
        self.come(self.now)
        while self.now < end:
            self.turn()
            if self._on_thread:
                self.call()
            elif not self._soon:
                self.come(self.coming_s)
        self.settle_without_more()
        return sum(self.cost_s(one.rows[0]) for one in self.taken if one.answers is not None) / self.busy_s

    def settle_without_more(self) -> None:
        self.coming_s = float("inf")
        self.settle()


def _uneven(value: int) -> float:
    """Mostly 2 ms, and every tenth 32 ms."""
    return 0.032 if value % 10 == 0 else 0.002


@pytest.mark.parametrize(
    ("cost_s", "expected_s", "most_late"),
    [
        (lambda value: 0.005, 0.005, 0),
        (lambda value: 0.005, 0.00005, 0),  # rows cost a hundred times what the example did
        (lambda value: 0.005, 0.5, 0),  # and a hundredth
        (_uneven, 0.005, 5),
        (lambda value: 0.002 if value < 20_000 else 0.006, 0.002, 40),  # it becomes slower
    ],
    ids=["as expected", "slower than expected", "faster than expected", "uneven", "becoming slower"],
)
def test_ten_times_too_much_leaves_nearly_all_the_time_for_what_is_in_time(
    cost_s: Callable[[int], float], expected_s: float, most_late: int
) -> None:
    """And nearly all that was taken is answered: the rest was refused when it came."""
    flood = Flood(0.0005, cost_s, expected_s=expected_s)
    assert flood.last(20.0) > 0.99
    assert flood.busy_s > 19.9
    late = [one for one in flood.taken if one.answers is None]
    assert len(late) <= most_late
    assert len(flood.taken) + flood.refused == flood.number
    assert all(one.times == 1 for one in flood.taken)


# Deadlines and those who left


def test_expired_work_is_never_computed() -> None:
    world = World()
    seen = Seen()
    batcher = world.batcher(observer=seen)
    ask(batcher, Asked(world, 1))
    world.turn()
    late, in_time = Asked(world, 2, within=1.0), Asked(world, 3, within=100.0)
    ask(batcher, late, in_time)
    world.now += 2.0
    world.settle()
    assert isinstance(late.error, DeadlineExceeded)
    assert in_time.answers == [30]
    assert world.computed == [1, 3]
    assert seen.sheds == ["expired"]


def test_what_cannot_be_in_time_any_more_gives_way_to_what_can() -> None:
    """A row takes a second: who has half of one left would be computed for nothing."""
    world = World((0.0, 1.0))
    batcher = world.batcher()
    ask(batcher, Asked(world, 1))
    world.turn()
    doomed, in_time = Asked(world, 2, within=20.0), Asked(world, 3, within=100.0)
    ask(batcher, doomed, in_time)
    world.now += 18.6
    world.settle()
    assert isinstance(doomed.error, DeadlineExceeded)
    assert in_time.answers == [30]
    assert world.computed == [1, 3]


def test_what_seems_too_late_is_tried_where_nothing_else_waits() -> None:
    """It may be the pace that is wrong."""
    world = World((0.0, 1.0))
    batcher = world.batcher()
    ask(batcher, Asked(world, 1))
    world.turn()
    hopeless = Asked(world, 2, within=20.0)
    ask(batcher, hopeless)
    world.now += 18.6
    world.cost = (0.0, 0.1)
    world.settle()
    assert hopeless.answers == [20]


def test_callers_of_a_stuck_model_are_told_when_their_deadlines_pass() -> None:
    world = World()
    batcher = world.batcher()
    running, waiting = Asked(world, 1, within=5.0), Asked(world, 2, within=6.0)
    ask(batcher, running)
    world.turn()
    ask(batcher, waiting)
    world.now += 5.5
    world.turn()
    assert isinstance(running.error, DeadlineExceeded)
    assert waiting.times == 0
    world.now += 1.0
    world.turn()
    assert isinstance(waiting.error, DeadlineExceeded)
    world.settle()
    assert running.times == waiting.times == 1
    assert world.computed == [1]


def test_who_left_is_not_computed_and_not_called_back() -> None:
    world = World()
    seen = Seen()
    batcher = world.batcher(observer=seen)
    ask(batcher, Asked(world, 1))
    world.turn()
    left, stayed = Asked(world, 2), Asked(world, 3)
    ask(batcher, left, stayed)
    left.cancel()
    world.settle()
    assert world.computed == [1, 3]
    assert left.times == 0
    assert stayed.answers == [30]
    assert seen.sheds == ["left"]


def test_who_leaves_during_the_call_is_not_called_back() -> None:
    world = World()
    left = Asked(world, 1)
    ask(world.batcher(), left)
    world.turn()
    left.cancel()
    world.settle()
    assert world.computed == [1]
    assert left.times == 0


# Failing


@pytest.mark.parametrize("cost", [(0.01, 0.001), FAST])
def test_only_who_is_at_fault_gets_the_error(cost: tuple[float, float]) -> None:
    world = World(cost, raises=lambda value: ZeroDivisionError("by zero") if value == 13 else None)
    asked = [Asked(world, value) for value in range(32)]
    ask(world.batcher(), *asked)
    world.settle()
    assert [one.answers for one in asked if one.rows != (13,)] == [[value * 10] for value in range(32) if value != 13]
    assert isinstance(asked[13].error, ModelFailed)
    assert "ZeroDivisionError" in asked[13].error.message
    assert asked[13].error.row is None
    assert len(world.calls) <= 2 + 2 * 5


def test_the_row_of_a_list_that_fails_is_named() -> None:
    world = World(raises=lambda value: RuntimeError("no") if value in (5, 8) else None)
    one = Asked(world, *range(20))
    ask(world.batcher(), one)
    world.settle()
    assert isinstance(one.error, ModelFailed)
    assert one.error.row == 5


def test_what_the_models_own_code_refuses_stays_422_with_the_row_before_the_field() -> None:
    world = World(raises=lambda value: InvalidInput("country", "no figures") if value == 3 else None)
    alone, many = Asked(world, 3), Asked(world, 1, 2, 3)
    ask(world.batcher(), alone, many)
    world.settle()
    assert isinstance(alone.error, InvalidInput)
    assert alone.error.errors == (FieldError("/country", "no figures"),)
    assert isinstance(many.error, InvalidInput)
    assert many.error.errors == (FieldError("/2/country", "no figures"),)


def test_a_contract_broken_only_for_one_request_is_its_own_error() -> None:
    world = World(raises=lambda value: ModelContract("two values for one row") if value == 2 else None)
    asked = [Asked(world, 1), Asked(world, 2), Asked(world, 3)]
    ask(world.batcher(), *asked)
    world.settle()
    assert isinstance(asked[1].error, ModelContract)
    assert asked[0].answers == [10]
    assert asked[2].answers == [30]


def test_a_model_that_raises_only_for_many_rows_answers_by_parts() -> None:
    """The error of a large call that no row raises alone: each request is still answered."""
    world = World()
    answers = world.predict

    def predict(parts: Sequence[Numbers]) -> list[int]:
        if len(parts) > 2:
            raise MemoryError
        return answers(parts)

    world.predict = predict  # type: ignore[method-assign]
    asked = [Asked(world, value) for value in range(4)]
    ask(world.batcher(), *asked)
    world.settle()
    assert [one.answers for one in asked] == [[0], [10], [20], [30]]


def test_an_error_that_no_row_raises_alone_names_no_row() -> None:
    world = World()
    answers = world.predict

    def predict(parts: Sequence[Numbers]) -> list[int]:
        if sum(map(len, parts)) > 3:
            raise MemoryError
        return answers(parts)

    world.predict = predict  # type: ignore[method-assign]
    one = Asked(world, *range(8))
    ask(world.batcher(), one)
    world.settle()
    assert isinstance(one.error, ModelFailed)
    assert one.error.row is None


@pytest.mark.parametrize("cost", [SLOW, FAST])
@pytest.mark.parametrize("raised", [SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
def test_a_model_that_tries_to_end_the_program_only_fails(raised: BaseException, cost: tuple[float, float]) -> None:
    world = World(cost)

    def predict(parts: Sequence[Numbers]) -> list[int]:
        raise raised

    world.predict = predict  # type: ignore[method-assign]
    one = Asked(world, 1)
    ask(world.batcher(), one)
    world.settle()
    assert isinstance(one.error, ModelFailed)


def test_an_answer_that_cannot_be_delivered_does_not_keep_the_others_from_theirs() -> None:
    world = World()
    broken, whole = Asked(world, 1), Asked(world, 2)
    broken.done = lambda *_: 1 / 0  # type: ignore[assignment,return-value]
    ask(world.batcher(), broken, whole)
    world.settle()
    assert whole.answers == [20]
    assert isinstance(world.unforeseen[0]["exception"], ZeroDivisionError)


# What is seen from outside


def test_each_call_is_observed_and_kept_in_view_while_it_lasts() -> None:
    for cost in (SLOW, FAST):
        world, seen = World(cost), Seen()
        ask(world.batcher(observer=seen, flight=seen), Asked(world, 1), Asked(world, 2, 3))
        world.settle()
        assert seen.batches == [(3, 2)]
        assert seen.flights == [[(1,), (2, 3)]]
        assert seen.waits == []
        assert seen.open == 0


def test_what_has_to_wait_for_a_call_is_kept_in_view_once_and_nothing_else_is() -> None:
    """Also what came while the model was idle, and for which its call has no room."""
    world, seen = World((0.001, 0.004)), Seen()
    batcher = world.batcher(flight=seen)
    ask(batcher, *(Asked(world, value, caller=caller) for value in (1, 2) for caller in ("one", "two")))
    assert seen.waits == []
    world.turn()
    assert seen.waits == [(2,), (2,)]
    ask(batcher, Asked(world, 3))
    world.settle()
    assert seen.waits == [(2,), (2,), (3,)]
    assert seen.flights == [[(1,), (1,)], [(2,), (2,)], [(3,)]]


# Pace


@given(st.floats(1e-6, 1.0), st.floats(1e-7, 0.1))
def test_the_pace_finds_what_a_call_and_a_row_cost(fixed: float, each: float) -> None:
    pace = Pace([(rows, fixed + each * rows) for rows in (1, 8, 64, 512)])
    for rows in (1, 20, 500):
        assert pace.seconds(rows) == pytest.approx(fixed + each * rows, rel=0.02)


def test_the_pace_follows_a_model_that_has_become_slower() -> None:
    pace = Pace([(rows, 0.001 + 0.001 * rows) for rows in (1, 8, 64)])
    for _ in range(100):
        pace.learn(8, 0.09)
    assert pace.seconds(8) == pytest.approx(0.09, rel=0.2)


def test_one_pause_of_the_machine_changes_the_pace_little() -> None:
    pace = Pace([(rows, 0.001) for rows in (1, 8, 64)])
    pace.learn(8, 10.0)
    assert pace.seconds(8) < 0.002


def test_three_surprises_in_a_row_are_believed() -> None:
    """Calls that take a hundred times what the example did, or a hundredth, are known as such after three of them."""
    for times in (100.0, 0.01):
        pace = Pace([(rows, 0.001 + 0.001 * rows) for rows in (1, 8, 64)])
        for rows in (4, 2, 8):
            pace.learn(rows, times * (0.001 + 0.001 * rows))
        for rows in (2, 4, 8):
            assert pace.seconds(rows) == pytest.approx(times * (0.001 + 0.001 * rows), rel=0.35)


def test_after_a_call_that_took_far_longer_than_expected_the_next_is_small() -> None:
    """Its rows may be such as cost so much."""
    world = World((0.01, 0.001))
    batcher = world.batcher()
    ask(batcher, Asked(world, -1))
    world.turn()
    ask(batcher, *(Asked(world, value) for value in range(60)))
    world.cost = (0.06, 0.001)
    world.call()
    world.settle()
    assert [len(call) for call in world.calls[:2]] == [1, 3]


def test_calls_of_one_size_move_the_pace_and_keep_how_it_parts() -> None:
    pace = Pace([(1, 0.002), (10, 0.011)])
    for _ in range(500):
        pace.learn(10, 0.022)
    assert pace.seconds(10) == pytest.approx(0.022, rel=0.02)
    assert 0 < pace.seconds(1) < 0.022
