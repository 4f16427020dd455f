"""One process that holds the models and answers the connections it is given; the supervisor starts it and watches over it."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import os
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from email.utils import formatdate
from pathlib import Path
from typing import Any, TextIO

import uvloop

from modelport import engines
from modelport.bundle import Bundle, open_bundle
from modelport.engines import AnyEngine, Engine, Measured
from modelport.errors import BundleError, ModelportError, Unavailable
from modelport.serving import resources
from modelport.serving.app import Application, create_app
from modelport.serving.batching import Work
from modelport.serving.board import Board
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
    Ready,
    Release,
    Released,
    Replay,
    Replayed,
    Take,
    TellTotals,
    ToSupervisor,
    ToWorker,
)
from modelport.serving.fastpath import Connection, FastPath, Head
from modelport.serving.logs import Log
from modelport.serving.metrics import Snapshot
from modelport.serving.outputs import Answers
from modelport.serving.problems import problem
from modelport.serving.server import Server
from modelport.serving.service import Service, services_of
from modelport.serving.settings import Settings
from modelport.serving.tracing import NO_TRACE

BEAT_S = 0.025
"""How often the loop and the watch thread show that they run."""
_MEMORY_EVERY = 20
_LIBRARY_BYTES = 200 * 2**20
"""What a model's own library may take, with all that it brings in."""
_PAUSE_S = 0.5
"""A call may be late by this much because the machine paused."""
_FIRST_REQUEST_S = 0.5
"""Who has just connected is about to ask."""


def main(descriptor: int) -> None:
    """Serve as the process at the other end of the control socket says, until it says to stop or is gone."""
    faulthandler.enable()
    out = own_output()
    channel: Channel[ToSupervisor, ToWorker] = Channel(socket.socket(fileno=descriptor), ToWorker)
    first = channel.receive()
    if first is None:
        return
    begin, descriptors = first
    assert isinstance(begin, Begin), "a worker is told first what to serve"
    log = Log(out, lines_per_s=begin.settings.log_lines_per_s)
    board = Board(descriptors[0])
    os.close(descriptors[0])
    threading.Thread(target=_pulse, args=(board, begin.settings.grace_s), name="pulse", daemon=True).start()
    try:
        worker = Worker(application(begin, board, log), begin, channel, board)
    except Exception as error:  # noqa: BLE001  whatever it is, it is told before this process ends
        if not isinstance(error, ModelportError):
            log.failure(error, "")
        log.close()
        channel.send(Failed.of(error))
        return
    gc.collect()
    gc.freeze()
    uvloop.run(worker.serve())
    sys.stdout.flush()
    os._exit(0)  # threads of a model that is stuck, or of a library that ends slowly, have no say


def application(begin: Begin, board: Board, log: Log) -> Application:
    """What answers: the application of somebody else, or that of the models. ModelportError when it cannot be loaded."""
    if begin.settings.app:
        from modelport.serving import hosted

        return hosted.create(begin.models[0], begin.settings, log)
    return create_app(load(begin, board, log), begin.settings, log)


def load(begin: Begin, board: Board, log: Log) -> list[Service]:
    """The models, ready to answer. ModelportError when one cannot be loaded, or does not give its recorded answers."""
    recorder = Recorder(board)
    services: list[Service] = []
    for model in begin.models:
        bundle = open_bundle(Path(model.folder))
        if bundle.digest != model.digest:
            raise BundleError(f"{model.folder} was {model.digest} when it was checked, and is {bundle.digest} now")
        engine = _engine(bundle, begin.settings, log)
        services += services_of(model.name, model.version, bundle, engine, lambda name: Flight(recorder, name))
    for service in services:
        service.warm_up()
        service.denied.update(begin.denied)
    return services


