"""Draws figures as SVG: text in, text out. Colours and type are the page's own, by class."""

from collections.abc import Callable, Sequence
from html import escape
from typing import Final

WIDTH, HEIGHT = 360, 170
"""Size of a chart in its own units."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 10, 10, 24
"""Pixels around a figure; to the left there is room for `$600,000`."""
_MARKS: Final = 3
"""Marks on an axis."""

Say = Callable[[float], str]


def area(points: Sequence[tuple[float, float]], *, label: str, x: Say, y: Say) -> str:
    """Draw a line over time with the area below it. Points in ascending order of x."""
    start, end = points[0][0], max(points[-1][0], points[0][0] + 1e-9)
    top = _nice(max(value for _, value in points))
    place = [(_across((at - start) / (end - start)), _up(value / top)) for at, value in points]
    line = " ".join(f"{'L' if n else 'M'}{across:.1f},{up:.1f}" for n, (across, up) in enumerate(place))
    floor = f"L{place[-1][0]:.1f},{_up(0):.1f} L{place[0][0]:.1f},{_up(0):.1f} Z"
    body = f'<path class="fill" d="{line} {floor}"/><path class="line" d="{line}"/>'
    return _frame(body + _heights(top, y) + _ends(x(start), x(end)), label)


def histogram(counts: Sequence[int], *, low: float, high: float, label: str, x: Say) -> str:
    """Draw how many fell into each of equal bins between `low` and `high`."""
    top = _nice(max(counts))
    wide = (WIDTH - _LEFT - _RIGHT) / len(counts)
    bars = "".join(
        f'<rect class="bar" x="{_LEFT + n * wide + 0.5:.1f}" y="{_up(count / top):.1f}" width="{max(1, wide - 1):.1f}"'
        f' height="{_up(0) - _up(count / top):.1f}"/>'
        for n, count in enumerate(counts)
        if count
    )
    return _frame(bars + _heights(top, lambda value: f"{value:,.0f}") + _ends(x(low), x(high)), label)


def bars(rows: Sequence[tuple[str, float, str]], *, label: str) -> str:
    """Draw a bar a row: its name, its length, and what stands at its end."""
    step = 24
    most = max(value for _, value, _ in rows) or 1
    left = 110
    parts = []
    for n, (name, value, said) in enumerate(rows):
        wide = max(1.0, (WIDTH - left - 70) * value / most)
        middle = n * step + 16
        parts.append(
            f'<text class="name" x="{left - 8}" y="{middle}" text-anchor="end">{escape(_short(name))}</text>'
            f'<rect class="bad" x="{left}" y="{middle - 11}" width="{wide:.1f}" height="14"/>'
            f'<text x="{left + wide + 6:.1f}" y="{middle}">{escape(said)}</text>'
        )
    return _frame("".join(parts), label, len(rows) * step + 8)


def _frame(body: str, label: str, height: int = HEIGHT) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}"><title>{escape(label)}</title>'
        f"{body}</svg>"
    )


def _heights(top: float, say: Say) -> str:
    parts = []
    for n in range(_MARKS):
        value = top * n / (_MARKS - 1)
        up = _up(value / top)
        parts.append(
            f'<line class="rule" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{up:.1f}" y2="{up:.1f}"/>'
            f'<text x="{_LEFT - 6}" y="{up + 4:.1f}" text-anchor="end">{escape(say(value))}</text>'
        )
    return "".join(parts)


def _ends(first: str, last: str) -> str:
    return (
        f'<text x="{_LEFT}" y="{HEIGHT - 6}">{escape(first)}</text>'
        f'<text x="{WIDTH - _RIGHT}" y="{HEIGHT - 6}" text-anchor="end">{escape(last)}</text>'
    )


def _across(share: float) -> float:
    return _LEFT + share * (WIDTH - _LEFT - _RIGHT)


def _up(share: float) -> float:
    return HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)


def _nice(value: float) -> float:
    """Return the next round number that is no less."""
    if value <= 0:
        return 1.0
    power = 1.0
    while power * 10 <= value:
        power *= 10
    while power > value:
        power /= 10
    return next(power * step for step in (1, 2, 4, 6, 8, 10) if power * step >= value)


def _short(name: str) -> str:
    return name if len(name) <= 16 else name[:15] + "…"  # noqa: PLR2004 - what fits beside a bar
