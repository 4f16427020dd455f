"""How many workers a service has and how many threads each: from the cores, what is stated, and how long the model takes for one row.

A light model wants a worker for each core, with one thread each. One that is heavy, and nearly so many times as fast with so many threads,
wants fewer workers with more threads: as many rows a second come out, and each comes sooner.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

HEAVY_S = 0.02
"""A model that answers a row in less is light: more threads would make it wait for them rather than be faster."""
_EFFICIENT = 0.8
"""So much of its core each thread must put to use."""
_GAIN = 1.1
"""So many times as fast a worker must be with threads on cores that nobody else would use."""


@dataclass(frozen=True)
class Size:
    """How many workers there are, and how many threads each has for its computations."""

    workers: int
    threads: int

    def __str__(self) -> str:
        return f"{_counted(self.workers, 'worker')} of {_counted(self.threads, 'thread')}"


@dataclass(frozen=True)
class Stated:
    """What is known before anything is measured: the cores, and what the user says of workers and threads."""

    cores: int
    workers: int | None
    threads: int | None

    @property
    def first(self) -> Size:
        """What a service begins with: one thread each, unless more are stated."""
        threads = self.threads or 1
        return Size(self.workers or max(1, self.cores // threads), threads)

    def trial(self, row_s: float) -> int:
        """With how many threads a heavy model is worth another measurement, when it takes `row_s` for a row with one; else 0."""
        share = self.cores // (self.workers or 1)
        return share if self.threads is None and share > 1 and row_s >= HEAVY_S else 0

    def sized(self, one_s: float, threads: int, several_s: float) -> Size:
        """The size for a model that takes `one_s` for a row with one thread, and `several_s` with `threads`.

        From the two follows what share of the work is done by one thread alone, and from that how fast it would be with any number
        (Amdahl, 1967: the speedup of n threads is 1 / (serial + (1 - serial) / n)).
        """
        speedup = one_s / several_s
        if self.workers:
            return Size(self.workers, threads if speedup >= _GAIN else 1)
        serial = max(0.0, (threads / speedup - 1) / (threads - 1))
        most = threads if not serial else min(threads, math.floor(1 + (1 / _EFFICIENT - 1) / serial + 1e-9))
        workers = math.ceil(self.cores / most)
        return Size(workers, self.cores // workers)


def arithmetic(first: Size, row_s: float, threads: int, several_s: float | None, size: Size) -> str:
    """Why a service has its size, in a line for its log; `threads` and `several_s` are of the trial, 0 and None where there was none."""
    if not row_s:
        return f"there is no example to measure: {size}"
    text = f"a row takes {_milliseconds(row_s)} with {_counted(first.threads, 'thread')}"
    if several_s is not None:
        text += f" and {_milliseconds(several_s)} with {threads}, {row_s / several_s:.1f} times as fast"
    elif threads:
        text += f", and a worker with {threads} did not get ready"
    return f"{text}: {size}"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
