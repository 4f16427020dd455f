"""Starts workers, hands them connections, and sees to it that every caller gets an answer, whatever becomes of a worker.

It loads no model. It accepts each connection and hands it to the worker with the fewest, but keeps a descriptor of it too; and on the board
that it shares with the worker (board.py) it sees how many answers each connection is owed. So when a worker dies or hangs, connections
that are owed nothing move to another worker, and the others get an error from here.

    starting --Ready--> ready --Release, Finish--> draining
        any of them --the process ended--> gone
"""

from __future__ import annotations

import asyncio
import enum
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from modelport import frameworks
from modelport.errors import DeadlineExceeded, ModelFailed, ModelportError, Unavailable
from modelport.serving import board as boards
from modelport.serving import exporter, resources, responder
from modelport.serving.board import Board, Flown
from modelport.serving.control import (
    AskTotals,
    Begin,
    Channel,
    Closed,
    Count,
    Counted,
    Deny,
    Drain,
    Failed,
    Finish,
    Model,
    Ready,
    Release,
    Released,
    Replay,
    Replayed,
    Take,
    TellTotals,
    ToSupervisor,
    ToWorker,
    fingerprint,
    pair,
)
from modelport.serving.listener import bind
from modelport.serving.logs import Log
from modelport.serving.metrics import Metrics, Snapshot, Totals, of_processes
from modelport.serving.settings import Settings
from modelport.serving.sizing import Stated, arithmetic
from modelport.serving.telemetry import route_of

_WATCH_S = 0.05
_FRESH_S = 0.1
"""A worker whose loop turned within this time answers."""
_LATE_S = 0.25
"""How long after its deadline a call is waited for: the worker's own 504 comes first."""
_EARLY_S = 10.0
"""A worker that dies sooner after its start is no better than the one before it."""
_REMEMBERED_S = 120.0
_LONGEST_PAUSE_S = 30.0
_LINGER_S = 2.0
_HEAD_WAIT_S = 0.02
_ACCEPT_PAUSE_S = 0.05
_MOST_DENIED = 1000
_COUNT_WAIT_S = 0.1
"""How long workers have to say what they have counted; of one that does not answer, what it said last is taken."""


class State(enum.Enum):
    """What a worker is doing."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    GONE = "gone"


@dataclass(eq=False)
class Worker:
    """A process that answers."""

    process: subprocess.Popen[bytes]
    channel: Channel[ToWorker, ToSupervisor]
    board: Board
    descriptor: int
    """Of the board, until the process has it."""
    started_s: float
    number: int
    """The smallest that no other worker has."""
    threads: int = 1
    """For its computations."""
    models: list[Model] = field(default_factory=list)
    state: State = State.STARTING
    ready_s: float = 0.0
    ready_bytes: int = 0
    """Its memory when it was ready."""
    worn: bool = False
    """Whether it is to be replaced, as it has grown too large."""
    killed_for: str = ""
    """Why the supervisor ended it: "hang", "stop"; '' where it did not."""
    connections: dict[int, Connection] = field(default_factory=dict)
    testing: Connection | None = None
    """The suspect that it is asked about, and no other connection is given to it meanwhile."""
    turn: int = 0
    """When it was handed its last connection: a number that grows."""


@dataclass(eq=False)
class Connection:
    """A caller's connection: its slot on the boards, and a descriptor of it."""

    slot: int
    socket: socket.socket
    asked: Flown | None = None
    """What a worker that is gone had read of it, until another has answered that."""
    asked_s: float = 0.0
    replays: int = 0


class Fate(enum.Enum):
    """What becomes of a connection whose worker is gone."""

    MOVES = "another worker takes it as it is"
    LATE = "504"
    UNAVAILABLE = "503"
    AGAIN = "another worker is asked what was asked"
    SUSPECT = "one of several may have ended the process: each is asked again, alone"
    CULPRIT = "500, and never asked again: it was alone in the call that ended the process"


def run(
    resolve: Callable[[], Sequence[Model]],
    settings: Settings,
    started: Callable[[str, int], None],
    told: Callable[[str], None],
    log: Log | None = None,
) -> int:
    """Serve until told to stop by SIGTERM or SIGINT; `started` is called with the address when the first worker is ready, and `told` with
    whatever goes wrong with the service itself. `resolve` says what to serve, now and again at each SIGHUP.

    The exit code: 0, or 1 when requests were still under way when their time to end was over. UsageError when the address cannot be had;
    whatever ModelportError the models fail with.
    """
    resources.raise_open_files()
    listener = bind(settings.host, settings.port)
    scraped = exporter.bind_metrics(settings)
    log = log or Log()
    try:
        return asyncio.run(Supervisor(resolve, settings, listener, started, told, log, scraped).serve())
    finally:
        listener.close()
        log.close()


