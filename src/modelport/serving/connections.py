"""The callers' connections: each is accepted, handed to a worker, and seen to when that worker is gone.

What a caller is owed then follows from the board that the worker has left (`fates`). Where nothing was read, another worker takes the
connection as it is; what waited, or was interrupted from outside, another worker is asked; what may have ended the process is asked again
alone; whoever cannot be helped gets an error. A caller who has had a part of its answer can get nothing more: its connection ends.
"""

from __future__ import annotations

import asyncio
import enum
import math
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress

from modelport.errors import DeadlineExceeded, ModelFailed, ModelportError, Unavailable
from modelport.serving import board as boards
from modelport.serving import resources, responder
from modelport.serving.board import Left
from modelport.serving.control import Deny, Model, Replay, Take, fingerprint
from modelport.serving.listener import BACKLOG
from modelport.serving.metrics import Metrics
from modelport.serving.settings import Settings
from modelport.serving.telemetry import route_of
from modelport.serving.workers import FRESH_S, Connection, State, Worker, fewest, is_fresh

_LINGER_S = 2.0
_HEAD_WAIT_S = 0.02
_ACCEPT_PAUSE_S = 0.05
_MOST_DENIED = 1000
_GONE = "the process that was to answer has ended"


class Fate(enum.Enum):
    """What becomes of a connection whose worker is gone."""

    MOVES = "another worker takes it as it is"
    WAITED = "another worker is asked what had not begun"
    AGAIN = "another worker is asked what was computed, once"
    SUSPECT = "what may have ended the process is asked again, alone"
    CULPRIT = "500, and never asked again: it was alone in the call that ended the process"
    LATE = "504"
    UNAVAILABLE = "503"
    CUT = "it ends: some of an answer may have left, and of that nothing is known but to the caller"

    @property
    def is_loss(self) -> bool:
        """Whether the caller does not get what it asked for."""
        return self in (Fate.CULPRIT, Fate.LATE, Fate.UNAVAILABLE, Fate.CUT)


def fates(left: Left, reason: str, *, tested: bool = False) -> dict[int, Fate]:
    """What becomes of the connections of a worker that is gone, by slot, from what it has left undone.

    `reason` is "hang", "stop", "killed", "oom" or "crash". Only what was computed when the process ended by itself is suspected to be the
    cause. Memory may run out through no fault of the last request, so it is not condemned unless the worker was `tested` with it alone.
    """
    by_slot: dict[int, int] = {}
    for flown in left.computing:
        by_slot[flown.slot] = by_slot.get(flown.slot, 0) + 1
    with_body = {flown.slot for flown in left.computing if flown.body}
    decided = {}
    for slot, answers in left.owed.items():
        flying = by_slot.get(slot, 0)
        kept = flying == answers == 1 and slot in with_body
        if slot in left.cut:
            decided[slot] = Fate.CUT
        elif not answers:
            decided[slot] = Fate.MOVES
        elif answers == 1 and slot in left.waiting and not flying and reason != "stop":
            decided[slot] = Fate.WAITED
        elif reason == "hang" and flying:
            decided[slot] = Fate.LATE
        elif reason in ("crash", "oom") and kept:
            decided[slot] = Fate.CULPRIT if len(left.computing) == 1 and (tested or reason == "crash") else Fate.SUSPECT
        elif reason == "killed" and kept:
            decided[slot] = Fate.AGAIN
        else:
            decided[slot] = Fate.UNAVAILABLE
    return decided


