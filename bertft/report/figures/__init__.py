"""Figures, described."""