# Decisions


def fewest(workers: Iterable[Worker]) -> list[Worker]:
    """Workers in the order in which they should get a connection: who has the fewest, then who has waited longest for one."""
    return sorted(workers, key=lambda worker: (len(worker.connections), worker.turn))


def pause_s(early_deaths: int) -> float:
    """How long to wait before the next start, after so many workers that did not live long: 0, 0, 1, 2, 4 ... 30 seconds."""
    return 0.0 if early_deaths < 2 else min(_LONGEST_PAUSE_S, 2.0 ** (early_deaths - 2))


def is_fresh(beat_ns: int, now_ns: int, within_s: float) -> bool:
    """Whether something last showed itself within so many seconds."""
    return now_ns - beat_ns <= within_s * 1e9


def is_hung(heartbeat_ns: int, deadline_ns: int, now_ns: int, timeout_s: float) -> bool:
    """Whether a ready worker is beyond hope: its call is late, or its loop has not turned for as long as an answer may take."""
    if deadline_ns and now_ns > deadline_ns + _LATE_S * 1e9:
        return True
    return not is_fresh(heartbeat_ns, now_ns, timeout_s + _LATE_S)


def fates(owed: dict[int, int], computing: Sequence[Flown], reason: str) -> dict[int, Fate]:
    """What becomes of the connections of a worker that is gone: by slot how many answers each was owed, and what the model computed.

    `reason` is "hang", "stop", "killed" or "crash". Only what a crash interrupted is suspected to be its cause.
    """
    by_slot: dict[int, list[Flown]] = {}
    for flown in computing:
        by_slot.setdefault(flown.slot, []).append(flown)
    decided = {}
    for slot, answers in owed.items():
        flying = by_slot.get(slot, [])
        kept = len(flying) == answers == 1 and bool(flying[0].body)
        if not answers:
            decided[slot] = Fate.MOVES
        elif reason == "hang" and flying:
            decided[slot] = Fate.LATE
        elif reason == "crash" and kept:
            decided[slot] = Fate.CULPRIT if len(computing) == 1 else Fate.SUSPECT
        elif reason == "killed" and kept:
            decided[slot] = Fate.AGAIN
        else:
            decided[slot] = Fate.UNAVAILABLE
    return decided


def why_gone(killed_for: str, returncode: int) -> str:
    """Why a process is gone, in a word: "hang" or "stop", "killed" from outside (by whoever, or as memory ran out), "crash"."""
    return killed_for or ("killed" if returncode in (-signal.SIGKILL, -signal.SIGTERM) else "crash")


