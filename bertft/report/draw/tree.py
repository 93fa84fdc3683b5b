"""Gold and predicted dependency trees of a sentence as SVG."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from bertft.errors import BertftError
from bertft.report.palette import LIGHT, LIGHT_PAGE

_NOT_XML = re.compile("[^\t\n\r\\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
LETTER, GAP, STEP, MARGIN = 7.8, 18, 16, 14  # pixels: width of a letter, space between words, level height, margin


@dataclass(frozen=True)
class Tree:
    """A dependency tree that draws itself in a notebook and is printed as an indented list.

    Attributes:
        words: the words of the sentence.
        heads: the position of each word's head, counted from 1; 0 for the root.
        predicted: heads to draw below the words, such as those of a probe; by default none.
        title: a line above the drawing.
    """

    words: Sequence[str]
    heads: Sequence[int]
    predicted: Sequence[int] = ()
    title: str = ""

    def __post_init__(self) -> None:
        if not len(self.words) == len(self.heads) == len(self.predicted or self.heads):
            raise BertftError(
                f"tree: expected a head for each of {len(self.words)} words, found {len(self.heads)} heads and "
                f"{len(self.predicted)} predicted ones"
            )
        for head in (*self.heads, *self.predicted):
            if not 0 <= head <= len(self.words):
                raise BertftError(f"tree: expected heads from 0 to {len(self.words)}, found {head}")

    def _repr_html_(self) -> str:
        return f'<div style="overflow-x:auto">{self._repr_svg_()}</div>'

    def _repr_svg_(self) -> str:
        return tree_svg(self.words, self.heads, self.predicted, self.title)

    def __repr__(self) -> str:
        lines = [self.title] if self.title else []
        waiting = [(i, 0) for i, head in reversed([*enumerate(self.heads, start=1)]) if head == 0]
        seen: set[int] = set()
        while waiting:
            place, depth = waiting.pop()
            if place not in seen:
                seen.add(place)
                lines.append("  " * depth + _drawable(str(self.words[place - 1])))
                waiting += [(i, depth + 1) for i in range(len(self.heads), 0, -1) if self.heads[i - 1] == place]
        return "\n".join(lines)


def tree_svg(
    words: Sequence[str],
    gold: Sequence[int],
    predicted: Sequence[int],
    title: str = "",
    colours: Mapping[str, str] = LIGHT | LIGHT_PAGE,
) -> str:
    """Return SVG of ``words`` with gold edges above and predicted edges below; without predicted heads none are below.

    ``gold`` and ``predicted`` are 1-based heads, 0 for the root, which has a dot. A predicted edge is solid if it joins
    the same two words as a gold edge; otherwise it is dashed and has another colour. ``colours`` maps the names of the
    palette to colours; ``page`` is the background.

    Raises ``BertftError`` if the three sequences differ in length.
    """
    if not len(words) == len(gold) == len(predicted or gold):
        raise BertftError(f"tree: {len(words)} words, {len(gold)} gold heads and {len(predicted)} predicted ones")
    words, title = [_drawable(word) for word in words], _drawable(title)
    centres, end = _centres(words)
    width = max(end + MARGIN, 2 * MARGIN + len(title) * LETTER)
    above, below = _edges(gold), _edges(predicted)
    tops, depths = _levels(above), _levels(below)
    head = MARGIN + (20 if title else 0)
    upper = head + (max(tops.values(), default=0) + 1) * STEP
    lower = upper + 22
    height = lower + (max(depths.values(), default=0) + 1) * STEP + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="DejaVu Sans Mono, monospace" font-size="13" '
        f'role="img" aria-label="{escape(title)}">',
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="{colours["page"]}"/>',
    ]
    if title:
        parts.append(f'<text x="{MARGIN}" y="{MARGIN + 6}" fill="{colours["soft"]}">{escape(title)}</text>')
    for word, centre in zip(words, centres, strict=True):
        at = f'x="{centre:.1f}" y="{upper + 15}" text-anchor="middle" fill="{colours["ink"]}"'
        parts.append(f"<text {at}>{escape(word)}</text>")
    for edge in sorted(above):
        parts.append(_arc(centres, edge, upper, -STEP * (tops[edge] + 1), colours["ink"], ""))
    for edge in sorted(below):
        found = edge in above
        colour, dash = (colours["c0"], "") if found else (colours["c1"], ' stroke-dasharray="5 3"')
        parts.append(_arc(centres, edge, lower, STEP * (depths[edge] + 1), colour, dash))
    for heads, y, colour in ((gold, upper - 4, colours["ink"]), (predicted, lower + 4, colours["c0"])):
        for i in (i for i, h in enumerate(heads) if h == 0):
            parts.append(f'<circle cx="{centres[i]:.1f}" cy="{y}" r="3" fill="{colour}"/>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _centres(words: Sequence[str]) -> tuple[list[float], float]:
    """Return the horizontal centre of each word, and the end of the last one."""
    centres, x = [], float(MARGIN)
    for word in words:
        width = len(word) * LETTER
        centres.append(x + width / 2)
        x += width + GAP
    return centres, x - GAP


def _drawable(text: str) -> str:
    """Replace characters that XML does not allow (control characters and others) by U+FFFD."""
    return _NOT_XML.sub("\ufffd", text)


def _edges(heads: Sequence[int]) -> set[tuple[int, int]]:
    return {(min(i, h - 1), max(i, h - 1)) for i, h in enumerate(heads) if h}


def _levels(edges: set[tuple[int, int]]) -> dict[tuple[int, int], int]:
    """Return a level for each edge. Edges that overlap get different levels, shorter ones lower."""
    levels: dict[tuple[int, int], int] = {}
    for edge in sorted(edges, key=lambda e: (e[1] - e[0], e)):
        taken = {levels[o] for o in levels if o[0] < edge[1] and edge[0] < o[1]}
        levels[edge] = next(level for level in range(len(taken) + 1) if level not in taken)
    return levels


def _arc(centres: Sequence[float], edge: tuple[int, int], y: float, rise: float, colour: str, dash: str) -> str:
    left, right = centres[edge[0]] + 2, centres[edge[1]] - 2
    path = f"M{left:.1f} {y} V{y + rise} H{right:.1f} V{y}"
    return f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.4"{dash}/>'