def _engine(bundle: Bundle, settings: Settings, log: Log) -> AnyEngine:
    """The engine that was asked for; where none was, ONNX with the model's own library beside it, if that can be."""
    engine = engines.load(bundle, settings.engine)
    native = engines.beside(bundle) if settings.engine == "auto" else None
    examples = bundle.read_json("example.json")
    if native is None or not examples:
        return engine

    def other() -> Engine:
        if not _has_room(settings):
            raise Unavailable("another library beside ONNX might not fit into the memory")
        return native()

    def told(about: Mapping[str, Any]) -> None:
        gc.freeze()
        log.event("engine", model=bundle.name, process=os.getpid(), **about)

    return Measured(engine, other, examples, told=told)


def _has_room(settings: Settings) -> bool:
    """Whether all workers may load a library more."""
    return settings.max_memory_bytes is None and _LIBRARY_BYTES * (settings.workers or resources.cores()) < resources.memory_left()


class Worker:
    """The connections of this process, and what it is told to do with them."""

    def __init__(self, app: Application, begin: Begin, channel: Channel[ToSupervisor, ToWorker], board: Board) -> None:
        self._app = app
        self._app.totals = self._ask_totals
        services = list(app.services.values())
        self._asked: dict[int, asyncio.Future[Snapshot]] = {}
        self._questions = 0
        self._labels = [service.label for service in services]
        self._engines = [service.engine_name for service in services]
        self._row_s = sum(service.row_s for service in services)
        self._shared = FastPath(self._app, board=board)
        self._server = Server(self._app, begin.settings, Connection)
        self._server.config.load()
        self._channel, self._board = channel, board
        self._unsaid: deque[ToSupervisor] = deque()
        self._open: dict[int, Handed] = {}
        self._ending = False
        self._ended = asyncio.Event()
        self._beats = 0

    async def serve(self) -> None:
        """Answer connections until told to end."""
        self._loop = asyncio.get_running_loop()
        self._beat()
        self._channel.socket.setblocking(False)
        try:
            await self._app.start()
        except ModelportError as error:
            self._say(Failed.of(error))
            self._app.telemetry.close()
            return
        self._loop.add_reader(self._channel.socket.fileno(), self._hear)
        self._say(Ready(self._labels, self._engines, resources.memory_of(), self._row_s))
        await self._ended.wait()
        await self._app.stop()
        self._say_counted()
        self._app.telemetry.close()

    def _beat(self) -> None:
        self._board.write("heartbeat_ns", time.monotonic_ns())
        if self._beats % round(1 / BEAT_S) == 0:
            self._server.server_state.default_headers = [(b"date", formatdate(usegmt=True).encode())]
            self._say_counted()
        self._beats += 1
        self._say_all()
        self._loop.call_later(BEAT_S, self._beat)

    # What the supervisor says

    def _hear(self) -> None:
        while True:
            try:
                received = self._channel.receive()
            except BlockingIOError:
                return
            if received is None:
                self._loop.remove_reader(self._channel.socket.fileno())
                self._end(release=False)
                return
            self._obey(*received)

    def _obey(self, message: ToWorker, descriptors: list[int]) -> None:  # noqa: C901  a line for each message
        match message:
            case Take(slot):
                self._take(slot, socket.socket(fileno=descriptors[0]))
            case Replay(slot):
                self._take(slot, socket.socket(fileno=descriptors[0]), message)
            case Deny(fingerprints):
                for service in self._app.services.values():
                    service.denied.update(fingerprints)
            case Drain():
                self._app.draining = True
            case Count():
                self._say_counted()
            case TellTotals(number, snapshot):
                if number in self._asked and not self._asked[number].done():
                    self._asked[number].set_result(snapshot)
            case Release():
                self._end(release=True)
            case Finish():
                self._app.draining = True
                self._end(release=False)

    def _say_counted(self) -> None:
        """What was counted so far: now and then unasked, so that little is forgotten if this process dies."""
        self._unsaid = deque(message for message in self._unsaid if not isinstance(message, Counted))
        self._say(Counted(self._app.telemetry.metrics.snapshot()))

    async def _ask_totals(self) -> Snapshot:
        """What all workers have counted, which the supervisor knows."""
        self._questions += 1
        number = self._questions
        asked: asyncio.Future[Snapshot] = self._loop.create_future()
        self._asked[number] = asked
        self._say(AskTotals(number))
        try:
            return await asked
        finally:
            self._asked.pop(number, None)

    def _take(self, slot: int, connection: socket.socket, replay: Replay | None = None) -> None:
        protocol = Handed(self, self._shared, self._server, slot, connection)
        self._open[slot] = protocol
        self._loop.create_task(self._connect(protocol, connection, replay))

    async def _connect(self, protocol: Handed, connection: socket.socket, replay: Replay | None) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, connection)
        except OSError:  # the caller is gone already
            connection.close()
            self.closed(protocol.slot)
            return
        if replay is not None:
            protocol.replay(replay)
        if self._ending:
            self._let_go(protocol)

    def _end(self, *, release: bool) -> None:
        """Let go of every connection at its next boundary, then end."""
        self._ending, self._release = True, release
        for protocol in list(self._open.values()):
            if protocol.transport is not None:
                self._let_go(protocol)
        self._end_if_done()

    def _let_go(self, protocol: Handed) -> None:
        if self._release:
            protocol.release()
        else:
            protocol.finish()

    def _end_if_done(self) -> None:
        if self._ending and not self._open:
            self._ended.set()

    # What is said of connections

    def replayed(self, slot: int) -> None:
        """What was to be replayed on the connection has its answer, which is about to be written."""
        self._say(Replayed(slot))

    def closed(self, slot: int) -> None:
        """This process has let go of the connection."""
        protocol = self._open.pop(slot)
        self._board.clear(slot)
        self._say(Released(slot) if protocol.given_back and protocol.is_idle else Closed(slot))
        self._end_if_done()

    def _say(self, message: ToSupervisor) -> None:
        self._unsaid.append(message)
        self._say_all()

    def _say_all(self) -> None:
        """Say what has not been said yet; what the supervisor does not take now waits for the next beat."""
        while self._unsaid and self._channel.send(self._unsaid[0]):
            self._unsaid.popleft()


