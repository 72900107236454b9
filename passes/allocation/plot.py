"""A Pareto front as an SVG, without a library: two axes, points joined by a line, the loss on a logarithmic scale."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

WIDTH, HEIGHT, LEFT, BOTTOM, MARGIN = 640, 420, 84, 56, 24
COLOURS = ("#1f5fa8", "#c2571a", "#3a7d44", "#8a3ffc", "#6b6b6b")


def front_svg(fronts: Mapping[str, Sequence[tuple[float, float]]], x: str, y: str) -> str:
    """The text of an SVG.

    Args:
        fronts: name -> points (cost, loss); losses that are not positive are left out.
        x, y: what the axes are called.
    """
    drawn = {name: [(a, b) for a, b in points if b > 0] for name, points in fronts.items()}
    flat = [point for points in drawn.values() for point in points] or [(0.0, 1.0)]
    low, high = min(a for a, _ in flat), max(a for a, _ in flat)
    floor = math.floor(min(math.log10(b) for _, b in flat))
    top = max(math.ceil(max(math.log10(b) for _, b in flat)), floor + 1)
    pad = (high - low or 1.0) * 0.04
    low, high = low - pad, high + pad

    def place(a: float, b: float) -> tuple[float, float]:
        across = LEFT + (a - low) / (high - low) * (WIDTH - LEFT - MARGIN)
        down = MARGIN + (top - math.log10(b)) / (top - floor) * (HEIGHT - MARGIN - BOTTOM)
        return round(across, 1), round(down, 1)

    parts = [_axes(x, y)]
    for power in range(floor, top + 1):
        _, at = place(low, 10.0**power)
        parts.append(f'<line x1="{LEFT}" y1="{at}" x2="{WIDTH - MARGIN}" y2="{at}" stroke="#ddd"/>')
        parts.append(_text(LEFT - 8, at + 4, f"1e{power}", "end"))
    for k in range(6):
        value = low + pad + (high - low - 2 * pad) * k / 5
        at, _ = place(value, 10.0**floor)
        parts.append(_text(at, HEIGHT - BOTTOM + 18, f"{value:.3g}", "middle"))
    for k, (name, points) in enumerate(drawn.items()):
        parts.append(_series(name, [place(a, b) for a, b in sorted(points)], k))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif">'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>', *parts, "</svg>"]) + "\n"


def _axes(x: str, y: str) -> str:
    right, base, middle = WIDTH - MARGIN, HEIGHT - BOTTOM, (HEIGHT - BOTTOM + MARGIN) // 2
    path = f'<path d="M{LEFT} {MARGIN} V{base} H{right}" fill="none" stroke="#444"/>'
    turned = f'<text x="20" y="{middle}" font-size="13" text-anchor="middle" transform="rotate(-90 20 {middle})">'
    return path + _text((LEFT + right) / 2, HEIGHT - 14, x, "middle") + f"{turned}{escape(y)}</text>"


def _series(name: str, points: Sequence[tuple[float, float]], number: int) -> str:
    colour = COLOURS[number % len(COLOURS)]
    line = " ".join(f"{a},{b}" for a, b in points)
    dots = "".join(f'<circle cx="{a}" cy="{b}" r="3" fill="{colour}"/>' for a, b in points)
    label = _text(WIDTH - MARGIN - 8, MARGIN + 16 * (number + 1), name, "end", colour)
    return f'<polyline points="{line}" fill="none" stroke="{colour}"/>{dots}{label}'


def _text(x: float, y: float, text: str, anchor: str, colour: str = "#222") -> str:
    return f'<text x="{x}" y="{y}" font-size="12" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'
