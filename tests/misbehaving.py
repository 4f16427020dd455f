"""A model that does what it is told, also what no model should: each row says what to do, and with which number."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from threadpoolctl import threadpool_info

ANSWER, LOOP, HOLD_LOCK, EXIT, SEGFAULT, SYS_EXIT, SHORT, NAN, PRINT, CLOSE_STDOUT, SLEEP, RAISE, NOTHING, LEAK, INTERRUPT = range(15)
"""What a row may say. The others do no harm, but for the time they take."""
WAIT = 15
"""As SLEEP, but says nothing."""
MULTIPLY, THREADS = 16, 17
"""Multiply two matrices of so many rows, which takes the time of as many threads as there are; answer with how many that is."""
CALLS, GATED, GATED_EXIT = 18, 19, 20
"""Answer with how many calls this process has had before; answer, or EXIT, when the named pipe MISBEHAVE_GATE was opened and closed."""
_kept: list[bytearray] = []
_calls = count()


class Misbehaving(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Answers with the number times its factor, unless a row says otherwise. With a `gate`, a named pipe, loading waits for its end."""

    def __init__(self, factor: float = 2.0, gate: str = "") -> None:
        self.factor = factor
        self.gate = gate

    def fit(self, X: Any, y: Any = None) -> Misbehaving:
        self.n_features_in_ = 2
        return self

    def predict(self, X: Any) -> Any:
        rows = np.asarray(X, dtype=float)
        calls = next(_calls)
        for what, number in rows:
            _do(int(what), float(number))
        told = rows[:, 0]
        if SHORT in told:
            return np.zeros(len(rows) + 1)
        if NOTHING in told:
            return None
        answers = np.where(told == THREADS, _threads(), self.factor * rows[:, 1])
        answers = np.where(told == CALLS, calls, answers)
        return np.where(told == NAN, np.nan, answers)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        at_load = self.gate or os.environ.get("MISBEHAVE_AT_LOAD", "")
        if at_load == "exit":
            os._exit(9)
        elif at_load:  # a named pipe: loading lasts until somebody writes into it
            Path(at_load).read_text()


def _threads() -> int:
    """How many threads multiply."""
    return max(int(pool["num_threads"]) for pool in threadpool_info() if pool["user_api"] == "blas")


def _do(what: int, number: float) -> None:  # noqa: C901  a list of deeds
    if what == LOOP:
        while True:
            pass
    elif what == HOLD_LOCK:
        holding = ctypes.PyDLL(None)  # its calls keep the interpreter's lock
        while True:
            holding.usleep(500_000)
    elif what == EXIT:
        os._exit(3)
    elif what == SEGFAULT:
        ctypes.string_at(0)
    elif what == SYS_EXIT:
        sys.exit(3)
    elif what == PRINT:
        print("x" * 2**20)
    elif what == CLOSE_STDOUT:
        os.close(1)
    elif what == SLEEP:
        print("asleep", flush=True)
        time.sleep(number)
    elif what in (GATED, GATED_EXIT):
        Path(os.environ["MISBEHAVE_GATE"]).read_text()
        if what == GATED_EXIT:
            os._exit(3)
    elif what == WAIT:
        time.sleep(number)
    elif what == MULTIPLY:
        side = np.ones((int(number), int(number)))
        np.matmul(side, side)
    elif what == RAISE:
        raise ValueError("a secret")
    elif what == LEAK:
        _kept.append(bytearray(os.urandom(1) * int(number * 2**20)))
    elif what == INTERRUPT:
        raise KeyboardInterrupt
