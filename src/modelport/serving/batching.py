"""Requests that wait for one model become calls of it, so that many are answered at the price of one.

If the model is idle it is called on the next turn of the loop, with all that arrived in this one; while it is busy, what arrives gathers,
and the next call takes it. There is no timer and nothing to tune: how large a call may be follows from how long calls have taken (`Pace`).

    submit -> a line for each caller -> _gather -> the loop or the model's thread -> done, for each request its own rows

Answers go out before the next call begins: who asks again at once is in it, and the thread that encodes has the core for itself.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import accumulate
from threading import Event
from time import perf_counter
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from modelport.errors import DeadlineExceeded, ModelFailed, ModelportError, Unavailable

INLINE_SECONDS = 0.0002
"""A call shorter than this costs the others less where it is than a thread would (DESIGN section 6)."""
_LEAST_SECONDS = 0.002
"""A call may take this long in any case: nobody notices."""
_WORTHWHILE = 9
"""A call may take so many times its fixed cost: then that is a ninth of the whole, and growing gains little and makes others wait."""
_MAX_WAITING_BYTES = 2**28
_MANY = 100
"""Requests of one turn of the loop; more of them are looked at."""
_SURE = 0.8
"""What is taken is expected to be answered in this part of the time it has: calls differ, and who is late was computed for nothing."""
_SURE_OF_STANDING = 0.4
"""The same of a line that has not emptied for as long as an answer may take: a shorter one answers as many, sooner, and fewer too late."""
_SURPRISE = 2.0
"""A call that takes so many times what was expected is a surprise, and so is one that takes so small a part of it."""
_SURPRISES = 3
"""So many in a row are no accidents: rows cost other than they did."""
_REMEMBERED = 0.25
"""The calls of this part of the longest wait say how fast a line moves."""
_REST_S = 0.005
"""So long the loop lets requests gather once it has had to refuse some: to wake for each takes from the model what many can share. It is
little beside how long a caller waits for a refusal, and the end of a call ends it."""
_PROBE_EVERY = 16
"""On a thread a call seems longer than it is, for the loop is in its way: so what may be short is tried on the loop every so often."""


class Rows(Protocol):
    """Rows that a request asks about, in the form that `predict` takes."""

    @property
    def count(self) -> int: ...

    def part(self, start: int, stop: int) -> Any:
        """Some of the rows, in the same form."""
        ...


AnyRows = TypeVar("AnyRows", bound=Rows)
Answers = TypeVar("Answers")


@dataclass(slots=True, eq=False)
class Work(Generic[AnyRows, Answers]):
    """One request that waits for the model."""

    rows: AnyRows
    deadline: float
    """When the answer is worth nothing any more, as `loop.time()` counts."""
    caller: str
    """Whose it is: callers take turns."""
    done: Callable[[Work[AnyRows, Answers], Answers | None, int, Exception | None], None]
    """Called once on the loop, with the work itself: the answers to the whole call and the place of its first row in them, or the error."""
    slot: int = -1
    """The connection's place on the board; -1 where there is none."""
    body: bytes = b""
    """The JSON of the request, from which it can be asked again in another worker; empty where it cannot."""
    request_id: str = ""
    service: str = ""
    arrived: float = 0.0
    """By `perf_counter`."""
    state: int = 0

    @property
    def connection(self) -> int:
        """What tells its connection from others."""
        return self.slot if self.slot >= 0 else id(self)

    @property
    def is_waiting(self) -> bool:
        """Whether no call with it has begun."""
        return self.state < _BEGUN

    def cancel(self) -> None:
        """The caller left: what has not begun is not computed, and `done` is not called."""
        self.state = _ENDED


_WAITS, _KEPT, _BEGUN, _ENDED = range(4)
"""What has to wait is kept in view: `Flight.wait`."""


class Flight(Protocol):
    """Keeps in view, for whoever watches over this process, what the model is computing and what waits for it."""

    def wait(self, work: Work[Any, Any]) -> None:
        """The work has to wait for a call to begin. On the loop."""
        ...

    def begin(self, works: Sequence[Work[Any, Any]], deadline_s: float) -> None:
        """The model is about to be called with `works`; the earliest deadline of them, by `loop.time()`. On the thread that calls."""
        ...

    def end(self) -> None:
        """The call is over. On the thread that called."""
        ...


