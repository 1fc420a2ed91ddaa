"""Draws histograms as inline SVG: no script, colours from the page's style sheet."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape

_WIDTH, _HEIGHT, _FOOT, _HEAD = 420, 170, 26, 14
#: Widest room of a bin: few of them stand in the middle, since a bar as wide as the chart is no longer seen as one.
_WIDEST = _WIDTH / 6


def histogram(
    edges: Sequence[float],
    fetched: Sequence[int],
    kept: Sequence[int],
    label: str,
    names: tuple[str, str] | None = None,
) -> Markup:
    """Two bar series (classes `all` and `kept`) over bins that start at `edges`, the last one open-ended.

    `label` is the text for screen readers. Without `names` the second series is a part of the first and drawn over it;
    with names they are drawn side by side. Empty bins at both ends are left out.
    """
    last = max((i for i, n in enumerate(zip(fetched, kept, strict=True)) if any(n)), default=0)
    first = min((i for i, n in enumerate(zip(fetched, kept, strict=True)) if any(n)), default=0)
    series = names or ("fetched", "kept")
    shown = range(first, last + 1)
    tallest = max([n for i in shown for n in (fetched[i], kept[i])] + [1])
    step = min(_WIDTH / len(shown), _WIDEST)
    margin = (_WIDTH - step * len(shown)) / 2
    parts = []
    for column, i in enumerate(shown):
        left = margin + column * step
        title = f"{_range(edges, i)}: {fetched[i]:,} {series[0]}, {kept[i]:,} {series[1]}"
        width = step / 2 if names else step
        bars = _bar(left, width, fetched[i] / tallest, "all")
        bars += _bar(left + step - width, width, kept[i] / tallest, "kept")
        middle = left + step / 2
        tick = (
            f'<text class="tick" x="{middle:.1f}" y="{_HEIGHT - 8}" text-anchor="middle">{_number(edges[i])}'
            f"{'+' if i == len(edges) - 1 else ''}</text>"
        )
        parts.append(f"<g><title>{title}</title>{bars}{tick}</g>")
    base = _HEIGHT - _FOOT
    axis = f'<line class="axis" x1="0" x2="{_WIDTH}" y1="{base}" y2="{base}"/>'
    top = f'<text class="tick" x="0" y="10">{tallest:,}</text>'
    head = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(label)}">'
    return Markup(f"{head}{top}{''.join(parts)}{axis}</svg>")  # all other text is numbers and constants


def _bar(left: float, step: float, share: float, kind: str) -> str:
    room = _HEIGHT - _FOOT - _HEAD
    height = max(1.5, room * share) if share else 0
    return (
        f'<rect class="{kind}" x="{left + step * 0.1:.1f}" y="{_HEIGHT - _FOOT - height:.1f}" '
        f'width="{step * 0.8:.1f}" height="{height:.1f}" rx="2"/>'
    )


def _range(edges: Sequence[float], i: int) -> str:
    if i == len(edges) - 1:
        return f"{_number(edges[i])} and more"
    return f"{_number(edges[i])} to under {_number(edges[i + 1])}"


def _number(value: float) -> str:
    return f"{value:g}"