class Handed(Connection):
    """A connection that the supervisor accepted, and takes back when this process ends or dies."""

    def __init__(self, worker: Worker, shared: FastPath, server: Server, slot: int, connection: socket.socket) -> None:
        super().__init__(shared, server.config, server.server_state, {}, slot=slot)
        self.slot = slot
        self._worker, self._connection = worker, connection
        self.given_back = False
        """Whether the connection is to stay open when this process lets go of it."""

    @property
    def is_idle(self) -> bool:
        """Whether it stands between two requests: nothing is owed, and nothing of the next was read."""
        return self._between and not self._pending and not self._is_cycle_open()

    def replay(self, asked: Replay) -> None:
        """Answer what another process had read when it died, as if it had just come."""
        shared = self._shared
        service = shared.app.services.get(asked.service)
        if service is not None:
            batcher, path = service.batcher(shared.settings), f"/models/{service.name}/predict"
            headers = shared._headers(service, b"", None)
            length = len(asked.body)
            head = Head(service, batcher, service.inputs.quick, path, length, "", asked.request_id, NO_TRACE, None, headers)
            self._done = self._on_replayed
            taken = self._take(head, asked.body)
            self._done = self._on_answer
            if taken:
                return
        error = Unavailable("the process that was to answer has ended")
        answer = problem(error, "/predict", asked.request_id)
        self._worker.replayed(self.slot)
        self._sending()
        self.transport.write(shared.failure(answer, self.server_state, asked.request_id, None, closing=True))
        self.transport.close()

    def _on_replayed(self, request: Any, answers: Answers | None, start: int, error: Exception | None) -> None:
        """Said before the answer is written: or else, if this process died in between, a third would be asked."""
        self._worker.replayed(self.slot)
        self._on_answer(request, answers, start, error)

    def release(self) -> None:
        """Give the connection back as soon as it stands between two requests."""
        self.given_back = True
        self._leave_if_idle()

    def finish(self) -> None:
        """Close the connection with the next answer; at once, if nothing of a request is there and none is about to come."""
        if self._asked:
            self._finish_now()
        else:
            self.loop.call_later(_FIRST_REQUEST_S, self._finish_now)

    def _finish_now(self) -> None:
        if not self.transport.is_closing() and not (self.is_idle and _has_come(self._connection)):
            self.shutdown()

    def _leave_if_idle(self) -> None:
        if self.given_back and self.is_idle and not self._ending:
            self._ending = True
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._worker.closed(self.slot)

    # What has begun to arrive is owed an answer, whatever way it takes then.

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._count(1)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._count(-1)
        self._leave_if_idle()

    def _count(self, change: int) -> None:
        assert self._shared.board is not None
        self._shared.board.owed(self.slot, change)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._leave_if_idle()

    def _after_last(self, *, closing: bool) -> None:
        super()._after_last(closing=closing)
        self._leave_if_idle()