class Observer(Protocol):
    """Counts what happens. Called on the loop."""

    def batch(self, rows: int, requests: int, queue_s: float, predict_s: float) -> None:
        """A call is over: its size, how long the first of its requests waited, and how long the call took."""
        ...

    def shed(self, reason: str) -> None:
        """A request was not taken ("wait", "full") or not computed ("expired", "left")."""
        ...


class Loop(Protocol):
    """What a batcher needs of an event loop."""

    def time(self) -> float: ...
    def call_soon(self, callback: Callable[..., object], *args: Any) -> Any: ...
    def call_soon_threadsafe(self, callback: Callable[..., object], *args: Any) -> Any: ...
    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> Any: ...
    def call_exception_handler(self, context: dict[str, Any]) -> None: ...


class Pace:
    """How long calls take: seconds = fixed + each * rows, fitted to the calls seen.

    Least squares of the relative error, in which older calls count less and less. One call counts at most four times what was expected, so
    that a pause of the machine is no lesson; but when three in a row surprise in the same way, all that was seen is taken to be so many
    times off.
    """

    _KEPT = 0.9
    """How much of a call's weight is left after one more."""

    def __init__(self, measured: Sequence[tuple[int, float]] = ()) -> None:
        self.fixed_s, self.each_s = 0.001, 0.0
        self._sums = (0.0, 0.0, 0.0, 0.0, 0.0)
        self.doubt_s = 0.0
        """What a row may cost now, if the last call took surprisingly long: as much as one of its rows; else 0."""
        self._surprises: list[tuple[int, float]] = []
        """The last calls, if all of them were surprisingly long, or all short."""
        for rows, seconds in measured:
            self._take(rows, seconds, seconds)

    @property
    def known(self) -> bool:
        """Whether any call was seen."""
        return self._sums[0] > 0

    def seconds(self, rows: int) -> float:
        return self.fixed_s + self.each_s * rows

    @property
    def longest_s(self) -> float:
        """How long a call may be made by adding rows to it: beyond, that pays no more."""
        return max(_LEAST_SECONDS, _WORTHWHILE * self.fixed_s)

    def wait(self, rows: int) -> float:
        """Seconds for so many rows in calls of the best size."""
        best = max(1.0, (self.longest_s - self.fixed_s) / self.each_s) if self.each_s else math.inf
        return self.fixed_s * max(1, math.ceil(rows / best)) + self.each_s * rows

    def learn(self, rows: int, seconds: float) -> None:
        """A call of so many rows took so long."""
        expected_s = self.seconds(rows) if self.known else seconds
        if self._surprises or not expected_s <= _SURPRISE * seconds <= _SURPRISE**2 * expected_s:
            self._wonder(rows, seconds)
            expected_s = self.seconds(rows)
        self._take(rows, min(seconds, 4 * expected_s), expected_s)

    def _wonder(self, rows: int, seconds: float) -> None:
        """A call is a surprise, or the one before it was. With the last of enough in a row, what is expected is no more what it was."""
        expected_s = self.seconds(rows)
        long, short = seconds > _SURPRISE * expected_s, _SURPRISE * seconds < expected_s
        if not (long or short) or long != (self.doubt_s > 0):
            self._surprises.clear()
        if long or short:
            self._surprises.append((rows, seconds))
        self.doubt_s = seconds / rows if long else 0.0
        if len(self._surprises) == _SURPRISES:
            self._rescale(sorted(took_s / self.seconds(count) for count, took_s in self._surprises)[_SURPRISES // 2])
            self._surprises.clear()
            self.doubt_s = 0.0

    def _rescale(self, times: float) -> None:
        """Let every call seen so far have taken so many times as long."""
        w, wx, wxx, wy, wxy = self._sums
        self._sums = w / times**2, wx / times**2, wxx / times**2, wy / times, wxy / times
        self.fixed_s, self.each_s = self.fixed_s * times, self.each_s * times

    def _take(self, rows: int, seconds: float, expected_s: float) -> None:
        weight, kept = 1 / max(expected_s * expected_s, 1e-14), self._KEPT
        w, wx, wxx, wy, wxy = self._sums
        w, wx, wxx = kept * w + weight, kept * wx + weight * rows, kept * wxx + weight * rows * rows
        wy, wxy = kept * wy + weight * seconds, kept * wxy + weight * seconds * rows
        self._sums = w, wx, wxx, wy, wxy
        spread = w * wxx - wx * wx
        if spread > 0.05 * w * wxx:
            self.each_s = max(0.0, (w * wxy - wx * wy) / spread)
            self.fixed_s = (wy - self.each_s * wx) / w
            if self.fixed_s <= 0:
                self.fixed_s, self.each_s = 1e-6, wxy / wxx
        else:  # calls of one size say nothing of how the time parts: keep the parts, and move both
            slower = wy / (self.fixed_s * w + self.each_s * wx)
            self.fixed_s, self.each_s = self.fixed_s * slower, self.each_s * slower


_Outcome: TypeAlias = tuple[Work[AnyRows, Answers], "Answers | None", int, "Exception | None"]


@dataclass(slots=True, eq=False)
class _Call(Generic[AnyRows, Answers]):
    """A call on the model's thread."""

    works: list[Work[AnyRows, Answers]]
    rows: int
    until: float
    """When it should be over, by `loop.time()`."""
    ordered: float
    """When the thread was told, by the clock."""
    over: Event = field(default_factory=Event)
    """Set when it has ended."""


class Batcher(Generic[AnyRows, Answers]):
    """Calls one model for many. All methods are called on the loop's thread.

    `predict` takes the rows of one or more requests and gives answers to all of them in order; it may raise. It runs on the loop when it is
    expected to take less than INLINE_SECONDS, else on `thread`, which must run one thing at a time.
    """

    def __init__(
        self,
        predict: Callable[[Sequence[AnyRows]], Answers],
        *,
        loop: Loop,
        pace: Pace | None = None,
        timeout_s: float = 30.0,
        max_waiting: int = 10_000,
        flight: Flight | None = None,
        observer: Observer | None = None,
        thread: Executor | None = None,
        clock: Callable[[], float] = perf_counter,
        wait: Callable[[Event, float], object] = Event.wait,
    ) -> None:
        self.pace = pace or Pace()
        self.timeout_s = timeout_s
        """How long a request may take from its submission."""
        self._predict, self._loop, self._clock, self._wait = predict, loop, clock, wait
        self._flight, self._observer = flight, observer
        self._thread = thread or ThreadPoolExecutor(1, "model")
        self._lines: OrderedDict[str, deque[Work[AnyRows, Answers]]] = OrderedDict()
        self._waiting = self._waiting_rows = self._waiting_bytes = 0
        self._max_waiting = max_waiting
        self._queue_s = self._queue_rows = 0.0
        """Of the last calls that left some waiting, until a call leaves none: how fast a line moves, also where urgent works keep calls
        small, or rows cost other than the pace says."""
        self._patience_s: dict[str, float] = {}
        """How long callers wait before they leave, of whose connections more had ended than stayed at their turn; until none waits."""
        self._scheduled = False
        self._resting = False
        """Whether the loop is about to rest."""
        self._behind_since: float | None = None
        """Since when each call has left some waiting, by `loop.time()`; None when the last has not."""
        self._probe = 0
        self._here = 1.0
        """How long calls took on the loop, as part of what was expected."""
        self._running: _Call[AnyRows, Answers] | None = None
        self._alarm: Any = None

    @property
    def waiting(self) -> int:
        """Requests that wait for a call to begin."""
        return self._waiting

    @property
    def oldest_s(self) -> float:
        """How long the request that waits longest has waited; 0 where none does."""
        arrived = [line[0].arrived for line in self._lines.values()]
        return self._clock() - min(arrived) if arrived else 0.0

    @property
    def busy(self) -> bool:
        """Whether a call is under way, so that what comes has to wait."""
        return self._running is not None or self._behind_since is not None

    def submit(self, work: Work[AnyRows, Answers]) -> None:
        """Answer `work` in a coming call. Unavailable, with the seconds to wait, when it could not be answered before its deadline."""
        rows = work.rows.count
        # While the model is idle what comes is tried in any case: if the pace is wrong, only a call can tell.
        if self.busy or self._waiting >= _MANY:
            self._check_wait(work, rows)
            self._keep(work)
        line = self._lines.get(work.caller)
        if line is None:
            line = self._lines[work.caller] = deque()
        line.append(work)
        self._waiting += 1
        self._waiting_rows += rows
        self._waiting_bytes += len(work.body)
        if not self._scheduled and self._running is None:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _keep(self, work: Work[AnyRows, Answers]) -> None:
        """Keep in view what has to wait."""
        work.state = _KEPT
        if self._flight is not None:
            self._flight.wait(work)

    def _keep_rest(self) -> None:
        """Keep in view what came while the model was idle, and has no room in the call: of each line, what came last."""
        for line in self._lines.values():
            for work in reversed(line):
                if work.state != _WAITS:
                    break
                self._keep(work)

    def _check_wait(self, work: Work[AnyRows, Answers], rows: int) -> None:
        """Refuse what would wait too long. Callers take turns, so a short line moves on however long the others are."""
        now = self._loop.time()
        mine = len(self._lines.get(work.caller, ())) + 1
        ahead = min(self._waiting, mine * max(1, len(self._lines)))
        rows_ahead = self._waiting_rows * ahead // self._waiting if self._waiting else 0
        row_s = self._queue_s / self._queue_rows if self._queue_rows else 0.0
        wait_s = self._left_s(now) + max(self.pace.wait(rows_ahead + rows), row_s * (rows_ahead + rows))
        standing = self._behind_since is not None and now - self._behind_since > self.timeout_s
        patience_s = self._patience_s.get(work.caller, math.inf)
        late_s = wait_s / (_SURE_OF_STANDING if standing else _SURE) - min(work.deadline - now, patience_s)
        if late_s > 0:
            leave = "" if patience_s == math.inf else f", and most of your requests are given up after {patience_s:.2g} s"
            self._refuse("wait", f"{self._waiting} requests wait for the model; an answer would take {wait_s:.2g} s{leave}", late_s)
        if self._waiting >= self._max_waiting or self._waiting_bytes + len(work.body) > _MAX_WAITING_BYTES:
            self._refuse("full", f"{self._waiting} requests wait for the model already", wait_s / 2)

    def _refuse(self, reason: str, detail: str, seconds: float) -> None:
        if self._observer is not None:
            self._observer.shed(reason)
        if self._running is not None and not self._resting:
            self._resting = True
            self._loop.call_soon(self._rest)
        raise Unavailable(detail, retry_after_s=max(1, math.ceil(min(seconds, 3600))))

    def _rest(self) -> None:
        """Let requests gather while the thread computes."""
        self._resting = False
        if self._running is not None:
            self._wait(self._running.over, _REST_S)

    def _left_s(self, now: float) -> float:
        """How long the running call will still take; one that is late may well be late by as much again."""
        return 0.0 if self._running is None else abs(self._running.until - now)

    # Calls

    def _flush(self) -> None:
        self._scheduled = False
        if self._running is not None:
            return
        works, rows = self._gather()
        if self._waiting or self._behind_since is not None:
            self._look_behind()
        if not works:
            return
        seconds = self.pace.seconds(rows)
        if self._is_short(seconds) and self._call_here(works, rows):
            self._go_on()
            return
        self._running = _Call(works, rows, self._loop.time() + seconds, self._clock())
        self._arm()
        self._thread.submit(self._call_there, self._running)

    def _go_on(self) -> None:
        """A call is over: begin the next on the next turn of the loop, if any wait."""
        if self._waiting or self._behind_since is not None:
            self._look_behind()
            if self._waiting and not self._scheduled:
                self._scheduled = True
                self._loop.call_soon(self._flush)

    def _look_behind(self) -> None:
        if not self._waiting:
            self._behind_since = None
            self._patience_s.clear()
        elif self._behind_since is None:
            self._behind_since = self._loop.time()
            self._keep_rest()

    def _is_short(self, seconds: float) -> bool:
        """Whether a call is made on the loop."""
        if not self.pace.known or seconds >= 3 * INLINE_SECONDS:
            return False
        self._probe = (self._probe + 1) % _PROBE_EVERY
        return seconds * self._here < INLINE_SECONDS or self._probe == 0

    def _gather(self) -> tuple[list[Work[AnyRows, Answers]], int]:
        """The works of the next call, one of each caller in turn, and how many rows they are.

        As many as pays, and as fit half of what is left to the most urgent of them; but always one. What can be in time no more is not
        computed, unless nothing else is there to try.
        """
        now = self._loop.time()
        fixed_s, each_s, limit_s = self.pace.fixed_s, self.pace.each_s, self.pace.longest_s
        worst_s = max(each_s, self.pace.doubt_s)
        works: list[Work[AnyRows, Answers]] = []
        expired: list[Work[AnyRows, Answers]] = []
        gone: dict[str, set[int]] = {}
        rows = 0
        for work in self._in_turn():
            if not work.is_waiting:
                gone.setdefault(work.caller, set()).add(work.connection)
                if self._observer is not None:
                    self._observer.shed("left")
                continue
            left_s, count = work.deadline - now, work.rows.count
            if left_s > fixed_s + each_s * count or (left_s > 0 and not works and self._waiting == 1):
                more = rows + count
                if left_s < 2 * limit_s:
                    limit_s = left_s / 2
                if works and fixed_s + worst_s * more > limit_s:
                    break
                rows = more
                work.state = _BEGUN
                works.append(work)
            else:
                expired.append(work)
        for work in expired:
            self._expire(work)
        for caller, left in gone.items():  # by connections: one that ends takes all with it that was sent on it
            stayed = [work for work in works if work.caller == caller]
            if 0 < len({work.connection for work in stayed}) < len(left):
                self._patience_s[caller] = self._clock() - min(work.arrived for work in stayed)
        return works, rows

    def _in_turn(self) -> Iterator[Work[AnyRows, Answers]]:
        """The works that wait, one of each caller in turn. Who asks for the next has taken the last."""
        lines = self._lines
        while lines:
            caller, line = next(iter(lines.items()))
            while line:
                work = line[0]
                yield work
                line.popleft()
                self._waiting -= 1
                self._waiting_rows -= work.rows.count
                self._waiting_bytes -= len(work.body)
                if len(lines) > 1:
                    break
            if line:
                lines.move_to_end(caller)
            else:
                del lines[caller]

    def _call_here(self, works: list[Work[AnyRows, Answers]], rows: int) -> bool:
        """Call the model on the loop and deliver; False when it raised, and the culprit is to be found on the thread."""
        if self._flight is not None:
            self._flight.begin(works, min(work.deadline for work in works))
        begun = self._clock()
        try:
            answers = self._predict([work.rows for work in works])
        except BaseException:  # noqa: BLE001  also what a model should not raise: SystemExit must not end the service
            return False
        finally:
            if self._flight is not None:
                self._flight.end()
        seconds = self._clock() - begun
        self._here = 0.5 * self._here + 0.5 * min(2.0, seconds / self.pace.seconds(rows))
        self.pace.learn(rows, seconds)
        self._watch_queue(rows, seconds)
        self._observe(works, rows, begun, seconds)
        start = 0
        for work in works:
            self._deliver(work, answers, start, None)
            start += work.rows.count
        return True

    def _call_there(self, call: _Call[AnyRows, Answers]) -> None:
        """On the model's thread."""
        if self._flight is not None:
            self._flight.begin(call.works, min(work.deadline for work in call.works))
        begun = self._clock()
        try:
            outcomes = self._outcomes(call.works)
        finally:
            if self._flight is not None:
                self._flight.end()
        self._loop.call_soon_threadsafe(self._finish, call, outcomes, begun, self._clock() - begun)
        call.over.set()

    def _outcomes(self, works: list[Work[AnyRows, Answers]]) -> list[_Outcome[AnyRows, Answers]]:
        """What each work gets. When a call raises it is made again by halves, so that only who is at fault gets the error."""
        try:
            answers = self._predict([work.rows for work in works])
        except BaseException as error:  # noqa: BLE001  as above
            if len(works) > 1:
                half = len(works) // 2
                return self._outcomes(works[:half]) + self._outcomes(works[half:])
            return [(works[0], None, 0, self._blamed(works[0].rows, error))]
        starts = accumulate((work.rows.count for work in works[:-1]), initial=0)
        return [(work, answers, start, None) for work, start in zip(works, starts, strict=True)]

    def _blamed(self, rows: AnyRows, error: BaseException) -> Exception:
        """The error of a request that raises alone; of several rows, that of the first that raises alone, with its index."""
        start, stop = 0, rows.count
        while stop - start > 1:
            middle = (start + stop) // 2
            try:
                self._predict([rows.part(start, middle)])
            except BaseException as nearer:  # noqa: BLE001  as above
                stop, error = middle, nearer
            else:
                start = middle
        if start:  # the last step may have cleared the left half only: what raises is the row that is left
            try:
                self._predict([rows.part(start, stop)])
            except BaseException as nearer:  # noqa: BLE001  as above
                error = nearer
            else:
                return _named(error)  # no row raises alone
        known = _named(error)
        return known.at_row(start) if rows.count > 1 else known

    def _finish(self, call: _Call[AnyRows, Answers], outcomes: list[_Outcome[AnyRows, Answers]], begun: float, seconds: float) -> None:
        """A call on the thread is over."""
        self._running = None
        self._disarm()
        if all(error is None for *_, error in outcomes):  # else parts of it were computed several times
            self.pace.learn(call.rows, seconds)
        # Who waits for the next call waits also for what the thread and the loop wait for each other.
        self._watch_queue(call.rows, self._clock() - call.ordered)
        self._observe(call.works, call.rows, begun, seconds)
        for outcome in outcomes:
            self._deliver(*outcome)
        self._go_on()

    def _watch_queue(self, rows: int, seconds: float) -> None:
        """A call is over. Calls differ, so it is the mean of many that counts: of as much time as some of the longest wait."""
        if not self._waiting:
            self._queue_s = self._queue_rows = 0.0
        elif self._behind_since is not None:
            kept = math.exp(-seconds / (_REMEMBERED * self.timeout_s))
            self._queue_s, self._queue_rows = kept * self._queue_s + seconds, kept * self._queue_rows + rows

    def _observe(self, works: list[Work[AnyRows, Answers]], rows: int, begun: float, seconds: float) -> None:
        if self._observer is not None:
            self._observer.batch(rows, len(works), begun - works[0].arrived, seconds)

    def _deliver(self, work: Work[AnyRows, Answers], answers: Answers | None, start: int, error: Exception | None) -> None:
        if work.state == _ENDED:  # the caller left, or its deadline passed
            return
        work.state = _ENDED
        try:
            work.done(work, answers, start, error)
        except Exception as unforeseen:  # noqa: BLE001  the others' answers must go out
            self._loop.call_exception_handler({"message": "an answer could not be delivered", "exception": unforeseen})

    # Deadlines

    def _arm(self) -> None:
        """Watch over the most urgent deadline for as long as the thread is busy."""
        self._disarm()
        if self._running is None:
            return
        works = [work for work in self._running.works if work.state == _BEGUN] + [line[0] for line in self._lines.values()]
        if works:
            self._alarm = self._loop.call_at(min(work.deadline for work in works), self._on_alarm)
        else:
            self._alarm = self._loop.call_at(self._loop.time() + self.timeout_s, self._on_alarm)

    def _disarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _on_alarm(self) -> None:
        """Tell those whose deadline passed, also while the model is stuck."""
        self._alarm = None
        if self._running is None:
            return
        now = self._loop.time()
        late = [work for work in self._running.works if work.state == _BEGUN and work.deadline <= now]
        for caller, line in list(self._lines.items()):
            while line and (line[0].state == _ENDED or line[0].deadline <= now):
                late.append(line[0])
                self._waiting -= 1
                self._waiting_rows -= line[0].rows.count
                self._waiting_bytes -= len(line.popleft().body)
            if not line:
                del self._lines[caller]
        for work in late:
            self._expire(work)
        self._arm()

    def _expire(self, work: Work[AnyRows, Answers]) -> None:
        if work.state < _BEGUN and self._observer is not None:
            self._observer.shed("expired")
        self._deliver(work, None, 0, DeadlineExceeded(f"the model did not answer within {self.timeout_s:g} s"))


def _named(error: BaseException) -> ModelportError:
    """An error under the name that callers know; what only ends programs is the model's failure too."""
    if isinstance(error, ModelportError):
        return error
    known = ModelFailed(f"the model raised {type(error).__name__}: {error}")
    known.__cause__ = error
    return known
