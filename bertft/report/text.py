"""Text in figures."""

from __future__ import annotations


def plain(text: str) -> str:
    """Escape text that plotly would read as markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def shortened(text: str, longest: int) -> str:
    """Return at most ``longest`` letters of a name, so that the picture keeps its room."""
    return text if len(text) <= longest else text[: longest - 1] + "…"
