"""Figures of each analysis."""
