"""Colours and markers that colour-blind readers distinguish.

The colours extend those of Okabe and Ito (2008). From the seventh series on, the first colours repeat with hollow
markers of other shapes.
"""

from __future__ import annotations

LIGHT = {
    "c0": "#0072b2",
    "c1": "#d55e00",
    "c2": "#008f68",
    "c3": "#5a1a8c",
    "c4": "#5c3d00",
    "c5": "#4a7dff",
    "c6": "#0072b2",
    "c7": "#d55e00",
    "c8": "#008f68",
    "ink": "#1b1f24",
    "muted": "#7a828c",
}
"""Colours for white paper; each has a contrast of at least 3 to white."""

DARK = {
    "c0": "#56b4e9",
    "c1": "#ff9248",
    "c2": "#2fc79a",
    "c3": "#a07cf0",
    "c4": "#f5e94c",
    "c5": "#c0603f",
    "c6": "#56b4e9",
    "c7": "#ff9248",
    "c8": "#2fc79a",
    "ink": "#e8eaed",
    "muted": "#949ca6",
}
"""The same slots on a dark page."""

LIGHT_PAGE = {
    "page": "#ffffff",
    "card": "#f6f8fa",
    "line": "#d9dde2",
    "text": "#1b1f24",
    "soft": "#57606a",
    "link": "#0b5cad",
    "notice": "#fff4d6",
    "notice-line": "#d9a400",
    "shade": "213, 94, 0",
}
"""Colours of the page itself. ``shade`` is red, green, blue: the page sets its opacity behind text."""

DARK_PAGE = {
    "page": "#14171b",
    "card": "#1d2127",
    "line": "#363c45",
    "text": "#e8eaed",
    "soft": "#a6adb7",
    "link": "#7cb8ff",
    "notice": "#3a3113",
    "notice-line": "#b58900",
    "shade": "213, 94, 0",
}
"""The same on a dark page."""

SERIES = 9
"""Number of series with a distinct look, ``c0`` to ``c8``."""

MARKERS = {
    "c0": "o",
    "c1": "s",
    "c2": "^",
    "c3": "D",
    "c4": "v",
    "c5": "P",
    "c6": "*",
    "c7": "p",
    "c8": "h",
    "ink": "X",
    "muted": "x",
}
"""Markers by their names in matplotlib."""

SYMBOLS = {
    "c0": "circle",
    "c1": "square",
    "c2": "triangle-up",
    "c3": "diamond",
    "c4": "triangle-down",
    "c5": "cross",
    "c6": "star-open",
    "c7": "pentagon-open",
    "c8": "hexagon-open",
    "ink": "x",
    "muted": "x-thin-open",
}
"""The same markers by their names in plotly."""

HOLLOW = ("c6", "c7", "c8")
"""Slots with unfilled markers."""


def spread(positions: list[float], gap: float) -> list[float]:
    """Return positions at least ``gap`` apart, in the same order and as near to the given ones as possible.

    Positions that are too close form a block centred on the mean of its members' own positions. Blocks merge until
    none overlap.
    """
    blocks: list[tuple[float, list[int]]] = []  # centre, members from low to high
    for index in sorted(range(len(positions)), key=positions.__getitem__):
        blocks.append((positions[index], [index]))
        while len(blocks) > 1:
            (low, below), (high, above) = blocks[-2:]
            if high - low >= gap * (len(below) + len(above)) / 2 - 1e-12:
                break
            members = below + above
            blocks[-2:] = [(sum(positions[m] for m in members) / len(members), members)]
    placed = list(positions)
    for centre, members in blocks:
        for rank, member in enumerate(members):
            placed[member] = centre + gap * (rank - (len(members) - 1) / 2)
    return placed
