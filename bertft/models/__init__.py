"""Encoders, their heads and their training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bertft._lazy import exports

_HOMES = {"resolve_model": "bertft.models.loading"}

__all__ = sorted(_HOMES)

__getattr__, __dir__ = exports(__name__, _HOMES)

if TYPE_CHECKING:
    from bertft.models.loading import resolve_model as resolve_model
