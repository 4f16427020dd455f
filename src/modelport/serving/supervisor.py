"""Starts workers and watches over them, so that every caller gets an answer whatever becomes of a worker.

It loads no model. The connections of callers are its own (connections.py): it hands each to a worker, keeps a descriptor of it, and sees
what it is owed on the board that it shares with the worker (board.py).
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count
from typing import Any

from modelport import frameworks
from modelport.serving import board as boards
from modelport.serving import cgroup, exporter, resources
from modelport.serving.board import Board
from modelport.serving.connections import Connections
from modelport.serving.control import (
    AskTotals,
    Begin,
    Channel,
    Closed,
    Count,
    Counted,
    Drain,
    Failed,
    Finish,
    Model,
    Ready,
    Release,
    Released,
    Replayed,
    TellTotals,
    ToSupervisor,
    pair,
)
from modelport.serving.listener import bind
from modelport.serving.logs import Log
from modelport.serving.metrics import Metrics, Snapshot, Totals, of_processes
from modelport.serving.reloading import Reception
from modelport.serving.rollout import Rollout
from modelport.serving.settings import Settings
from modelport.serving.sizing import Stated, arithmetic
from modelport.serving.workers import FRESH_S, State, Worker, ending, fitting, is_fresh, is_hung, is_worn, pause_s, surplus, why_gone

_WATCH_S = 0.05
_EARLY_S = 10.0
"""A worker that dies sooner after its start is no better than the one before it."""
_REMEMBERED_S = 120.0
_COUNT_WAIT_S = 0.1
"""How long workers have to say what they have counted; of one that does not answer, what it said last is taken."""
_LET_GO_S = 0.2
_JUMP_S = 0.5
"""By less, a clock is only adjusted."""


def run(
    resolve: Callable[[], Sequence[Model]],
    settings: Settings,
    started: Callable[[str, int], None],
    told: Callable[[str], None],
    log: Log | None = None,
    changed: Callable[[], bool] | None = None,
) -> int:
    """Serve until told to stop by SIGTERM or SIGINT; `started` is called with the address when the first worker is ready, and `told` with
    whatever happens to the service itself. `resolve` says what to serve, now and again whenever it is told to reload; and
    when `changed`, which is asked a few times a second, says so.

    The exit code: 0, or 1 when requests were still under way when their time to end was over. UsageError when the address cannot be had;
    whatever ModelportError the models fail with.
    """
    resources.raise_open_files()
    listener = bind(settings.host, settings.port)
    scraped = exporter.bind_metrics(settings)
    log = log or Log()
    try:
        return asyncio.run(Supervisor(resolve, settings, listener, started, told, log, scraped, changed).serve())
    finally:
        listener.close()
        log.close()


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
        changed: Callable[[], bool] | None = None,
    ) -> None:
        self._resolve, self._settings, self._listener = resolve, settings, listener
        self._changed = changed
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
        self._restarts = {"crash": 0, "killed": 0, "hang": 0, "oom": 0}
        self._out_of_memory = cgroup.out_of_memory_kills()
        """How many processes the system had ended for want of memory when it was last looked."""
        self._counting: list[tuple[set[Worker], asyncio.Event]] = []
        """Who asks what was counted: the workers that have not answered, and what is set when all have."""
        self._telling: set[asyncio.Task[None]] = set()
        self._was_ready = False
        self._wall_s = _wall_s() or 0.0
        """The wall clock, by the clock that does not jump."""
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
        self._connections = Connections(self._listener, self._settings, self._workers, self._metrics, self._reason, self._say)
        self._rollout = Rollout(self._resolve, self._workers, self._start, self._say)
        loop.add_signal_handler(signal.SIGTERM, self._on_stop)
        loop.add_signal_handler(signal.SIGINT, self._on_stop)
        loop.add_signal_handler(signal.SIGHUP, self._rollout.ask)
        loop.add_signal_handler(signal.SIGCHLD, self._on_child)
        reception = self._receive_askers()
        first = self._spawn(self._size.threads)  # it gets ready for any model, while it is looked which
        self._rollout.look(lambda models, error: self._on_models(first, models, error))
        self._watch()
        if self._changed is not None:
            self._rollout.watch(self._changed)
        scraped = await exporter.serve(self._scraped, self._settings, self.totals) if self._scraped else None
        try:
            await self._over.wait()
        finally:
            if scraped is not None:
                scraped.close()
            if reception is not None:
                reception.close()
            self._end_all()
        if self._error is not None:
            raise self._error
        return self._code

    # Workers

    def _live(self, *states: State) -> list[Worker]:
        return [worker for worker in self._workers if worker.state in states]

    def _on_models(self, first: Worker, models: list[Model], error: Exception | None) -> None:
        """What there is to serve was found, or not: then the service ends before it began."""
        self._rollout.models = models
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
        worker.channel.send(Begin(models, self._settings, list(self._connections.denied)), [worker.descriptor])
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
        cgroup.offer(process.pid)
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
        if self._stopping or not self._rollout.models or self._start_timer or len(serving) >= self._wanted or self._live(State.STARTING):
            return
        now = time.monotonic()
        while self._early_deaths and self._early_deaths[0] < now - _REMEMBERED_S:
            self._early_deaths.popleft()
        self._start_timer = self._loop.call_later(pause_s(len(self._early_deaths)), self._start_again)

    def _start_again(self) -> None:
        self._start_timer = None
        try:
            self._start(self._rollout.models)
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
                self._connections.closed(worker, slot)
            case Replayed(slot):
                self._connections.replayed(worker, slot)
            case Released(slot):
                self._connections.released(worker, slot)
            case Counted(snapshot):
                self._totals.update(worker, snapshot)
                self._has_counted(worker)
            case AskTotals(number):
                task = self._loop.create_task(self._tell_totals(worker, number))
                self._telling.add(task)
                task.add_done_callback(self._telling.discard)

    def _on_ready(self, worker: Worker, ready: Ready) -> None:
        if worker.killed_for:  # it is not wanted any more
            return
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
        self._rollout.ready(worker, ready.engines)
        self._release_old()
        self._connections.resume(worker)
        self._start_missing()
        self._rollout.tell_if_over()

    def _release_old(self) -> None:
        """What is to be replaced makes place: one worker for each new one, and the rest with the last."""
        ready = self._live(State.READY)
        old = [worker for worker in ready if self._is_old(worker)]
        for worker in old[: surplus(len(ready) - len(old), len(old), self._wanted)]:
            worker.state = State.DRAINING
            worker.channel.send(Release())

    def _is_old(self, worker: Worker) -> bool:
        return worker.worn or worker.models is not self._rollout.models or worker.threads != self._size.threads

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
            self._begin(self._trial, self._rollout.models)
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
        if self._rollout.tries(worker):
            self._rollout.refuse(failed)
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
                with suppress(ChildProcessError):  # whoever started it may have waited for it
                    os.waitpid(ended.si_pid, 0)
            else:
                self._on_end(worker, worker.process.wait())

    def _on_end(self, worker: Worker, returncode: int) -> None:
        """A worker's process ended: see to its callers, and start another."""
        self._on_message(worker)  # what it said last
        asked = worker.state is State.DRAINING and returncode == 0 and not worker.killed_for
        worker.state = State.GONE
        self._workers.remove(worker)
        self._totals.retire(worker)
        self._has_counted(worker)
        self._loop.remove_reader(worker.channel.socket.fileno())
        reason = why_gone(worker.killed_for, returncode, no_memory=self._has_run_out_of_memory())
        decided = self._connections.decide(worker, reason)
        how = ending(returncode, reason)
        if worker is self._trial:
            self._decide(None)
        tried = not worker.ready_s and worker.models is not self._rollout.models
        lost = not asked and worker.killed_for != "stop"
        self._rollout.gone(worker, how if lost else "")
        if lost and not tried and not self._over.is_set():
            self._note_death(worker, reason, how, sum(fate.is_loss for fate in decided.values()), at_load=returncode != 0)
        self._connections.settle(decided, worker)
        if not worker.models:
            os.close(worker.descriptor)
        worker.board.close()
        worker.channel.close()
        if self._stopping:
            self._end_if_done()
        else:
            self._start_missing()
            self._rollout.tell_if_over()

    def _note_death(self, worker: Worker, reason: str, how: str, unanswered: int, *, at_load: bool) -> None:
        """A worker died; `at_load` unless it has said itself why it does not get ready."""
        now = time.monotonic()
        self._restarts[reason] = self._restarts.get(reason, 0) + 1
        if now - worker.started_s < _EARLY_S or not worker.ready_s:
            self._early_deaths.append(now)
        if worker.ready_s:
            self._last_end = f"a worker is gone: {how}"
        elif at_load:
            self._last_end = f"a worker is gone: {how} while it loaded"
        self._say("worker-gone", f"{self._last_end}; {unanswered} requests were not answered", process=worker.process.pid)

    def _has_run_out_of_memory(self) -> bool:
        """Whether the system has ended a process of this control group for want of memory since it was last asked."""
        before, self._out_of_memory = self._out_of_memory, cgroup.out_of_memory_kills()
        return self._out_of_memory > before

    # Time

    def _watch(self) -> None:
        """Look at the boards of the workers: whoever hangs is ended and replaced."""
        now_ns = boards.now_ns()
        for worker in self._live(State.READY, State.DRAINING):
            heartbeat_ns = worker.board.read("heartbeat_ns")
            if is_hung(heartbeat_ns, worker.board.read("deadline_ns"), now_ns, self._settings.timeout_s):
                self._end_hung(worker, is_fresh(heartbeat_ns, now_ns, FRESH_S))
        for worker in self._live(State.READY):
            if not worker.worn and is_worn(worker.board.read("memory_bytes"), worker.ready_bytes, self._settings.max_memory_bytes):
                self._wear_out(worker)
        self._connections.expire()
        self._watch_clock()
        self._loop.call_later(_WATCH_S, self._watch)

    def _watch_clock(self) -> None:
        """Say it where the wall clock was set: the times in the log, and in ids, do not follow each other then. Nothing waits by it."""
        now_s = _wall_s()
        if now_s is not None:
            jump_s, self._wall_s = now_s - self._wall_s, now_s
            if abs(jump_s) >= _JUMP_S:
                text = f"the machine's clock was set {abs(jump_s):.1f} s {'forward' if jump_s > 0 else 'back'}"
                self._log.event("clock-set", detail=text, seconds=round(jump_s, 3))

    def _end_hung(self, worker: Worker, is_turning: bool) -> None:
        """Kill a worker that hangs; while its loop turns, it may first give back the connections on which nothing is owed."""
        now = time.monotonic()
        if not worker.killed_for:
            worker.killed_for, worker.hung_s = "hang", now
            if is_turning and worker.state is State.READY and worker.channel.send(Release()):
                return
        if not is_turning or now - worker.hung_s > _LET_GO_S:
            worker.process.kill()

    def _wear_out(self, worker: Worker) -> None:
        """A worker has grown too large: another takes its place, and then it gives back its connections."""
        worker.worn = True
        self._restarts["memory"] = self._restarts.get("memory", 0) + 1
        grown = f"a worker has grown from {worker.ready_bytes >> 20} to {worker.board.read('memory_bytes') >> 20} MB, and is replaced"
        self._log.event("worker-worn", detail=grown, process=worker.process.pid)
        self._start_missing()

    def _reason(self) -> str:
        """Why no worker answers."""
        if self._stopping:
            return "the service is stopping"
        if self._live(State.READY):
            return "every worker is busy"
        starting = self._live(State.STARTING)
        since = f"; it is loading for {time.monotonic() - starting[0].started_s:.0f} s" if starting else "; the next start comes soon"
        return (self._last_end or "the model is not ready") + since

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

    def _receive_askers(self) -> Reception | None:
        """Let `modelport reload` ask; where that cannot be, SIGHUP still does."""
        host, port = self._listener.getsockname()[:2]
        try:
            return Reception(host, port, self._rollout.ask)
        except OSError as error:
            self._log.event("reload-by-signal", detail=f"`modelport reload` cannot reach this service, and SIGHUP can: {error}")
            return None

    # The end

    def _on_stop(self) -> None:
        """Told to stop: say so, take connections for a while yet, let what is under way finish. Told twice: end."""
        if self._stopping:
            self._end()
            return
        self._stopping = True
        self._rollout.stop()
        self._connections.stop()
        if not self._was_ready:
            self._end()
            return
        for worker in self._live(State.READY):
            worker.channel.send(Drain())
        self._loop.call_later(self._settings.drain_delay_s, self._finish)

    def _finish(self) -> None:
        """Take no more connections; those there are end with the answers they are owed."""
        self._connections.close()
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
        left = [worker.board.left(worker.connections) for worker in self._workers]
        unanswered = sum(sum(one.owed.values()) + len(one.cut) for one in left)
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
        self._connections.end()

    def _say(self, event: str, text: str, **about: Any) -> None:
        """Tell whoever watches the service, in its log and on its terminal, what happened to it."""
        self._log.event(event, detail=text, **about)
        self._told(text)


def _wall_s() -> float | None:
    """The wall clock by the clock that does not jump; None where that cannot be told, as this process was interrupted in between."""
    before = time.monotonic()
    wall = time.time()
    return wall - before if time.monotonic() - before < _JUMP_S / 10 else None
