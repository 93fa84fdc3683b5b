"""Figures and trees drawn on paper and screen."""