class Connections:
    """The connections of one service. Made and used on the supervisor's loop."""

    def __init__(
        self,
        listener: socket.socket,
        settings: Settings,
        workers: list[Worker],
        metrics: Metrics,
        reason: Callable[[], str],
        say: Callable[..., None],
    ) -> None:
        """`workers` are all there are, at any time; `reason` says why none answers, and `say` tells of what went wrong."""
        self._listener, self._settings, self._workers = listener, settings, workers
        self._metrics, self._reason, self._say = metrics, reason, say
        self._loop = asyncio.get_running_loop()
        self.denied: dict[bytes, None] = {}
        """The fingerprints of requests that have ended a process."""
        self._free = deque(range(resources.most_connections(boards.SLOTS)))
        self._open: set[Connection] = set()
        self._parked: dict[int, Connection] = {}
        self._suspects: deque[Connection] = deque()
        self._unasked: deque[Connection] = deque()
        """Those for which a worker is to be asked again, when there is one."""
        self._turn = 0
        self._ending = False
        self._said_full_s = -math.inf
        self._loop.add_reader(listener.fileno(), self._on_accept)

    # From callers

    def _on_accept(self, most: int = 64) -> None:
        """Take what connections there are; one at a time would be late, and more than some would keep the rest waiting."""
        for _ in range(most):
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
            connection = Connection(self._free.popleft(), accepted)
            self._open.add(connection)
            self._place(connection)

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

    # To workers

    def _taking(self) -> list[Worker]:
        """The workers that take connections."""
        return [worker for worker in self._workers if worker.state is State.READY and not worker.killed_for and worker.testing is None]

    def _answering(self) -> list[Worker]:
        """Those of them whose loop turns."""
        now_ns = boards.now_ns()
        return [worker for worker in self._taking() if is_fresh(worker.board.read("heartbeat_ns"), now_ns, FRESH_S)]

    def _place(self, connection: Connection) -> None:
        """Hand a connection that is owed nothing to a worker that answers; where there is none, look what is asked."""
        if not self._give(connection, Take(connection.slot), self._answering()):
            self._park(connection)

    def _give(self, connection: Connection, message: Take | Replay, workers: Iterable[Worker]) -> bool:
        for worker in fewest(workers):
            if worker.channel.send(message, [connection.socket.fileno()]):
                self._turn += 1
                worker.turn = self._turn
                worker.connections[connection.slot] = connection
                return True
        return False

    def resume(self, worker: Worker) -> None:
        """A worker is ready, or has answered a suspect: ask it about one suspect after another; then it is as the others."""
        worker.testing = None
        while self._suspects and worker.testing is None:
            suspect = self._suspects.popleft()
            suspect.replays += 1
            if self._replay(suspect, [worker]):
                worker.testing = suspect
            else:
                self._refuse(suspect, Unavailable(_GONE))
        if worker.testing is None:
            for connection in [self._unasked.popleft() for _ in range(len(self._unasked))]:
                self._ask_again(connection)
            for connection in list(self._parked.values()):
                self._unpark(connection)
                self._place(connection)

    def _replay(self, connection: Connection, workers: Iterable[Worker]) -> bool:
        """Ask a worker what was asked on the connection, or let it read that."""
        asked = connection.asked
        if asked is None:
            return self._give(connection, Take(connection.slot), workers)
        return self._give(connection, Replay(connection.slot, asked.service, asked.request_id, asked.body), workers)

    def _ask_again(self, connection: Connection) -> None:
        """Ask a worker that answers, or the first that is ready."""
        if not self._replay(connection, self._answering()):
            self._unasked.append(connection)

    # From workers

    def closed(self, worker: Worker, slot: int) -> None:
        """The worker has closed the connection."""
        connection = worker.connections.pop(slot)
        self._forget(connection)
        if worker.testing is connection:
            self.resume(worker)

    def replayed(self, worker: Worker, slot: int) -> None:
        """What was asked again has its answer."""
        connection = worker.connections[slot]
        connection.asked, connection.replays = None, 0
        if worker.testing is connection:
            self.resume(worker)

    def released(self, worker: Worker, slot: int) -> None:
        """The worker gives the connection back, which is owed nothing."""
        self._place(worker.connections.pop(slot))

    # Where the worker is gone

    def decide(self, worker: Worker, reason: str) -> dict[Connection, Fate]:
        """What becomes of the connections of a worker that is gone."""
        left = worker.board.left(worker.connections)
        computing = {flown.slot: flown for flown in left.computing}
        decided = {}
        for slot, fate in fates(left, reason, tested=worker.testing is not None).items():
            connection = worker.connections[slot]
            connection.asked_s = time.monotonic()
            if fate is not Fate.MOVES:
                connection.asked = connection.asked or computing.get(slot) or left.waiting.get(slot)
            elif connection.asked:  # it died before it looked at what it was to answer
                fate = Fate.WAITED
            decided[connection] = fate
        return decided

    def settle(self, decided: Mapping[Connection, Fate], worker: Worker) -> None:
        """See to the connections whose worker is gone."""
        for connection, fate in decided.items():
            match fate:
                case Fate.MOVES:
                    self._move(connection)
                case Fate.CUT:
                    self._forget(connection)
                case Fate.LATE:
                    self._refuse(connection, DeadlineExceeded(f"the model did not answer within {self._settings.timeout_s:g} s"))
                case Fate.CULPRIT:
                    self._deny(connection, worker.models)
                    self._refuse(connection, ModelFailed("the process ended when the model was asked"))
                case Fate.WAITED if not self._ending:
                    self._ask_again(connection)
                case Fate.AGAIN if not self._ending and not connection.replays:
                    connection.replays += 1
                    self._ask_again(connection)
                case Fate.SUSPECT if not self._ending:
                    self._suspects.append(connection)
                case _:
                    self._refuse(connection, Unavailable(_GONE))

    def _move(self, connection: Connection) -> None:
        """Hand on a connection of which nothing was read. Where somebody has asked, and not for health, it waits for the next worker."""
        if not self._give(connection, Take(connection.slot), self._answering()):
            head = _peek(connection)
            asked = responder.asked(head) if head else None
            if asked is None or responder.is_health(*asked, self._settings) or self._ending:
                self._park(connection)
            else:
                self._unasked.append(connection)

    def _deny(self, connection: Connection, models: Sequence[Model]) -> None:
        """What ended a process is never asked again."""
        asked = connection.asked
        answering = [model for model in models if asked and model.answers(asked.service)]
        if asked is None or not answering:
            return
        denied = fingerprint(max(answering, key=lambda model: len(model.name)).digest, asked.service, asked.body)
        self.denied[denied] = None
        while len(self.denied) > _MOST_DENIED:
            del self.denied[next(iter(self.denied))]
        for worker in self._workers:
            if worker.models:
                worker.channel.send(Deny([denied]))
        self._say("denied", f"request {asked.request_id} ended the process that answered it, and is not asked again", model=asked.service)

    def expire(self) -> None:
        """Tell those who have waited too long to be asked again."""
        since_s = time.monotonic() - self._settings.timeout_s
        for waiting in (self._suspects, self._unasked):
            while waiting and waiting[0].asked_s < since_s:
                self._refuse(waiting.popleft(), DeadlineExceeded(f"there was no answer within {self._settings.timeout_s:g} s"))

    # While none answers

    def _park(self, connection: Connection) -> None:
        """Keep a connection until something is asked, or a worker is ready."""
        self._parked[connection.slot] = connection
        self._loop.add_reader(connection.socket.fileno(), self._on_parked, connection)

    def _unpark(self, connection: Connection) -> None:
        self._loop.remove_reader(connection.socket.fileno())
        del self._parked[connection.slot]

    def _on_parked(self, connection: Connection) -> None:
        """Something is asked while no worker answers: say how the service is; give the rest to a worker that may answer yet."""
        head = _peek(connection)
        if head is None:
            return
        if not head:
            self._unpark(connection)
            self._forget(connection)
            return
        asked = responder.asked(head)
        testing = any(worker.testing for worker in self._workers) and not self._taking()
        if asked is None or (testing and not responder.is_health(*asked, self._settings)):  # the rest of the line, or a worker, is near
            self._loop.remove_reader(connection.socket.fileno())
            self._loop.call_later(_HEAD_WAIT_S, self._look_again, connection)
            return
        self._unpark(connection)
        if responder.is_health(*asked, self._settings) or not self._give(connection, Take(connection.slot), self._taking()):
            self._dismiss(connection, responder.answer(*asked, self._reason(), self._settings), asked[1])

    def _look_again(self, connection: Connection) -> None:
        if self._parked.get(connection.slot) is connection:
            self._loop.add_reader(connection.socket.fileno(), self._on_parked, connection)

    def _refuse(self, connection: Connection, error: ModelportError) -> None:
        request_id = connection.asked.request_id if connection.asked else ""
        self._dismiss(connection, responder.refusal(error, self._settings, request_id=request_id))

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
        self._open.remove(connection)
        self._free.append(boards.next_slot(connection.slot))

    # The end

    def stop(self) -> None:
        """The service stops, and takes connections for a while yet: nothing is asked again."""
        self._ending = True

    def close(self) -> None:
        """Take no more connections, and keep none that no worker has."""
        self._ending = True
        self._on_accept(BACKLOG)  # who has connected already is answered
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()
        for connection in list(self._parked.values()):
            self._unpark(connection)
            self._forget(connection)
        for connection in (*self._suspects, *self._unasked):
            self._refuse(connection, Unavailable("the service is stopping"))
        self._suspects.clear()
        self._unasked.clear()

    def end(self) -> None:
        """Let go of those that are still there, also of those whose callers have not read the end."""
        for connection in self._open:
            self._loop.remove_reader(connection.socket.fileno())
            connection.socket.close()


def _peek(connection: Connection) -> bytes | None:
    """What has come and was not read: None where nothing has, and b"" where the caller is gone."""
    try:
        return connection.socket.recv(65536, socket.MSG_PEEK)
    except BlockingIOError:
        return None
    except OSError:
        return b""
