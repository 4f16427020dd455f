"""Universal Binary JSON (draft 12), the part of it that XGBoost writes: https://ubjson.org."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from modelport.inspection.bounds import DEPTH, Budget, Malformed

_NUMBERS = {ord("i"): ">i1", ord("U"): ">u1", ord("I"): ">i2", ord("l"): ">i4", ord("L"): ">i8", ord("d"): ">f4", ord("D"): ">f8"}
_CONSTANTS = {ord("Z"): None, ord("T"): True, ord("F"): False}
_LENGTHS = {ord("i"): "b", ord("U"): "B", ord("I"): ">h", ord("l"): ">i", ord("L"): ">q"}


def parse(data: bytes, budget: Budget) -> Any:
    """The value at the beginning of `data`; arrays of one type of number are numpy arrays. Malformed when there is none."""
    try:
        return _Parser(data, budget).value(0)
    except (IndexError, struct.error, UnicodeDecodeError, TypeError, KeyError) as error:
        raise Malformed(f"is cut short or damaged: its binary JSON does not parse ({error})") from None


class _Parser:
    def __init__(self, data: bytes, budget: Budget) -> None:
        self.data = data
        self.budget = budget
        self.position = 0

    def _byte(self) -> int:
        self.position += 1
        return self.data[self.position - 1]

    def _take(self, length: int) -> bytes:
        start = self.position
        if length < 0 or start + length > len(self.data):
            raise Malformed(f"is cut short: {length} bytes should follow byte {start}")
        self.position += length
        return self.data[start : self.position]

    def _length(self) -> int:
        code = _LENGTHS[self._byte()]
        return int(struct.unpack(code, self._take(struct.calcsize(code)))[0])

    def _text(self) -> str:
        return self._take(self._length()).decode("utf-8")

    def value(self, depth: int, marker: int | None = None) -> Any:
        self.budget.spend(1)
        if depth > DEPTH:
            raise Malformed("is a bomb: values lie in each other too deep")
        marker = self._byte() if marker is None else marker
        if marker in _NUMBERS:
            of = np.dtype(_NUMBERS[marker])
            return np.frombuffer(self._take(of.itemsize), of)[0].item()
        if marker in _CONSTANTS:
            return _CONSTANTS[marker]
        if marker == ord("S"):
            return self._text()
        if marker == ord("C"):
            return chr(self._byte())
        if marker == ord("{"):
            return self._object(depth)
        if marker == ord("["):
            return self._array(depth)
        raise Malformed(f"is damaged: byte {self.position - 1} is no marker of binary JSON")

    def _sized(self) -> tuple[int | None, int | None]:
        """The type and the number of the elements, where they are told ahead."""
        kind = count = None
        if self.data[self.position] == ord("$"):
            self.position += 1
            kind = self._byte()
        if self.data[self.position] == ord("#"):
            self.position += 1
            count = self._length()
            if count < 0:
                raise Malformed("is damaged: it has an array of a negative length")
        if kind is not None and count is None:
            raise Malformed("is damaged: it has an array with a type and no length")
        return kind, count

    def _array(self, depth: int) -> Any:
        kind, count = self._sized()
        if kind in _NUMBERS and count is not None:
            of = np.dtype(_NUMBERS[kind])
            return np.frombuffer(self._take(count * of.itemsize), of)
        if count is not None:
            self.budget.spend(count)
            return [self.value(depth + 1, kind) for _ in range(count)]
        items = []
        while self.data[self.position] != ord("]"):
            items.append(self.value(depth + 1))
        self.position += 1
        return items

    def _object(self, depth: int) -> dict[str, Any]:
        kind, count = self._sized()
        made: dict[str, Any] = {}
        if count is not None:
            self.budget.spend(count)
            for _ in range(count):
                name = self._text()
                made[name] = self.value(depth + 1, kind)
            return made
        while self.data[self.position] != ord("}"):
            name = self._text()
            made[name] = self.value(depth + 1)
        self.position += 1
        return made