def fitting(wanted: int, limit_bytes: int | None, supervisor_bytes: int, worker_bytes: int) -> int:
    """How many workers of this size fit into nine tenths of the memory; one is tried in any case."""
    if limit_bytes is None or not worker_bytes:
        return wanted
    return max(1, min(wanted, int(limit_bytes * 0.9 - supervisor_bytes) // worker_bytes))


def is_worn(now_bytes: int, ready_bytes: int, most_bytes: int | None) -> bool:
    """Whether a worker has grown beyond what it may have. One that is so large from the start would be no smaller if it were replaced."""
    return most_bytes is not None and now_bytes > most_bytes and now_bytes > 1.2 * ready_bytes


def surplus(new: int, old: int, wanted: int) -> int:
    """How many of the old workers are too many, beside so many new ones that are ready."""
    return old if new >= wanted else max(0, new + old - wanted)


def ending(returncode: int) -> str:
    """How a process ended, in words."""
    if returncode >= 0:
        return f"it exited with code {returncode}"
    try:
        return f"it was ended by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"it was ended by signal {-returncode}"


class Supervisor:
    """The workers of one service, and the connections of its callers."""

    def __init__(
        self,
        resolve: Callable[[], Sequence[Model]],
        settings: Settings,
        listener: socket.socket,
        started: Callable[[str, int], None],
        told: Callable[[str], None],
        log: Log,
        scraped: socket.socket | None = None,
    ) -> None:
        self._resolve, self._settings, self._listener = resolve, settings, listener
        self._models: list[Model] = []
        self._looking = True
        """Whether it is being looked what to serve."""
        self._tried: list[Model] | None = None
        """What a reload brought, until a worker has loaded it."""
        self._started, self._told, self._log = started, told, log
        self._stated = Stated(resources.cores(), settings.workers, settings.threads or frameworks.threads_in(os.environ))
        self._size = self._stated.first
        self._row_s = 0.0
        """How long the first worker took for a row."""
        self._trial: Worker | None = None
        """The worker that is to show what more threads are good for, until it has."""
        self._most = self._size.workers
        """How many workers there is memory for, as far as is known; of more than are wanted, and a trial, nothing is asked."""
        self._workers: list[Worker] = []
        self._scraped = scraped
        self._totals = Totals()
        self._metrics = Metrics(log=lambda: log.counts)
        """Of the requests that are answered here."""
        self._restarts = {"crash": 0, "killed": 0, "hang": 0}
        self._counting: list[tuple[set[Worker], asyncio.Event]] = []
        """Who asks what was counted: the workers that have not answered, and what is set when all have."""
        self._telling: set[asyncio.Task[None]] = set()
        self._said_full_s = -math.inf
        self._free = deque(range(resources.most_connections(boards.SLOTS)))
        self._parked: dict[int, Connection] = {}
        self._suspects: deque[Connection] = deque()
        self._denied: dict[bytes, None] = {}
        self._turn = 0
        self._was_ready = False
        self._early_deaths: deque[float] = deque()
        self._start_timer: asyncio.TimerHandle | None = None
        self._last_end = ""
        self._stopping = False
        self._code = 0
        self._error: Exception | None = None

    async def serve(self) -> int:
        """Serve until told to stop; the exit code. The ModelportError of models that cannot be served."""
        loop = self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        self._listener.setblocking(False)
        loop.add_signal_handler(signal.SIGTERM, self._on_stop)
        loop.add_signal_handler(signal.SIGINT, self._on_stop)
        loop.add_signal_handler(signal.SIGHUP, self._on_reload)
        loop.add_signal_handler(signal.SIGCHLD, self._on_child)
        loop.add_reader(self._listener.fileno(), self._on_accept)
        first = self._spawn(self._size.threads)  # it gets ready for any model, while it is looked which
        self._look(lambda models, error: self._on_models(first, models, error))
        self._watch()
        scraped = await exporter.serve(self._scraped, self._settings, self.totals) if self._scraped else None
        try:
            await self._over.wait()
        finally:
            if scraped is not None:
                scraped.close()
            self._end_all()
        if self._error is not None:
            raise self._error
        return self._code

    # Workers

    def _live(self, *states: State) -> list[Worker]:
        return [worker for worker in self._workers if worker.state in states]

    def _on_models(self, first: Worker, models: list[Model], error: Exception | None) -> None:
        """What there is to serve was found, or not: then the service ends before it began."""
        self._models = models
        if error is not None:
            self._error = error
            self._over.set()
        elif not self._over.is_set():
            if first.state is State.GONE:
                self._start(models)
            else:
                self._begin(first, models)

    def _start(self, models: list[Model]) -> None:
        """Start a worker for these models."""
        if not self._stopping:
            self._begin(self._spawn(self._size.threads), models)

    def _begin(self, worker: Worker, models: list[Model]) -> None:
        worker.models = models
        worker.channel.send(Begin(models, self._settings, list(self._denied)), [worker.descriptor])
        os.close(worker.descriptor)

    def _spawn(self, threads: int) -> Worker:
        """A new process that waits to be told what to load, with so many threads for its computations."""
        ours, theirs = pair()
        descriptor = boards.create()
        process = subprocess.Popen(  # noqa: S603  this Python, and words that are ours
            [sys.executable, "-P", "-m", "modelport.serving.worker", str(theirs.fileno())],
            pass_fds=(theirs.fileno(),),
            env={**os.environ, **resources.thread_shares(threads)},
            stdin=subprocess.DEVNULL,
            process_group=0,  # Ctrl+C in a terminal is for the supervisor, which lets them finish
        )
        theirs.close()
        ours.setblocking(False)
        number = next(number for number in count(1) if all(worker.number != number for worker in self._workers))
        worker = Worker(process, Channel(ours, ToSupervisor), Board(descriptor), descriptor, time.monotonic(), number, threads)
        self._workers.append(worker)
        self._loop.add_reader(ours.fileno(), self._on_message, worker)
        return worker

    def _start_missing(self) -> None:
        """Start what is missing, one after another; later, when those before it died early."""
        serving = [worker for worker in self._live(State.STARTING, State.READY) if not self._is_old(worker)]
        if self._stopping or not self._models or self._start_timer or len(serving) >= self._wanted or self._live(State.STARTING):
            return
        now = time.monotonic()
        while self._early_deaths and self._early_deaths[0] < now - _REMEMBERED_S:
            self._early_deaths.popleft()
        self._start_timer = self._loop.call_later(pause_s(len(self._early_deaths)), self._start_again)

    def _start_again(self) -> None:
        self._start_timer = None
        try:
            self._start(self._models)
        except OSError as error:  # no descriptors, processes or memory left: that may pass
            self._early_deaths.append(time.monotonic())
            self._say("start-failed", f"a worker cannot be started: {error.strerror}")
            self._start_missing()

    def _on_message(self, worker: Worker) -> None:
        while worker.state is not State.GONE:
            try:
                received = worker.channel.receive()
            except BlockingIOError:
                return
            if received is None:  # it is ending: SIGCHLD says how
                self._loop.remove_reader(worker.channel.socket.fileno())
                return
            self._take_in(worker, received[0])

    def _take_in(self, worker: Worker, message: ToSupervisor) -> None:
        match message:
            case Ready():
                self._on_ready(worker, message)
            case Failed():
                self._on_failed(worker, message)
            case Closed(slot):
                connection = worker.connections.pop(slot)
                self._forget(connection)
                if worker.testing is connection:
                    self._test_next(worker)
            case Replayed(slot):
                connection = worker.connections[slot]
                connection.asked, connection.replays = None, 0
                if worker.testing is connection:
                    self._test_next(worker)
            case Released(slot):
                self._place(worker.connections.pop(slot))
            case Counted(snapshot):
                self._totals.update(worker, snapshot)
                self._has_counted(worker)
            case AskTotals(number):
                task = self._loop.create_task(self._tell_totals(worker, number))
                self._telling.add(task)
                task.add_done_callback(self._telling.discard)

    def _on_ready(self, worker: Worker, ready: Ready) -> None:
        worker.state, worker.ready_s, worker.ready_bytes = State.READY, time.monotonic(), ready.memory_bytes
        if self._stopping:
            worker.channel.send(Finish())
            return
        if not self._was_ready:
            self._was_ready = True
            host, port = self._listener.getsockname()[:2]
            about = {"metrics_port": self._scraped.getsockname()[1]} if self._scraped else {}
            self._log.event("serving", host=host, port=port, models=ready.models, engines=ready.engines, **about)
            self._started(host, port)
            self._fit()
            self._measure(ready.row_s)
        elif worker is self._trial:
            self._decide(ready.row_s)
        seconds = round(worker.ready_s - worker.started_s, 3)
        self._log.event("worker-ready", process=worker.process.pid, seconds=seconds, bytes=ready.memory_bytes)
        if worker.models is self._tried:
            self._models, self._tried = worker.models, None
            self._log.event("reloaded", models=ready.models, engines=ready.engines)
        self._release_old()
        self._test_next(worker)
        self._start_missing()

    def _release_old(self) -> None:
        """What is to be replaced makes place: one worker for each new one, and the rest with the last."""
        ready = self._live(State.READY)
        old = [worker for worker in ready if self._is_old(worker)]
        for worker in old[: surplus(len(ready) - len(old), len(old), self._wanted)]:
            worker.state = State.DRAINING
            worker.channel.send(Release())

    def _is_old(self, worker: Worker) -> bool:
        return worker.worn or worker.models is not self._models or worker.threads != self._size.threads

    # How many

    @property
    def _wanted(self) -> int:
        return min(self._size.workers, self._most)

    def _measure(self, row_s: float) -> None:
        """The first worker is ready: start another with more threads if that may pay, which only a measurement can tell."""
        self._row_s = row_s
        threads = self._stated.trial(row_s) if self._most > 1 else 0
        if threads:
            self._trial = self._spawn(threads)
            self._begin(self._trial, self._models)
        else:
            self._log_size(0, None)

    def _decide(self, several_s: float | None) -> None:
        """The trial is over: what it took for a row, or None when it did not get ready."""
        assert self._trial is not None
        if several_s is not None:
            self._size = self._stated.sized(self._row_s, self._trial.threads, several_s)
        self._log_size(self._trial.threads, several_s)
        self._trial = None

    def _log_size(self, threads: int, several_s: float | None) -> None:
        why = arithmetic(self._stated.first, self._row_s, threads, several_s, self._size)
        self._log.event("sized", detail=why, workers=self._wanted, threads=self._size.threads, cores=self._stated.cores)

    def _fit(self) -> None:
        """Start no more workers than there is memory for, by the size of the first."""
        limit_bytes, own_bytes, worker_bytes = resources.memory_limit(), resources.memory_of(), self._workers[0].ready_bytes
        fits = fitting(max(2, self._size.workers), limit_bytes, own_bytes, worker_bytes)
        if limit_bytes is not None and fits < self._size.workers:
            sizes = f"{worker_bytes >> 20} MB each beside {own_bytes >> 20} MB of the supervisor, in 90 % of {limit_bytes >> 20} MB"
            self._say("fewer-workers", f"{fits} of {self._size.workers} workers are started: {sizes}", workers=fits)
        self._most = fits

    def _on_failed(self, worker: Worker, failed: Failed) -> None:
        """The models cannot be served: the end of a service that begins; one that has served goes on, or tries again."""
        if worker.models is self._tried:
            self._give_up_reload(failed.message)
            return
        self._last_end = failed.message
        if not self._was_ready and not self._stopping:
            self._error = failed.error()
            self._over.set()

    def _on_child(self) -> None:
        """Children ended: workers, and, where this is process 1 of a container, whatever its children left behind."""
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            worker = next((one for one in self._workers if one.process.pid == ended.si_pid), None)
            if worker is None:
                os.waitpid(ended.si_pid, 0)
            else:
                self._on_end(worker, worker.process.wait())

    def _on_end(self, worker: Worker, returncode: int) -> None:
        """A worker's process ended: see to its callers, and start another."""
        self._on_message(worker)  # what it said last
        asked = worker.state is State.DRAINING and returncode == 0
        worker.state = State.GONE
        self._workers.remove(worker)
        self._totals.retire(worker)
        self._has_counted(worker)
        self._loop.remove_reader(worker.channel.socket.fileno())
        reason = why_gone(worker.killed_for, returncode)
        computing = worker.board.in_flight()
        flying = {flown.slot: flown for flown in computing}
        decided = fates({slot: worker.board.owes(slot) for slot in worker.connections}, computing, reason)
        for slot, fate in decided.items():
            connection = worker.connections[slot]
            if fate is Fate.MOVES and connection.asked:  # it died before it looked at what it was to answer
                decided[slot] = Fate.AGAIN
            elif slot in flying and connection.asked is None:
                connection.asked, connection.asked_s = flying[slot], time.monotonic()
        if worker.models is self._tried:
            self._give_up_reload(f"the worker that loaded it is gone: {ending(returncode)}")
        if worker is self._trial:
            self._decide(None)
        tried = not worker.ready_s and worker.models is not self._models
        if not asked and not tried and worker.killed_for != "stop" and not self._over.is_set():
            unanswered = sum(fate in (Fate.LATE, Fate.UNAVAILABLE, Fate.CULPRIT) for fate in decided.values())
            self._note_death(worker, returncode, reason, unanswered)
        for slot, fate in decided.items():
            self._settle(worker.connections[slot], fate, worker.models)
        if not worker.models:
            os.close(worker.descriptor)
        worker.board.close()
        worker.channel.close()
        if self._stopping:
            self._end_if_done()
        else:
            self._start_missing()

    def _note_death(self, worker: Worker, returncode: int, reason: str, unanswered: int) -> None:
        now = time.monotonic()
        self._restarts[reason] = self._restarts.get(reason, 0) + 1
        if now - worker.started_s < _EARLY_S or not worker.ready_s:
            self._early_deaths.append(now)
        how = "it was stopped because it hung" if worker.killed_for == "hang" else ending(returncode)
        while_ = "" if worker.ready_s else " while it loaded"
        self._last_end = self._last_end if not worker.ready_s and returncode == 0 else f"a worker is gone: {how}{while_}"
        self._say("worker-gone", f"{self._last_end}; {unanswered} requests were not answered", process=worker.process.pid)

    def _settle(self, connection: Connection, fate: Fate, models: Sequence[Model]) -> None:
        """See to a connection whose worker is gone."""
        match fate:
            case Fate.MOVES:
                self._place(connection)
            case Fate.LATE:
                self._refuse(connection, DeadlineExceeded(f"the model did not answer within {self._settings.timeout_s:g} s"))
            case Fate.CULPRIT:
                self._deny(connection, models)
                self._refuse(connection, ModelFailed("the process ended when the model was asked"))
            case Fate.SUSPECT if not self._stopping:
                self._suspects.append(connection)
            case Fate.AGAIN if not self._stopping and not connection.replays and self._replay(connection, self._answering()):
                pass
            case Fate.AGAIN if not self._stopping and not connection.replays:
                self._suspects.append(connection)
            case _:
                self._refuse(connection, Unavailable("the process that was to answer has ended"))

    def _refuse(self, connection: Connection, error: ModelportError) -> None:
        request_id = connection.asked.request_id if connection.asked else ""
        self._dismiss(connection, responder.refusal(error, self._settings, request_id=request_id))

    # Requests that are asked again

    def _replay(self, connection: Connection, workers: Iterable[Worker]) -> bool:
        """Ask a worker what was asked on the connection."""
        asked = connection.asked
        assert asked is not None, "only what was kept is asked again"
        connection.replays += 1
        return self._give(connection, Replay(connection.slot, asked.service, asked.request_id, asked.body), workers)

    def _deny(self, connection: Connection, models: Sequence[Model]) -> None:
        """What ended a process is never asked again."""
        asked = connection.asked
        answering = [model for model in models if asked and model.answers(asked.service)]
        if asked is None or not answering:
            return
        denied = fingerprint(max(answering, key=lambda model: len(model.name)).digest, asked.service, asked.body)
        self._denied[denied] = None
        while len(self._denied) > _MOST_DENIED:
            del self._denied[next(iter(self._denied))]
        for worker in self._live(State.STARTING, State.READY, State.DRAINING):
            worker.channel.send(Deny([denied]))
        self._say("denied", f"request {asked.request_id} ended the process that answered it, and is not asked again", model=asked.service)

    def _test_next(self, worker: Worker) -> None:
        """Ask a worker about one suspect after another; then it is as the others."""
        worker.testing = None
        while self._suspects and worker.testing is None:
            suspect = self._suspects.popleft()
            if self._replay(suspect, [worker]):
                worker.testing = suspect
            else:
                self._refuse(suspect, Unavailable("the process that was to answer has ended"))
        if worker.testing is None:
            self._place_parked()

    def _expire_suspects(self) -> None:
        while self._suspects and time.monotonic() - self._suspects[0].asked_s > self._settings.timeout_s:
            self._refuse(self._suspects.popleft(), DeadlineExceeded(f"there was no answer within {self._settings.timeout_s:g} s"))

    def _watch(self) -> None:
        """Look at the boards of the workers: whoever hangs is ended and replaced."""
        now_ns = boards.now_ns()
        for worker in self._live(State.READY, State.DRAINING):
            if worker.killed_for:
                continue
            if is_hung(worker.board.read("heartbeat_ns"), worker.board.read("deadline_ns"), now_ns, self._settings.timeout_s):
                worker.killed_for = "hang"
                worker.process.kill()
        for worker in self._live(State.READY):
            if not worker.worn and is_worn(worker.board.read("memory_bytes"), worker.ready_bytes, self._settings.max_memory_bytes):
                self._wear_out(worker)
        self._expire_suspects()
        self._loop.call_later(_WATCH_S, self._watch)

    def _wear_out(self, worker: Worker) -> None:
        """A worker has grown too large: another takes its place, and then it gives back its connections."""
        worker.worn = True
        self._restarts["memory"] = self._restarts.get("memory", 0) + 1
        grown = f"a worker has grown from {worker.ready_bytes >> 20} to {worker.board.read('memory_bytes') >> 20} MB, and is replaced"
        self._log.event("worker-worn", detail=grown, process=worker.process.pid)
        self._start_missing()

    # What was counted

    async def totals(self) -> Snapshot:
        """What all workers have counted since the service started."""
        answered = asyncio.Event()
        asked = {worker for worker in self._live(State.READY, State.DRAINING) if worker.channel.send(Count())}
        if asked:
            self._counting.append((asked, answered))
            with suppress(TimeoutError):
                async with asyncio.timeout(_COUNT_WAIT_S):
                    await answered.wait()
            self._counting.remove((asked, answered))
        states = {state.value: len(self._live(state)) for state in State if state is not State.GONE}
        memory = {f"worker-{worker.number}": worker.board.read("memory_bytes") for worker in self._workers}
        memory["supervisor"] = resources.memory_of()
        outside = of_processes(restarts=self._restarts, workers=states, memory=memory)
        return self._totals.merged(self._metrics.snapshot(), outside)

    def _has_counted(self, worker: Worker) -> None:
        for unanswered, answered in self._counting:
            unanswered.discard(worker)
            if not unanswered:
                answered.set()

    async def _tell_totals(self, worker: Worker, number: int) -> None:
        snapshot = await self.totals()
        if worker.state is not State.GONE:
            worker.channel.send(TellTotals(number, snapshot))

    # Other models

    def _on_reload(self) -> None:
        """Told to look again what to serve."""
        if self._stopping or self._tried or self._looking or not self._was_ready:
            self._say("reload-failed", "not reloaded: the service is starting, stopping, or reloading already")
        else:
            self._look(self._on_other_models)

    def _look(self, then: Callable[[list[Model], Exception | None], None]) -> None:
        """Look what there is to serve, which may take long: on a thread that ends with the process."""

        def look() -> None:
            found: tuple[list[Model], Exception | None]
            try:
                found = list(self._resolve()), None
            except Exception as error:  # noqa: BLE001  it is told, or raised where the service runs
                found = [], error
            with suppress(RuntimeError):  # the loop has ended meanwhile
                self._loop.call_soon_threadsafe(have_found, *found)

        def have_found(models: list[Model], error: Exception | None) -> None:
            self._looking = False
            then(models, error)

        self._looking = True
        threading.Thread(target=look, name="look", daemon=True).start()

    def _on_other_models(self, models: list[Model], error: Exception | None) -> None:
        """Try what there is to serve now in a new worker, beside the old ones."""
        if error is not None:
            self._give_up_reload(str(error))
            return
        if models == self._models:
            self._log.event("reloaded", models=[f"{model.label} {model.digest}" for model in models], changed=False)
            return
        self._tried = models
        self._start(models)

    def _give_up_reload(self, reason: str) -> None:
        self._tried = None
        self._say("reload-failed", f"not reloaded, and served as before: {reason}")

    # Connections

    def _on_accept(self) -> None:
        """Take what connections there are; one at a time would be late, and more than some would keep the rest waiting."""
        for _ in range(64):
            if not self._free:
                self._pause_accepting("there are as many as the limit of open files allows")
                return
            try:
                accepted, _ = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:  # the system as a whole has too many open files
                self._pause_accepting(error.strerror or str(error))
                return
            accepted.setblocking(False)
            with suppress(OSError):  # the caller may be gone already
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._place(Connection(self._free.popleft(), accepted))

    def _pause_accepting(self, reason: str) -> None:
        """Let callers wait in the kernel for a moment; said at most once a minute."""
        now = time.monotonic()
        if now > self._said_full_s + 60:
            self._say("accept-failed", f"connections cannot be accepted: {reason}; they wait")
            self._said_full_s = now
        self._loop.remove_reader(self._listener.fileno())
        self._loop.call_later(_ACCEPT_PAUSE_S, self._accept_again)

    def _accept_again(self) -> None:
        if self._listener.fileno() >= 0:
            self._loop.add_reader(self._listener.fileno(), self._on_accept)

    def _place(self, connection: Connection) -> None:
        """Hand a connection that is owed nothing to a worker that answers; where there is none, look what is asked."""
        if not self._give(connection, Take(connection.slot), self._answering()):
            self._park(connection)

    def _open(self) -> list[Worker]:
        """The workers that take connections."""
        return [worker for worker in self._live(State.READY) if not worker.killed_for and worker.testing is None]

    def _answering(self) -> list[Worker]:
        """Those of them whose loop turns."""
        now_ns = boards.now_ns()
        return [worker for worker in self._open() if is_fresh(worker.board.read("heartbeat_ns"), now_ns, _FRESH_S)]

    def _give(self, connection: Connection, message: Take | Replay, workers: Iterable[Worker]) -> bool:
        for worker in fewest(workers):
            if worker.channel.send(message, [connection.socket.fileno()]):
                self._turn += 1
                worker.turn = self._turn
                worker.connections[connection.slot] = connection
                return True
        return False

    def _place_parked(self) -> None:
        for connection in list(self._parked.values()):
            self._unpark(connection)
            self._place(connection)

    def _park(self, connection: Connection) -> None:
        """Keep a connection until something is asked, or a worker is ready."""
        self._parked[connection.slot] = connection
        self._loop.add_reader(connection.socket.fileno(), self._on_parked, connection)

    def _unpark(self, connection: Connection) -> None:
        self._loop.remove_reader(connection.socket.fileno())
        del self._parked[connection.slot]

    def _on_parked(self, connection: Connection) -> None:
        """Something is asked while no worker answers: say how the service is; give the rest to a worker that may answer yet."""
        try:
            head = connection.socket.recv(65536, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            head = b""
        if not head:
            self._unpark(connection)
            self._forget(connection)
            return
        asked = responder.asked(head)
        testing = any(worker.testing for worker in self._workers) and not self._open()
        if asked is None or (testing and not responder.is_health(*asked, self._settings)):  # the rest of the line, or a worker, is near
            self._loop.remove_reader(connection.socket.fileno())
            self._loop.call_later(_HEAD_WAIT_S, self._look_again, connection)
            return
        self._unpark(connection)
        if responder.is_health(*asked, self._settings) or not self._give(connection, Take(connection.slot), self._open()):
            self._dismiss(connection, responder.answer(*asked, self._reason(), self._settings), asked[1])

    def _look_again(self, connection: Connection) -> None:
        if self._parked.get(connection.slot) is connection:
            self._loop.add_reader(connection.socket.fileno(), self._on_parked, connection)

    def _reason(self) -> str:
        """Why no worker answers."""
        if self._stopping:
            return "the service is stopping"
        if self._live(State.READY):
            return "every worker is busy"
        starting = self._live(State.STARTING)
        since = f"; it is loading for {time.monotonic() - starting[0].started_s:.0f} s" if starting else "; the next start comes soon"
        return (self._last_end or "the model is not ready") + since

    def _dismiss(self, connection: Connection, answer: bytes, path: str = "") -> None:
        """Answer and close. What the caller still sends is read and dropped for a while: closing at once would reset the connection, and
        the answer would be lost on its way (RFC 9112, section 9.6)."""
        self._metrics.answered("", route_of(path), int(answer[9:12]), 0.0, -1, 0.0, 0.0)
        try:
            connection.socket.send(answer)
            connection.socket.shutdown(socket.SHUT_WR)
        except OSError:  # the caller is gone, or reads nothing
            self._forget(connection)
            return
        timer = self._loop.call_later(_LINGER_S, self._end_lingering, connection)
        self._loop.add_reader(connection.socket.fileno(), self._drop, connection, timer)

    def _drop(self, connection: Connection, timer: asyncio.TimerHandle) -> None:
        try:
            more = bool(connection.socket.recv(65536))
        except BlockingIOError:
            return
        except OSError:
            more = False
        if not more:
            timer.cancel()
            self._end_lingering(connection)

    def _end_lingering(self, connection: Connection) -> None:
        self._loop.remove_reader(connection.socket.fileno())
        self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        connection.socket.close()
        self._free.append(connection.slot)

    # The end

    def _on_stop(self) -> None:
        """Told to stop: say so, take connections for a while yet, let what is under way finish. Told twice: end."""
        if self._stopping:
            self._end()
            return
        self._stopping = True
        if not self._was_ready:
            self._end()
            return
        for worker in self._live(State.READY):
            worker.channel.send(Drain())
        self._loop.call_later(self._settings.drain_delay_s, self._finish)

    def _finish(self) -> None:
        """Take no more connections; those there are end with the answers they are owed."""
        self._on_accept()  # who has connected already is answered
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()
        for connection in list(self._parked.values()):
            self._unpark(connection)
            self._forget(connection)
        for worker in self._live(State.STARTING):
            worker.killed_for = "stop"
            worker.process.kill()
        for worker in self._live(State.READY):
            worker.state = State.DRAINING
            worker.channel.send(Finish())
        self._loop.call_later(self._settings.grace_s, self._end)
        self._end_if_done()

    def _end_if_done(self) -> None:
        if self._stopping and self._listener.fileno() < 0 and not self._workers:
            self._over.set()

    def _end(self) -> None:
        """The time to finish is over."""
        unanswered = sum(worker.board.owes(slot) for worker in self._workers for slot in worker.connections)
        if unanswered:
            self._code = 1
            self._say("stopped-early", f"{unanswered} requests were still under way when the service ended", requests=unanswered)
        self._over.set()

    def _end_all(self) -> None:
        """End every process that is left; whoever is owed an answer gets an error."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            self._loop.remove_signal_handler(number)
        for worker in self._workers:
            worker.process.kill()
        for worker in list(self._workers):
            worker.killed_for = worker.killed_for or "stop"
            self._on_end(worker, worker.process.wait())

    def _say(self, event: str, text: str, **about: Any) -> None:
        """Tell whoever watches the service, in its log and on its terminal, what went wrong."""
        self._log.event(event, detail=text, **about)
        self._told(text)
