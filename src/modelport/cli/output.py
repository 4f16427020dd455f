"""How the verbs lay out what they print: aligned, short, and the same everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def aligned(pairs: Sequence[tuple[str, str]]) -> str:
    """Two columns: names, and what is said of each."""
    width = max((len(name) for name, _ in pairs), default=0)
    return "\n".join(f"{name:<{width}}  {value}".rstrip() for name, value in pairs)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, two spaces apart."""
    widths = [max(len(row[index]) for row in (header, *rows)) for index in range(len(header))]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in (header, *rows)]
    return "\n".join(lines)


def short_list(names: Sequence[str], most: int = 6) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def counted(count: int, noun: str) -> str:
    """A number with its noun: 1 row, 1,200 rows."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def size(count: int) -> str:
    """Bytes for people: 4.1 kB, 12 MB (decimal units)."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            value = count / scale
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{count} B"


def proven(proof: Mapping[str, Any]) -> str:
    """What a bundle's parity.json says, in one line: that it is served from ONNX, or why it is not."""
    if not proof["passed"]:
        return f"native: {proof['reason']}"
    far = f"{proof['largest_difference']:.1g}" + (" relative" if proof["relative"] else "")
    inside = " in double precision" if proof["precision"] == "float64" else ""
    return f"passed{inside}: {counted(proof['rows'], 'row')}, {counted(proof['flips'], 'flip')}, largest difference {far}"
