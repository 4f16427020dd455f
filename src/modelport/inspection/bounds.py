"""How much a model file may cost to read."""

from __future__ import annotations

import time
from typing import Any

from modelport.frameworks import Instance, Name

SECONDS = 60.0
"""The time one file may take."""
OBJECTS = 60_000_000
"""The opcodes one file may hold, and the elements that its opcodes may copy."""
DEPTH = 100
"""How deep pickles may lie in each other, and tuples in a key."""
KEY_PARTS = 10_000
"""The parts a key of a dict or an element of a set may be made of: a tuple of tuples of tuples takes exponential time to hash."""


class Malformed(ValueError):
    """What is wrong with the bytes, in words that follow the file's name: "is cut short"."""


class Budget:
    """What is left of the bounds while one file is read."""

    __slots__ = ("deadline", "objects")

    def __init__(self, objects: int = OBJECTS, seconds: float = SECONDS) -> None:
        self.objects = objects
        self.deadline = time.monotonic() + seconds

    def spend(self, objects: int) -> None:
        """Take `objects` off what is left. Malformed when that was too much, or took too long."""
        self.objects -= objects
        if self.objects < 0:
            raise Malformed("is a bomb: it makes more objects than any model does")
        if time.monotonic() > self.deadline:
            raise Malformed("is a bomb: it takes longer to read than any model does")


def key(value: Any) -> Any:
    """`value` when it may be a key of a dict or an element of a set, else Malformed: hashing it must be quick and run nothing."""
    _weigh(value, KEY_PARTS, 0)
    return value


def _weigh(value: Any, left: int, depth: int) -> int:
    if left <= 0 or depth > DEPTH:
        raise Malformed("is a bomb: a key of a dict is made of too many parts")
    if isinstance(value, (tuple, frozenset)):
        for part in value:
            left = _weigh(part, left - 1, depth + 1)
        return left
    if value is None or isinstance(value, (str, bytes, int, float, complex, Name, Instance)) or hasattr(value, "dtype"):
        return left
    raise Malformed(f"holds a dict with a key that is a {type(value).__name__}, which cannot be one")
