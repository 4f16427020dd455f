"""Draws bars on a logarithmic scale as SVG, by hand: a panel above the other, the longest bar first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, LABELS, RIGHT = 860, 300, 90
BAR, GAP, HEAD, FOOT = 16, 7, 34, 34
OWN, OTHER, LIMIT, INK, QUIET = "#0b6e4f", "#a9b4bd", "none", "#1f2933", "#6b7780"

SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img"'
    ' font-family="system-ui, sans-serif" font-size="12">'
)
SCALE = "Requests a second on one core, median of the rounds. Logarithmic scale: each grid line is ten times the one before."


@dataclass(frozen=True)
class Bar:
    """One tool's requests a second."""

    label: str
    value: float
    own: bool
    limit: bool


@dataclass(frozen=True)
class Panel:
    """One work."""

    title: str
    bars: Sequence[Bar]


def bars(panels: Sequence[Panel]) -> str:
    """The picture; its text says that the scale is logarithmic."""
    top, parts = 40, []
    for panel in panels:
        drawn, height = _panel(panel, top)
        parts += drawn
        top += height
    return "\n".join(
        [
            SVG.format(width=WIDTH, height=top),
            "<title>Requests a second on one core, logarithmic scale</title>",
            f'<rect width="{WIDTH}" height="{top}" fill="#ffffff"/>',
            f'<text x="16" y="24" fill="{QUIET}">{SCALE}</text>',
            *parts,
            "</svg>",
            "",
        ]
    )


def _panel(panel: Panel, top: int) -> tuple[list[str], int]:
    ordered = sorted(panel.bars, key=lambda bar: -bar.value)
    low = math.floor(math.log10(min(bar.value for bar in ordered)))
    high = max(low + 1, math.ceil(math.log10(max(bar.value for bar in ordered))))
    room, begin = WIDTH - LABELS - RIGHT, top + HEAD
    end = begin + len(ordered) * (BAR + GAP)

    def x(value: float) -> float:
        return LABELS + room * (math.log10(value) - low) / (high - low)

    parts = [f'<text x="16" y="{top + 18}" fill="{INK}" font-size="14" font-weight="600">{escape(panel.title)}</text>']
    for power in range(low, high + 1):
        at = x(10**power)
        parts.append(f'<line x1="{at:.1f}" y1="{begin - 4}" x2="{at:.1f}" y2="{end}" stroke="#e3e8ec"/>')
        parts.append(f'<text x="{at:.1f}" y="{end + 13}" fill="{QUIET}" font-size="10" text-anchor="middle">{10**power:,}</text>')
    for number, bar in enumerate(ordered):
        y = begin + number * (BAR + GAP)
        fill = LIMIT if bar.limit else OWN if bar.own else OTHER
        line = f' stroke="{OTHER}" stroke-dasharray="3 3"' if bar.limit else ""
        weight = ' font-weight="600"' if bar.own else ""
        parts += [
            f'<text x="{LABELS - 8}" y="{y + 12}" fill="{INK}" text-anchor="end"{weight}>{escape(_short(bar.label))}</text>',
            f'<rect x="{LABELS}" y="{y}" width="{max(2.0, x(bar.value) - LABELS):.1f}" height="{BAR}" fill="{fill}"{line}/>',
            f'<text x="{x(bar.value) + 6:.1f}" y="{y + 12}" fill="{INK}"{weight}>{bar.value:,.0f}</text>',
        ]
    return parts, end - top + FOOT


def _short(label: str) -> str:
    return label if len(label) <= 46 else f"{label[:45]}…"
