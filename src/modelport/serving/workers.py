"""A worker as the supervisor sees it: a process, what it was told and has said, and what follows from how it does.

starting --Ready--> ready --Release, Finish--> draining
    any of them --the process ended--> gone
"""

from __future__ import annotations

import enum
import signal
import socket
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field

from modelport.serving.board import Board, Flown
from modelport.serving.control import Channel, Model, ToSupervisor, ToWorker

FRESH_S = 0.1
"""A worker whose loop turned within this time answers."""
_LATE_S = 0.25
"""How long after its deadline a call is waited for: the worker's own 504 comes first."""
_LONGEST_PAUSE_S = 30.0


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
    """Why the supervisor ends it: "hang", "stop"; '' where it does not."""
    hung_s: float = 0.0
    """When it was found to hang."""
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
    """How often what was being computed was asked again."""


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


def is_worn(now_bytes: int, ready_bytes: int, most_bytes: int | None) -> bool:
    """Whether a worker has grown beyond what it may have. One that is so large from the start would be no smaller if it were replaced."""
    return most_bytes is not None and now_bytes > most_bytes and now_bytes > 1.2 * ready_bytes


def fitting(wanted: int, limit_bytes: int | None, supervisor_bytes: int, worker_bytes: int) -> int:
    """How many workers of this size fit into nine tenths of the memory; one is tried in any case."""
    if limit_bytes is None or not worker_bytes:
        return wanted
    return max(1, min(wanted, int(limit_bytes * 0.9 - supervisor_bytes) // worker_bytes))


def surplus(new: int, old: int, wanted: int) -> int:
    """How many of the old workers are too many, beside so many new ones that are ready."""
    return old if new >= wanted else max(0, new + old - wanted)


def why_gone(killed_for: str, returncode: int, *, no_memory: bool) -> str:
    """Why a process is gone, in a word: "hang" or "stop"; "oom" where the system ended it for want of memory; "killed" by somebody else; or
    "crash"."""
    if killed_for or returncode not in (-signal.SIGKILL, -signal.SIGTERM):
        return killed_for or "crash"
    return "oom" if no_memory and returncode == -signal.SIGKILL else "killed"


def ending(returncode: int, reason: str = "") -> str:
    """How a process ended, in words."""
    if reason == "hang":
        return "it was stopped because it hung"
    if returncode >= 0:
        return f"it exited with code {returncode}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    return f"it was ended by {name}" + (", as there was no memory left" if reason == "oom" else "")