class Recorder:
    """Writes on the board what the models are computing; several may compute at once, each on a thread of its own."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self._lock = threading.Lock()
        self._running: dict[str, tuple[Sequence[Work[Any, Any]], float]] = {}

    def write(self, name: str, running: tuple[Sequence[Work[Any, Any]], float] | None) -> None:
        """What the model `name` computes now: requests, and when that should be over."""
        with self._lock:
            if running is None:
                del self._running[name]
            else:
                self._running[name] = running
            if self._running:
                works = [work for works, _ in self._running.values() for work in works]
                self.board.begin(works, min(deadline_s for _, deadline_s in self._running.values()))
            else:
                self.board.end()


class Flight:
    """What one model is computing, when it should be done with it, and what waits for it."""

    def __init__(self, recorder: Recorder, name: str) -> None:
        self._recorder, self._name = recorder, name
        self._longest_s = 0.0
        self._begun_s = 0.0

    def wait(self, work: Work[Any, Any]) -> None:
        self._recorder.board.wait(work)

    def begin(self, works: Sequence[Work[Any, Any]], deadline_s: float) -> None:
        """The call should be over by the deadline; where it began late, in the time that calls may well take."""
        self._begun_s = time.monotonic()
        self._recorder.write(self._name, (works, max(deadline_s, self._begun_s + 2 * self._longest_s, self._begun_s + _PAUSE_S)))

    def end(self) -> None:
        self._recorder.write(self._name, None)
        self._longest_s = max(self._longest_s, time.monotonic() - self._begun_s)


def _has_come(connection: socket.socket) -> bool:
    """Whether there is something to read."""
    try:
        return bool(connection.recv(1, socket.MSG_PEEK))
    except OSError:
        return False


def own_output() -> TextIO:
    """The standard output for the log alone: what a model prints goes where errors go, and if it closes that, nothing is lost."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="backslashreplace")
    os.dup2(2, 1)
    return out


def _pulse(board: Board, grace_s: float) -> None:
    """Show that the interpreter's lock can be had, whatever the loop does; and how much memory there is in use.

    When the supervisor is gone the loop ends by itself; a load or a call that never ends is given so long.
    """
    beats, parent, alone_s = 0, os.getppid(), 0.0
    while alone_s <= grace_s:
        if beats % _MEMORY_EVERY == 0:
            board.write("memory_bytes", resources.memory_of())
            alone_s = alone_s + _MEMORY_EVERY * BEAT_S if os.getppid() != parent else 0.0
        board.write("pulse_ns", time.monotonic_ns())
        beats += 1
        time.sleep(BEAT_S)
    os._exit(1)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main(int(sys.argv[1]))
