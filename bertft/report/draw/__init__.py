"""Figures, drawn."""
